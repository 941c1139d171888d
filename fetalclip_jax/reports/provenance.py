"""Where the figures come from: what they stand for, protocols, cost, configuration, software."""

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.study import TRANSFORMS
from fetalclip_jax.evaluation.units import counted, judged_unit
from fetalclip_jax.reports import naming, page
from fetalclip_jax.reports.naming import number
from fetalclip_jax.reports.reading import Contents, Evaluated, TrainedRun

_PACKAGES = ("fetalclip_jax", "jax", "jaxlib", "flax", "optax", "grain", "numpy")
_IN_WORDS = ("name", "resample_by", "resamples", "seed")
_PROTOCOL = 2  # its place in `_basis`; before it stands what the images are
# Stores that probes and constant answers are learned from; the others are judged.
_LEARNED_FROM = ("fit", "train")
_PHASES = {
    "step": "training steps",
    "compile": "compiling",
    "start": "imports, records, restoring",
    "data_wait": "devices waiting for data",
    "evaluate": "judging",
    "save": "saving, as far as training waited",
    "lost": "work that was lost with a killed process",
}
SCALES = (
    "Intervals by Student's t are on the logit scale for rates and scores, on the logarithm for "
    "errors."
)
_TRANSFORM = TRANSFORMS[0]  # what models are made for; only others are worth a word


def stands_for(*ones: Evaluated, intervals: bool = True) -> str:
    """What figures of these results stand for: n, patients, split, protocol and interval.

    Every caption ends with it. Where results differ, each is said with what tells it apart, and
    what they share is said once, last. "" for no result.

    Args:
      ones: the results.
      intervals: the figures have intervals; pictures of images, say, have none.
    """
    bases = [_basis(one) if intervals else _basis(one)[:-1] for one in ones]
    if len(set(bases)) < 2:
        return "".join(f"{', '.join(basis)}." for basis in bases[:1])
    varying = [i for i, parts in enumerate(zip(*bases, strict=True)) if len(set(parts)) > 1]
    shared = [part for i, part in enumerate(bases[0]) if i not in varying]
    lines = _told_apart(ones, bases, varying, _NAMES)
    if not lines and _no_name_twice(ones):
        # Images may differ by one thing and protocols by another: each is said alone.
        images = [i for i in varying if i < _PROTOCOL]
        apart = [part for part in (images, *([i] for i in varying if i >= _PROTOCOL)) if part]
        said = [_told_apart(ones, bases, parts, _NAMES) for parts in apart]
        lines = [line for part in said for line in part] if all(said) else []
    lines = lines or _told_apart(ones, bases, varying, _PAIRS)
    lines = lines or _lines(ones, bases, varying, _in_full)
    words = "; ".join(lines)
    return f"{words}; all: {', '.join(shared)}." if shared else f"{words}."


def _no_name_twice(ones: Sequence[Evaluated]) -> bool:
    """Whether no model is called as a data set is."""
    return not {one.model_name for one in ones} & {one.data_name for one in ones}


def _told_apart(
    ones: Sequence[Evaluated],
    bases: Sequence[tuple[str, ...]],
    parts: Sequence[int],
    ways: Sequence[Callable[[Evaluated], str]],
) -> list[str]:
    """Some parts of what results stand for, by the first way that tells them apart, if any."""
    for way in ways:
        names: dict[str, set[tuple[str, ...]]] = {}
        for one, basis in zip(ones, bases, strict=True):
            names.setdefault(way(one), set()).add(tuple(basis[i] for i in parts))
        if all(len(said) == 1 for said in names.values()):
            return _lines(ones, bases, parts, way)
    return []


def _lines(
    ones: Sequence[Evaluated],
    bases: Sequence[tuple[str, ...]],
    parts: Sequence[int],
    way: Callable[[Evaluated], str],
) -> list[str]:
    """A line for each of what is said, with the names of all that it is said of."""
    names: dict[tuple[str, ...], dict[str, None]] = {}
    for one, basis in zip(ones, bases, strict=True):
        names.setdefault(tuple(basis[i] for i in parts), {})[way(one)] = None
    return [f"{', '.join(whose)}: {', '.join(said)}" for said, whose in names.items()]


def counts(one: Evaluated) -> tuple[int | None, int | None]:
    """Images and patients that a result was measured on; None where it does not say."""
    result = one.result
    headline = next(iter(result.metrics.values()), None)
    images = headline.n if headline is not None else None
    if images is None:
        images = result.details.get("count")
    patients = result.details.get("patients")
    if (
        patients is None
        and headline is not None
        and result.protocol.get("resample_by") == "patient"
    ):
        patients = headline.groups
    if result.predictions is not None:
        images = len(result.predictions.example_id) if images is None else images
        known = set(result.predictions.patient_id.tolist()) - {""}
        patients = (len(known) or None) if patients is None else patients
    return images, patients


def splits(one: Evaluated, learned: bool = False) -> list[str]:
    """Names of the splits that were judged, or of those that something was learned from."""
    stores = one.result.data.get("stores", {})
    judged = [name for name in stores if name not in _LEARNED_FROM]
    # Where each fold is tested in turn, what is learned from is judged too.
    names = [name for name in stores if name in _LEARNED_FROM] if learned else judged or stores
    return list(dict.fromkeys(str(stores[name].get("split")) for name in names))


def where(one: Evaluated) -> str:
    """ "split 'test' of phantom (simulated)": what was judged."""
    judged = " and ".join(map(repr, splits(one))) or "not recorded"
    return f"split {judged} of {one.data_name}" + " (simulated)" * one.simulated


def interval(one: Evaluated) -> str:
    """What the 95 % intervals of a result are, in words."""
    result = one.result
    headline = next(iter(result.metrics.values()), None)
    edges = [(point.get("low"), point.get("high")) for point in result.curve]
    if not edges and headline is not None:
        edges = [(headline.low, headline.high)]
    if not any(low is not None and high is not None for low, high in edges):
        alone = headline is not None and headline.groups == 1
        return "no interval" + (": a single patient shows no spread" if alone else " recorded")
    unit = result.protocol.get("resample_by")
    drawn = f"{unit}s" if unit else "units that are not recorded"
    times = number(result.protocol.get("resamples"))
    redrawn = bool(result.details.get("redraws"))
    if by_t(one):
        others = ["support sets"] * bool(result.curve)
        others += ["redrawn augmented copies"] * redrawn
        count = f"{times:,.0f} " if times else ""
        words = "variances of" if others else "variance of"
        words += f" {count}bootstrap resamples of {drawn}"
        return f"95 % interval: Student's t, {words}" + "".join(f" and of {o}" for o in others)
    if result.curve:
        drawn = f"support sets and {drawn}"
    if redrawn:
        drawn += " and draws of augmented copies"
    draws = f" in {times:,.0f} resamples" if times else ""
    return f"95 % interval: bootstrap over {drawn}{draws}"


def views_in_words(result: Result) -> str:
    """ "features averaged over 10 views of each image"; "" for images as they are."""
    views = number(result.model.get("test_time_views")) or 1
    return f"features averaged over {views:.0f} views of each image" if views > 1 else ""


def by_t(one: Evaluated) -> bool:
    """Whether the intervals are Student's: versions that did otherwise recorded no environment."""
    return bool(one.result.environment)


def seed(one: Evaluated) -> str:
    """ ", seed 0": of what a study draws at random; "" where it is not recorded."""
    found = one.result.protocol.get("seed")
    return "" if found is None else f", seed {found}"


def tower(one: Evaluated, name: str) -> Mapping[str, Any]:
    """The part `name` of a model's configuration; empty where it was not recorded."""
    config = one.result.model.get("config")
    found = config.get(name) if isinstance(config, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def lies_in(one: Evaluated, run: TrainedRun) -> bool:
    """Whether a result was saved in the folder of a run."""
    return one.folder.resolve().is_relative_to(run.workdir.resolve())


def absent_classes(one: Evaluated) -> tuple[list[str], int]:
    """Classes without any judged image, over which no mean is, and how many classes compete.

    The distractors of a zero-shot task lack images on purpose and count as no classes.
    """
    result, found = one.result, one.result.predictions
    judged = set(result.details.get("labels") or ())
    if not judged and found is not None:
        judged = set(found.label.astype(str).tolist())
    distractors = result.protocol.get("distractors")
    if not judged or (result.study.startswith("zero_shot.") and distractors is None):
        return [], 0
    classes = [c for c in result.details.get("classes") or () if c not in (distractors or ())]
    return [name for name in classes if name not in judged], len(classes)


def protocols(contents: Contents) -> str:
    """How every study was done, in words."""
    rows = []
    for one in contents.evaluated:
        settings = {k: v for k, v in one.result.protocol.items() if k not in _IN_WORDS}
        rows.append(
            (
                naming.title(one.result.study),
                one.label,
                in_words(one),
                "; ".join(f"{k} {_plain(v)}" for k, v in settings.items()),
            )
        )
    if not rows:
        return ""
    columns = ("Task", "Model / data", "Protocol", "Settings")
    return page.plain_table(columns, rows, "wordy")


def in_words(one: Evaluated) -> str:
    """A few sentences: protocol, images, and what the intervals resample."""
    result = one.result
    protocol, data = result.protocol, result.data
    sentences = [f"Protocol: {protocol.get('name', 'not recorded')}"]
    headline = next(iter(result.metrics.values()), None)
    if headline is not None and headline.n is not None:
        sentences.append(f"{counted(headline.n, judged_unit(result))} judged")
    if views := views_in_words(one.result):
        sentences.append(views.capitalize())
    sentences += [
        store(name, about, judged_unit(result)) for name, about in data.get("stores", {}).items()
    ]
    if by_t(one):
        words = interval(one)
        sentences.append(words[:1].upper() + words[1:])
    elif resample_by := protocol.get("resample_by"):
        groups = headline.groups if headline is not None else None
        count = f"{groups:,} " if groups else ""
        plural = "s" if groups != 1 else ""
        times = number(protocol.get("resamples"))
        draws = f" in {times:,.0f} resamples" if times else ""
        sentences.append(f"Intervals redraw {count}{resample_by}{plural}{draws}")
    if protocol.get("seed") is not None:
        sentences.append(f"Seed of all draws: {protocol['seed']}")
    if data.get("ages_from") == naming.IMPLIED_AGES and result.study == "age":
        sentences.append("Ages are those of the WHO median at the measured circumference")
    return ". ".join(sentences) + "."


def environment(contents: Contents) -> Iterator[str]:
    """Configurations, models and data, cost, and the software that wrote the report."""
    for run in contents.runs:
        if run.config:
            title = "Configuration" if len(contents.runs) == 1 else f"Configuration of {run.name}"
            yield _json(title, run.config)
    for title, kind in (("Models", "model"), ("Data sets", "data")):
        # Splits and counts differ between the studies on one data set and stand in the protocols.
        found = [
            {name: value for name, value in getattr(one.result, kind).items() if name != "stores"}
            for one in contents.evaluated
        ]
        distinct = {json.dumps(v, sort_keys=True): v for v in found if v}
        if distinct:
            yield _json(title, list(distinct.values()))
    if costs := _costs(contents):
        columns = ("Program", "Model / data", "Seconds", "Peak memory (GiB)")
        yield page.details("Time and memory", page.plain_table(columns, costs))
    if phases := _phases(contents):
        columns = ("Run", "Phase", "Seconds", "Share")
        title = "Where the time of training went"
        yield page.details(title, page.plain_table(columns, phases))
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    content = "\n".join(lines)
    title = "Software of the machine that wrote this report"
    yield page.details(title, f"<pre>{page.text(content)}</pre>")


def _costs(contents: Contents) -> list[tuple[str, str, str, str]]:
    of = [("Training", run.name, run.train) for run in contents.runs]
    of += [(naming.title(e.result.study), e.label, e.result.cost) for e in contents.evaluated]
    rows = []
    for title, whose, cost in of:
        seconds, peak = number(cost.get("seconds")), number(cost.get("peak_rss_gib"))
        if seconds is not None or peak is not None:
            words = "" if seconds is None else f"{seconds:,.1f}"
            rows.append((title, whose, words, "" if peak is None else f"{peak:.2f}"))
    return rows


def _phases(contents: Contents) -> list[tuple[str, str, str, str]]:
    rows = []
    for run in contents.runs:
        found = run.train.get("goodput", {}).get("seconds", {})
        spent = {phase: s for phase, value in found.items() if (s := number(value))}
        for phase, seconds in sorted(spent.items(), key=lambda pair: -pair[1]):
            share = f"{100 * seconds / sum(spent.values()):.1f} %"
            rows.append((run.name, _PHASES.get(phase, phase), f"{seconds:,.1f}", share))
    return rows


def _basis(one: Evaluated) -> tuple[str, ...]:
    images, patients = counts(one)
    unit = judged_unit(one.result)
    words = f"n = {counted(images, unit)}" if images is not None else f"{unit} not counted"
    if patients is None:
        words += ", patients not recorded"
    else:
        words += f" of {counted(patients, 'patients')}"
    absent, classes = absent_classes(one)
    if absent:
        names = ", ".join(map(naming.display, absent))
        words += f" in {classes - len(absent)} of {classes} classes (none of {names})"
    place = where(one)
    if lists := _lists(one):
        place += f", the test images of {lists}, fitted on the other listed images"
    elif fit := splits(one, learned=True) if _fits(one) else ():
        place += f", fitted on split {' and '.join(map(repr, fit))}"
    protocol = f"protocol {one.result.protocol.get('name', 'not recorded')}"
    if views := views_in_words(one.result):
        protocol += f", {views}"
    return words, place, protocol, interval(one)


def _lists(one: Evaluated) -> str:
    """ "the lists in hc18_splits": which images a study took from a whole data set; "" for none."""
    path = str(one.result.protocol.get("splits") or "")
    return f"the lists in {path.rstrip('/').rpartition('/')[2]}" if path else ""


def _fits(one: Evaluated) -> bool:
    """Whether something was learned for the study: what else it reads gives baselines alone."""
    return "fit" in one.result.data.get("stores", {})


# How results are told apart: by one of these, else by two, else by all.
_NAMES: tuple[Callable[[Evaluated], str], ...] = (
    lambda one: one.data_name,
    lambda one: naming.title(one.result.study),
    lambda one: one.model_name,
)
_PAIRS: tuple[Callable[[Evaluated], str], ...] = (
    lambda one: f"{naming.title(one.result.study)} on {one.data_name}",
    lambda one: one.label,
)


def _in_full(one: Evaluated) -> str:
    return f"{naming.title(one.result.study)} of {one.label}"


def store(name: str, about: Mapping[str, Any], unit: str = "images") -> str:
    """ "fit: 1,500 images of 250 patients in split 'pool', 5 augmented copies of each"."""
    images, patients = (
        f"unknown {what}" if (n := number(about.get(key))) is None else counted(int(n), what)
        for key, what in (("images", unit), ("patients", "patients"))
    )
    words = f"{name}: {images} of {patients} in split {about.get('split')!r}"
    if about.get("copies"):
        words += f", {about['copies']} augmented copies of each"
    if about.get("transform", _TRANSFORM) != _TRANSFORM:
        words += f", shrunk as {about['transform']} does"
    return words


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _json(title: str, content: Any) -> str:
    words = json.dumps(content, indent=2, default=str)
    return page.details(title, f"<pre>{page.text(words)}</pre>")
