"""Subgroups of a saved result: every metric in each of them, and the largest gap between two."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import gaps, merits, studies
from fetalclip_jax.evaluation.gaps import UNKNOWN, Gap, Part
from fetalclip_jax.evaluation.groups import MOST_GROUPS
from fetalclip_jax.evaluation.result import Estimate, Result

DATA_SET = "data set"
_RECORDED = "recorded"  # what a data set says of ages that were not worked out from a size


@dataclasses.dataclass(frozen=True)
class Subgroup:
    """What a study found in some of its images.

    Attributes:
      name: the value of the column, or `UNKNOWN`.
      images, patients: in it.
      metrics: by name, the headline first; one that none of its images has is not there. One
        patient gives no interval.
      lacking: classes that other subgroups have and this one has not: where there are any, means
        over classes are over others than elsewhere.
      simulated: whether its images were drawn by a program.
    """

    name: str
    images: int
    patients: int
    metrics: Mapping[str, Estimate]
    lacking: tuple[str, ...]
    simulated: bool


@dataclasses.dataclass(frozen=True)
class Subgroups:
    """A result by the values of one column, or several results by their data sets.

    Attributes:
      study, model, data: of the result; of several, their data sets.
      column: by which it was split.
      resample_by: what the intervals draw anew, "patient" or "image".
      groups: in the order of their names, the unknown one last.
      largest: by metric, the largest gap; a metric without two subgroups to compare, or of which
        no value is better (see `merits`), has none.
      established: by metric, the largest of the gaps that chance does not explain.
      notes: sentences on what the figures do not say.
    """

    study: str
    model: str
    data: str
    column: str
    resample_by: str
    groups: tuple[Subgroup, ...]
    largest: Mapping[str, Gap]
    established: Mapping[str, Gap]
    notes: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The study's first metric."""
        # A subgroup of one class, say, has none.
        return next(iter(max((one.metrics for one in self.groups), key=len)))

    def to_json(self) -> dict[str, Any]:
        """All of it, as mappings and lists."""
        return dataclasses.asdict(self)


def columns(result: Result) -> list[str]:
    """Columns by which a result has two subgroups or more; not the one that holds its labels."""
    predictions = result.predictions
    if predictions is None:
        return []
    return [
        name
        for name, values in predictions.groups.items()
        if 2 <= len(set(values.tolist()) - {""}) <= MOST_GROUPS
        and not np.array_equal(values, predictions.label)
    ]


def constant_columns(result: Result) -> list[tuple[str, str]]:
    """Columns that have one known value, and that value: nothing can be split by them."""
    if result.predictions is None:
        return []
    known = {
        name: set(values.tolist()) - {""} for name, values in result.predictions.groups.items()
    }
    return [(name, str(*values)) for name, values in known.items() if len(values) == 1]


def split(result: Result, column: str) -> Subgroups:
    """A result by the values of a column, such as "machine"; "" counts apart, as unknown.

    Raises:
      ValueError: a result without predictions or group columns, or a column that is missing, has
        one value only or too many; the message says what there is.
    """
    measured = studies.measures(result)
    values = _values(result, column)
    known = sorted(set(values.tolist()) - {""}, key=_natural)
    parts = [Part.of(result, group, measured, values == group) for group in known]
    unknown = values == ""
    if unknown.any():
        parts.append(Part.of(result, UNKNOWN, measured, unknown))
    notes = []
    if result.details.get("redraws") or result.curve:
        notes.append(
            "intervals hold the chance of the test patients alone: the probes are taken as trained"
        )
    ages_from = str(result.data.get("ages_from") or _RECORDED)
    if column == "trimester" and ages_from != _RECORDED:
        notes.append(f"no ages are recorded: they are those that the {ages_from} implies")
    return _compared(result, str(result.data.get("name")), column, parts, notes)


def across_data(results: Sequence[Result]) -> Subgroups:
    """One study of one model on several data sets: external ones beside the internal one.

    Patients of two data sets are others. Simulated images are shown and never compared with real
    ones.

    Raises:
      ValueError: fewer than two results, or of two studies, models or data sets of one name.
    """
    names = [str(result.data.get("name")) for result in results]
    of = {(r.study, str(r.model.get("name")), r.model.get("fingerprint")) for r in results}
    if len(results) < 2 or len(of) > 1 or len(set(names)) < len(names):
        raise ValueError(
            "data sets can be compared by one study of one model on two or more of them; found "
            + ", ".join(map(_name, results))
        )
    parts = [
        Part.of(
            result,
            name,
            studies.measures(result),
            np.ones(len(result.predictions.example_id), bool),
            f"{name}/",
        )
        for result, name in zip(results, names, strict=True)
    ]
    notes = []
    for key in ("name", "resample_by"):
        found = {name: str(r.protocol.get(key)) for name, r in zip(names, results, strict=True)}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{name} {value}" for name, value in found.items())
            notes.append(f"protocols differ in {key.replace('_', ' ')}: {said}")
    if len({r.predictions.candidates for r in results}) > 1 and results[0].study != "age":
        notes.append("the candidates are not the same on all data sets")
    if len({part.simulated for part in parts}) > 1:
        notes.append("simulated images are not compared with real ones")
    return _compared(results[0], ", ".join(names), DATA_SET, parts, notes)


def _compared(
    result: Result, data: str, column: str, parts: list[Part], notes: list[str]
) -> Subgroups:
    everywhere = set.union(*(part.classes for part in parts))
    groups = [
        Subgroup(
            part.name,
            int(part.rows.sum()),
            part.patients,
            {
                metric: part.estimate(metric)
                for metric in result.metrics
                if metric in part.measured and len(part.measured[metric].rows)
            },
            tuple(sorted(everywhere - part.classes)),
            part.simulated,
        )
        for part in parts
    ]
    if not any(group.metrics for group in groups):
        raise ValueError(
            f"{_name(result)}: no metric can be measured in any subgroup by {column!r}: each holds "
            "one class alone"
        )
    if lonely := [group.name for group in groups if group.patients == 1]:
        notes.append(
            f"a single patient in {', '.join(lonely)}: no interval, and no part in any gap"
        )
    if any(group.lacking for group in groups):
        notes.append(
            "subgroups lack classes: their means over classes are not comparable, and such a gap "
            "is over the classes that both have"
        )
    apart = [
        metric
        for metric in result.metrics
        if len({one.measured[metric].measure.over for one in parts if metric in one.measured}) > 1
    ]
    if apart:
        notes.append(
            f"subgroups lack structures: {', '.join(apart)} are means over those that each has, "
            "and subgroups with others have no gap"
        )
    largest, established = {}, {}
    # Of kinds that must not be mixed, the one with more subgroups is compared.
    kinds = [[part for part in parts if part.simulated == kind] for kind in (False, True)]
    for metric in filter(merits.has_better, result.metrics):
        found = gaps.gaps(
            metric, [part for part in max(kinds, key=len) if part.can_compare(metric)]
        )
        if found:
            largest[metric] = max(found, key=lambda gap: gap.value)
        if beyond := [gap for gap in found if gap.beyond_chance]:
            established[metric] = max(beyond, key=lambda gap: gap.value)
    return Subgroups(
        study=result.study,
        model=str(result.model.get("name")),
        data=data,
        column=column,
        resample_by=str(result.protocol.get("resample_by", "patient")),
        groups=tuple(groups),
        largest=largest,
        established=established,
        notes=tuple(notes),
    )


def _values(result: Result, column: str) -> np.ndarray:
    name, groups = _name(result), result.predictions.groups
    if not groups:
        raise ValueError(
            f"{name} keeps no group columns: the data set has none, or the result was written "
            "before they were kept; evaluate again"
        )
    if column not in groups:
        raise ValueError(
            f"{name} has no group column {column!r}; there are {', '.join(sorted(groups))} (one of "
            f"more than {MOST_GROUPS} values, or more than half as many as images, is not kept)"
        )
    values = groups[column].astype(np.str_)
    # What a data set calls unknown is as unknown as what it leaves empty.
    values = np.where(np.char.lower(values) == UNKNOWN, "", values)
    known = sorted(set(values.tolist()) - {""})
    if len(known) > MOST_GROUPS:
        raise ValueError(
            f"{name}: group column {column!r} has {len(known)} values, such as {known[0]!r}; "
            f"subgroups need at most {MOST_GROUPS}: join them in the data set"
        )
    if len(known) < 2:
        found = f"is {known[0]!r} wherever it is known" if known else "is nowhere known"
        raise ValueError(
            f"{name}: group column {column!r} {found} ({(values != '').sum()} of {len(values)} "
            "images): there are no subgroups to compare"
        )
    return values


def _natural(value: str) -> list:
    """A key by which "operator 2" comes before "operator 10"."""
    parts = re.split(r"(\d+(?:\.\d+)?)", value)
    return [float(part) if k % 2 else part for k, part in enumerate(parts)]


def _name(result: Result) -> str:
    return f"{result.study} of {result.model.get('name')} on {result.data.get('name')}"
