"""Subgroups of a saved result: every metric in each of them, and the largest gap between two.

The gap of two subgroups that were picked for being far apart must not be judged as if they had been
named beforehand: its interval has the level at which the intervals of all k (k - 1) / 2 pairs hold
together (Bonferroni). It is made of the subgroups' own intervals (Newcombe 1998, Zou and Donner
2008), so that it stays within what a difference can be and is not of no width between two perfect
scores. Patients with images in both subgroups are drawn together.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.groups import MOST_GROUPS
from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.evaluation.statistics import bootstrap, intervals
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measured

UNKNOWN = "unknown"
DATA_SET = "data set"


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
class Gap:
    """How far two subgroups are apart, as one of all pairs.

    Attributes:
      better, worse: their names.
      value: by how much, never negative.
      low, high: the interval of the difference, which holds for all pairs together.
      pairs: among which it was picked.
      shared_patients: with images in both.
      classes: over which means over classes were taken, where subgroups lack some; else empty.
    """

    better: str
    worse: str
    value: float
    low: float
    high: float
    pairs: int
    shared_patients: int
    classes: tuple[str, ...]

    @property
    def beyond_chance(self) -> bool:
        """Whether no gap is outside of what chance explains."""
        return self.low > 0


@dataclasses.dataclass(frozen=True)
class Subgroups:
    """A result by the values of one column, or several results by their data sets.

    Attributes:
      study, model, data: of the result; of several, their data sets.
      column: by which it was split.
      groups: in the order of their names, the unknown one last.
      largest: by metric, the largest gap; a metric without two subgroups to compare has none.
      established: by metric, the largest of the gaps that chance does not explain.
      notes: sentences on what the figures do not say.
    """

    study: str
    model: str
    data: str
    column: str
    groups: tuple[Subgroup, ...]
    largest: Mapping[str, Gap]
    established: Mapping[str, Gap]
    notes: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The study's first metric."""
        return next(iter(self.groups[0].metrics))

    def to_json(self) -> dict[str, Any]:
        """All of it, as mappings and lists."""
        return dataclasses.asdict(self)


def columns(result: Result) -> list[str]:
    """Columns by which a result has two subgroups or more."""
    if result.predictions is None:
        return []
    return [
        name
        for name, values in result.predictions.groups.items()
        if 2 <= len(set(values.tolist()) - {""}) <= MOST_GROUPS
    ]


def split(result: Result, column: str) -> Subgroups:
    """A result by the values of a column, such as "machine"; "" counts apart, as unknown.

    Raises:
      ValueError: a result without predictions or group columns, or a column that is missing, has
        one value only or too many; the message says what there is.
    """
    name = _name(result)
    measured = studies.measures(result)
    values = _values(result, column, name)
    known = sorted(set(values.tolist()) - {""})
    parts = [_Part.of(result, group, measured, values == group) for group in known]
    unknown = values == ""
    if unknown.any():
        parts.append(_Part.of(result, UNKNOWN, measured, unknown))
    notes = []
    if result.details.get("redraws") or result.curve:
        notes.append(
            "intervals hold the chance of the test patients alone: the probes are taken as trained"
        )
    if column == "trimester" and (origin := str(result.data.get("ages_from") or "")):
        notes.append(f"ages: {origin}")
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
        _Part.of(
            result,
            name,
            studies.measures(result),
            np.ones(len(result.predictions.example_id), bool),
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


@dataclasses.dataclass(frozen=True)
class _Part:
    """The images of one subgroup.

    Attributes:
      measured: every measure and its rows among all images of the result.
      groups: [n] of all images, what a bootstrap draws; `owners` the patients.
      labels: columns of true classes of all images, empty for studies without.
      rows: mask of this subgroup.
    """

    name: str
    measured: Mapping[str, Measured]
    bootstrap: Bootstrap
    owners: np.ndarray
    labels: tuple[np.ndarray, ...]
    rows: Bool[np.ndarray, "n"]
    simulated: bool

    @classmethod
    def of(cls, result, name, measured, rows) -> "_Part":
        predictions, protocol = result.predictions, result.protocol
        owners = predictions.patients()
        by_image = protocol.get("resample_by") == "image"
        groups = predictions.example_id if by_image else owners
        resamples, seed = int(protocol.get("resamples", 1000)), int(protocol.get("seed", 0))
        labels = ()
        if {"classes", "per_class_f1"} & result.details.keys():
            labels = (predictions.label, *_further_labels(predictions))
        return cls(
            name,
            {key: one.among(rows) for key, one in measured.items()},
            Bootstrap(np.asarray(groups), max(resamples, 2), seed),
            owners,
            labels,
            rows,
            bool(result.data.get("simulated")),
        )

    @property
    def classes(self) -> set[str]:
        found = [column[self.rows] for column in self.labels]
        return set(np.concatenate(found).tolist()) - {""} if found else set()

    @property
    def patients(self) -> int:
        return len(np.unique(self.owners[self.rows]))

    def only(self, classes: set[str]) -> "_Part":
        """The images of some classes."""
        inside = np.logical_and.reduce(
            [np.isin(column, [*classes, ""]) for column in self.labels] + [self.rows]
        )
        kept = {name: one.among(inside) for name, one in self.measured.items()}
        return dataclasses.replace(self, measured=kept, rows=inside)

    def groups_of(self, metric: str) -> np.ndarray:
        """What a bootstrap of the metric's images draws."""
        return self.bootstrap.groups[self.measured[metric].rows]

    def can_compare(self, metric: str) -> bool:
        """Whether the metric has an interval here: two patients, not of unknown group."""
        has = metric in self.measured and len(self.measured[metric].rows) > 0
        return has and self.name != UNKNOWN and len(np.unique(self.groups_of(metric))) > 1

    def estimate(self, metric: str, level: float = intervals.LEVEL) -> Estimate:
        one = self.measured[metric]
        found = self.bootstrap.select(one.rows)
        low, high = None, None
        if found.count > 1:
            low, high = intervals.interval(
                one.measure.value,
                [found.spread(one.measure)],
                scale=one.measure.scale,
                groups=found.count,
                level=level,
            )
        return Estimate(one.measure.value, low, high, len(one.rows), found.count)


def _compared(
    result: Result, data: str, column: str, parts: list[_Part], notes: list[str]
) -> Subgroups:
    everywhere = set.union(*(part.classes for part in parts))
    named = [part for part in parts if part.name != UNKNOWN]
    common = set.intersection(*(part.classes for part in named))
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
    lonely = [group.name for group in groups if group.patients == 1]
    if lonely:
        notes.append(
            f"a single patient in {', '.join(lonely)}: no interval, and no part in any gap"
        )
    differs = any(everywhere - part.classes for part in named)
    if differs:
        notes.append(
            "subgroups lack classes: their means over classes are not comparable, and such gaps "
            + (f"are over {', '.join(sorted(common))} alone" if common else "are not given")
        )
    largest, established = {}, {}
    # Of kinds that must not be mixed, the one with more subgroups is compared.
    kinds = [[part for part in parts if part.simulated == kind] for kind in (False, True)]
    for metric in result.metrics:
        compared, classes = max(kinds, key=len), ()
        if differs and _over_classes(metric):
            compared, classes = [part.only(common) for part in compared], tuple(sorted(common))
        gaps = _gaps(metric, [part for part in compared if part.can_compare(metric)], classes)
        if gaps:
            largest[metric] = max(gaps, key=lambda gap: gap.value)
        if beyond := [gap for gap in gaps if gap.beyond_chance]:
            established[metric] = max(beyond, key=lambda gap: gap.value)
    return Subgroups(
        study=result.study,
        model=str(result.model.get("name")),
        data=data,
        column=column,
        groups=tuple(groups),
        largest=largest,
        established=established,
        notes=tuple(notes),
    )


def _gaps(metric: str, parts: list[_Part], classes: tuple[str, ...]) -> list[Gap]:
    """Every pair, the better one first."""
    pairs = list(itertools.combinations(range(len(parts)), 2))
    if not pairs:
        return []
    # By image every image is drawn by itself; else patients may be in several subgroups.
    correlation = _correlation(metric, parts)
    estimates = [part.estimate(metric, 1 - (1 - intervals.LEVEL) / len(pairs)) for part in parts]
    lower_is_better = parts[0].measured[metric].measure.scale == "positive"
    found = []
    for pair in pairs:
        first, second = sorted(pair, key=lambda k: estimates[k].value)
        if lower_is_better:
            better, worse = first, second
        else:
            better, worse = second, first
        low, high = _difference(estimates[second], estimates[first], correlation[pair])
        if low is None:
            continue
        owners = [part.owners[part.measured[metric].rows] for part in (parts[k] for k in pair)]
        found.append(
            Gap(
                parts[better].name,
                parts[worse].name,
                estimates[second].value - estimates[first].value,
                low,
                high,
                len(pairs),
                len(np.intersect1d(*owners)),
                classes,
            )
        )
    return found


def _difference(
    larger: Estimate, smaller: Estimate, correlation: float
) -> tuple[float, float] | tuple[None, None]:
    """The interval of a difference from those of its parts (Zou and Donner 2008)."""
    if None in (larger.low, smaller.low):
        return None, None

    def reach(first: float, second: float) -> float:
        # Rounding must not leave the square below zero where both move as one.
        return math.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0))

    value = larger.value - smaller.value
    low = value - reach(larger.value - larger.low, smaller.high - smaller.value)
    high = value + reach(larger.high - larger.value, smaller.value - smaller.low)
    return low, high


def _correlation(metric: str, parts: list[_Part]) -> Float[np.ndarray, "k k"]:
    """How the metric in one subgroup goes with that in another when patients are drawn anew."""
    groups = [part.groups_of(metric) for part in parts]
    names, counts = np.unique(np.concatenate([np.unique(own) for own in groups]), return_counts=True)
    if counts.max() == 1:
        return np.eye(len(parts))
    drawn = np.concatenate(
        list(
            bootstrap.bootstrap_weights(
                names, resamples=parts[0].bootstrap.resamples, seed=parts[0].bootstrap.seed
            )
        )
    )
    owners = [np.searchsorted(names, own) for own in groups]
    # A resample without a single image of a subgroup says nothing of it.
    alive = np.logical_and.reduce([drawn[:, np.unique(own)].any(1) for own in owners])
    if alive.sum() < 2:
        return np.eye(len(parts))
    values = [
        part.measured[metric].measure.weighted(drawn[alive], own)
        for part, own in zip(parts, owners, strict=True)
    ]
    centred = np.stack([one - one.mean() for one in values])
    scale = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.clip((centred @ centred.T) / np.maximum(scale * scale.T, 1e-300), -1, 1)


def _values(result: Result, column: str, name: str) -> np.ndarray:
    groups = result.predictions.groups
    if not groups:
        raise ValueError(
            f"{name} keeps no group columns: the data set has none, or the result was written "
            "before they were kept; evaluate again"
        )
    if column not in groups:
        raise ValueError(
            f"{name} has no group column {column!r}; there are {', '.join(sorted(groups))} (a "
            f"column with more than {MOST_GROUPS} values is not kept)"
        )
    values = groups[column].astype(np.str_)
    known = sorted(set(values.tolist()) - {""})
    if len(known) > MOST_GROUPS:
        raise ValueError(
            f"{name}: group column {column!r} has {len(known)} values, such as {known[0]!r}; "
            f"subgroups need at most {MOST_GROUPS}: join them in the data set"
        )
    if len(known) < 2:
        found = f"is {known[0]!r}" if known else "is unknown"
        share = int((values != "").sum()) if known else len(values)
        raise ValueError(
            f"{name}: group column {column!r} {found} for all {share} images that have one: there "
            "are no subgroups to compare"
            if known
            else f"{name}: group column {column!r} is unknown for all {share} images: there are no "
            "subgroups to compare"
        )
    return values


def _further_labels(predictions) -> list[np.ndarray]:
    """True classes of a second task that was judged with the first."""
    return [values for name, values in predictions.extra.items() if name.endswith("_label")]


def _over_classes(metric: str) -> bool:
    return metric.endswith("macro_f1") or metric.startswith("balanced_")


def _name(result: Result) -> str:
    return f"{result.study} of {result.model.get('name')} on {result.data.get('name')}"
