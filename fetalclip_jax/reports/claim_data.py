"""Answers to the items of CLAIM 2024 about data, partitions and reference standard.

Each function yields sentences from what results and runs recorded, and none where nothing was.
"""

import collections
from collections.abc import Iterable, Iterator

import numpy as np

from fetalclip_jax.evaluation.units import counted, judged_unit
from fetalclip_jax.reports import left_out, naming, provenance
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, number
from fetalclip_jax.reports.reading import Evaluated

_TRANSFORMS = {
    "clip": "padded to a black square, shrunk by antialiased bicubic interpolation",
    "opencv": "padded to a black square, shrunk by OpenCV's cubic interpolation, not antialiased",
}
_MOST_CLASSES = 12
# What the stores of a study are for, by the names that studies give them.
_ROLES = {
    "images": "judged",
    "test": "judged",
    "fit": "fitted on",
    "train": "read for constant answers",
}


def together(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """ "a, b: sentence" of (who, sentence): what holds for several is said once."""
    found: dict[str, list[str]] = {}
    for who, sentence in pairs:
        found.setdefault(sentence, []).append(who)
    for sentence, names in found.items():
        yield f"{', '.join(dict.fromkeys(names))}: {sentence}"


def sources(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        data = one.result.data
        if data:
            drawn = (
                "simulated images, no evidence about patients" if one.simulated else "real images"
            )
            yield (
                f"{one.data_name}: {data.get('citation') or 'citation not recorded'}; licence "
                f"{data.get('licence') or 'not recorded'}; {drawn}."
            )


def eligibility(report: Report) -> Iterator[str]:
    if _judged_here(report):
        yield (
            "An image is judged if it can be read and has the label or measurement that a task "
            "needs; numbers that cannot be true are not used."
        )
    if report.has_section("left out"):
        yield "What was left out, why and how often: section What was left out."


def preprocessing(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        size = provenance.tower(one, "vision_cfg").get("image_size")
        for name, about in one.result.data.get("stores", {}).items():
            if about.get("transform") in _TRANSFORMS and name != "train":
                to = f" to {size} pixels" if size else ""
                yield (
                    f"{one.data_name}: {_TRANSFORMS[about['transform']]}{to}; RGB, mean and "
                    "standard deviation of CLIP."
                )
            if about.get("copies"):
                yield (
                    f"{naming.title(one.result.study)}: {about['copies']} augmented copies of each "
                    f"image of split {about['split']!r}."
                )


def missing(report: Report) -> Iterator[str]:
    if _judged_here(report):
        yield "Nothing is imputed: an image that lacks what a task needs is left out and counted."
    for one in report.contents.evaluated:
        if "left_out" in one.result.data:
            count = counted(len(one.result.data["left_out"]), judged_unit(one.result))
            yield f"{one.data_name}: {count} of those used could not be read."
        for note in one.result.data.get("notes", ()):
            yield f"{one.data_name}: {note}."
    for run in report.contents.runs:
        for split, bad in run.bad_examples.items():
            yield f"{run.name}: {len(bad):,} examples left out of the records {split!r}."


def acquisition(report: Report) -> Iterator[str]:
    """Whatever groups the images are known to be of, such as machines and operators.

    Of each data set the study that judged the most images speaks for the others.
    """
    most: dict[tuple[str, str], Evaluated] = {}
    for one in report.contents.evaluated:
        found = one.result.predictions
        for column in found.groups if found is not None else ():
            other = most.setdefault((one.data_name, column), one).result.predictions
            if len(found.example_id) > len(other.example_id):
                most[one.data_name, column] = one
    for (data, column), one in most.items():
        counts = collections.Counter(one.result.predictions.groups[column].astype(str).tolist())
        unknown = counts.pop("", 0)
        words = ", ".join(f"{value} {n:,}" for value, n in counts.most_common(_MOST_CLASSES))
        if len(counts) > _MOST_CLASSES:
            words += f", {len(counts) - _MOST_CLASSES} more"
        if unknown:
            words += f", unknown {unknown:,}"
        if counts:
            title = naming.title(one.result.study)
            yield f"{data}, {judged_unit(one.result)} of {title} by {display(column)}: {words}."


def reference(report: Report) -> Iterator[str]:
    for one in _judged_here(report):
        result = one.result
        if "classes" in result.details or "per_class_f1" in result.details:
            yield f"{one.data_name}: the class labels that come with the data set."
        if result.study == "age":
            yield f"{one.data_name}: the head circumferences that come with the data set."
            if result.data.get("ages_from") == naming.IMPLIED_AGES:
                yield (
                    f"{one.data_name} holds no gestational ages: those compared with are implied, "
                    "the WHO median at the measured circumference."
                )
            elif result.data.get("ages_from"):
                yield f"{one.data_name}: gestational ages that come with the data set."


def partitions(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        for name, about in one.result.data.get("stores", {}).items():
            store = provenance.store(_ROLES.get(name, name), about, judged_unit(one.result))
            yield f"{one.data_name}, {store}."
    for run in report.contents.runs:
        if source := run.config.get("data", {}).get("source"):
            words = f"{run.name} was trained on split 'train' of {source}"
            if patients := run.config["data"].get("train_patients"):
                words += f", {patients} patients of it"
            for other, _, share in run.config["data"].get("mixture", ()):
                words += f", and on {other} for {100 * share:g} % of every batch"
            yield f"{words}."


def level(report: Report) -> Iterator[str]:
    judged: dict[tuple[str, str], tuple[int, int]] = {}
    for one in _judged_here(report):
        if one.result.predictions is not None:
            ids = one.result.predictions.patient_id.astype(str)
            found = len(ids), int((ids != "").sum())
            key = one.data_name, judged_unit(one.result)
            judged[key] = max(judged.get(key, found), found)
    for (name, unit), (count, known) in judged.items():
        if known:
            yield (
                f"{name}: the patient. Splits, folds and support sets keep the {unit} of one "
                f"patient id together; {known:,} of {count:,} judged {unit} have one."
            )
        else:
            one = unit.removesuffix("s")
            yield f"{name}: the {one}; no judged {one} has a patient id."


def sample_size(report: Report) -> Iterator[str]:
    del report
    yield "The program calculates none beforehand; how many were judged stands in item 35."


def internal(report: Report) -> Iterator[str]:
    pairs = [
        (
            one.model_name,
            f"{one.data_name}, the kind of data it was trained on, "
            f"split {' and '.join(map(repr, provenance.splits(one)))}.",
        )
        for one in report.contents.evaluated
        if one.result.data.get("kind", "not recorded") in _trained_on(report, one).split(" + ")
    ]
    yield from together(pairs)


def external(report: Report) -> Iterator[str]:
    pairs = [
        (one.model_name, f"{one.data_name}, other data than it was trained on ({trained_on}).")
        for one in report.contents.evaluated
        if one.result.data.get("kind")
        and (trained_on := _trained_on(report, one))
        and one.result.data["kind"] not in trained_on.split(" + ")
    ]
    yield from together(pairs)
    known = {one.model_name: _trained_on(report, one) for one in report.contents.evaluated}
    silent = [name for name, trained_on in known.items() if not trained_on]
    if silent and len(silent) < len(known):
        yield f"{', '.join(silent)}: what it was trained on is not recorded."


def included(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        words = f"{naming.title(one.result.study)} on {one.data_name}: {_count(one)} judged"
        lines = [(reason, count) for _, reason, count in left_out.of(one) if count]
        if lines:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in lines)
            words += f"; left out: {reasons}"
        yield f"{words}."


def characteristics(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        found, where = (
            one.result.predictions,
            f"{naming.title(one.result.study)} on {one.data_name}",
        )
        if found is None or not len(found.label):
            continue
        if "per_class_f1" in one.result.details:
            counts = collections.Counter(found.label.astype(str).tolist())
            if len(counts) <= _MOST_CLASSES:
                words = ", ".join(f"{display(name)} {n:,}" for name, n in sorted(counts.items()))
                yield f"{where}: {words} {judged_unit(one.result)}."
        for column, words, unit, scale in (
            ("hc_mm", "head circumference", "mm", 1),
            ("ga_days", "gestational age", "weeks", 7),
        ):
            values = [number(value) for value in found.extra.get(column, np.array([])).tolist()]
            known = [value / scale for value in values if value is not None]
            if known:
                yield f"{where}: {words} {min(known):.1f} to {max(known):.1f} {unit}."


def _judged_here(report: Report) -> list[Evaluated]:
    """Results on images that a study read; of what `score` was given, nobody said whence."""
    return [one for one in report.contents.evaluated if one.result.data.get("stores")]


def _count(one: Evaluated) -> str:
    images, patients = provenance.counts(one)
    unit = judged_unit(one.result)
    words = f"{unit} not counted" if images is None else counted(images, unit)
    return words if patients is None else f"{words} of {counted(patients, 'patients')}"


def _trained_on(report: Report, one: Evaluated) -> str:
    """The kind of data a model was trained on; "" where neither result nor run says so."""
    if trained_on := one.result.model.get("trained_on"):
        return trained_on
    for run in report.contents.runs:
        if provenance.lies_in(one, run):
            data = run.config.get("data", {})
            return " + ".join(
                filter(None, [data.get("source", ""), *(row[0] for row in data.get("mixture", ()))])
            )
    return ""
