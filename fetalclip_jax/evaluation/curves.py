"""A data-efficiency curve: the area below it, and how many patients a score needs.

The axis is the logarithm of the number of labelled patients (of images, where lists name these) to
base 2: every doubling counts alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation import chance, studies
from fetalclip_jax.evaluation.alignment import resampled
from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.support_sets import SupportSets, over_sizes
from fetalclip_jax.evaluation.statistics.weighted_sum import Term, weighted_sum
from fetalclip_jax.evaluation.units import counted

SCORES = (0.8, 0.9)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where a curve first reaches a score.

    Attributes:
      patients: of the axis, between two sizes; the first or last size where it lies beyond.
      beyond: "" within the sizes; "at most" where the first reaches it, "more than" where none.
    """

    patients: float
    beyond: str = ""

    def __str__(self) -> str:
        digits = 0 if self.beyond or self.patients >= 10 else 1
        return f"{self.beyond} {self.patients:.{digits}f}".strip()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Needed:
    """How many labelled patients a score needs.

    Attributes:
      score: of the metric of the curve.
      value: where the curve reaches it.
      low, high: where the upper and the lower edge of the 95 % band do; None without a band.
      falls_again: the curve goes below the score later on; the first crossing is told.
    """

    score: float
    value: Crossing
    low: Crossing | None = None
    high: Crossing | None = None
    falls_again: bool = False

    def __str__(self) -> str:
        if self.low is None or self.high is None or self.low == self.high:
            return str(self.value)
        return f"{self.value} ({self.low} to {self.high})"

    def to_json(self) -> dict[str, Any]:
        ends = {name: getattr(self, name) for name in ("value", "low", "high")}
        return {"score": self.score, "falls_again": self.falls_again} | {
            name: end.to_json() if end else None for name, end in ends.items()
        }


@dataclasses.dataclass(frozen=True)
class Curve:
    """One model's score at several numbers of labelled patients.

    Attributes:
      sizes: numbers of patients, ascending.
      values, lows, highs: the score and its 95 % band, nan where there is none.
      area: mean height of the curve over the logarithmic axis; None of a single size.
      notes: what is lacking, in sentences.
      metric: what the score is.
      unit: what the sizes count, "patients" or "images".
    """

    sizes: tuple[int, ...]
    values: Float[np.ndarray, "s"]
    lows: Float[np.ndarray, "s"]
    highs: Float[np.ndarray, "s"]
    area: Estimate | None
    notes: tuple[str, ...] = ()
    metric: str = "macro_f1"
    unit: str = "patients"

    def needed(self, score: float) -> Needed:
        """How many patients a score needs, interpolated between the sizes."""
        value = _crossing(self.sizes, self.values, score)
        reached = self.values >= score
        falls = bool(reached.any() and not reached[reached.argmax() :].all())
        if not np.isfinite(self.lows).all():
            return Needed(score, value, falls_again=falls)
        # The band's upper edge reaches the score first: that is the fewest patients.
        ends = (_crossing(self.sizes, edge, score) for edge in (self.highs, self.lows))
        return Needed(score, value, *ends, falls_again=falls)

    @property
    def rises(self) -> bool:
        """Whether it never falls from one size to the next."""
        return bool((np.diff(self.values) >= 0).all())


def curve(result: Result, *, resamples: int = 1000, seed: int = 0) -> Curve:
    """The curve of a result, with the interval of its area.

    The area is a weighted sum of the points (trapezoid), so that the support sets of each size add
    their variances, and patients of the test set, who are the same at all sizes, are drawn once.

    Raises:
      ValueError: a result without a curve.
    """
    points = _points(result)
    low, high = (
        np.array([point.get(key) for point in points], np.float64) for key in ("low", "high")
    )
    sizes = tuple(int(point["patients"]) for point in points)
    values = np.array([point["mean"] for point in points], np.float64)
    area, notes = None, []
    if len(sizes) > 1:
        value = float(weights(sizes) @ values)
        area = Estimate(value, n=_images(result))
        spreads, groups, lacking = _area_chance(result, sizes, resamples, seed)
        if lacking:
            notes.append(f"no interval of the area: {lacking}")
        else:
            edges = intervals.interval(value, spreads, scale="unit", groups=groups)
            area = Estimate(value, *edges, area.n, groups)
    else:
        notes.append("no area: there is one size alone")
    return Curve(
        *(sizes, values, low, high, area, tuple(notes)), metric_of(result), unit_of(result)
    )


def weights(sizes: Sequence[int]) -> Float[np.ndarray, "s"]:
    """Weights of points whose sum is the trapezoid's area over log2(size), divided by its width.

    Args:
      sizes: two or more, ascending.
    """
    steps = np.diff(np.log2(sizes))
    found = np.zeros(len(sizes))
    found[:-1] += steps / 2
    found[1:] += steps / 2
    return found / steps.sum()


def _area_chance(
    result: Result, sizes: Sequence[int], resamples: int, seed: int
) -> tuple[list[Spread], int, str]:
    """Sources of chance of an area, groups drawn, and what is lacking for an interval."""
    kept = result.predictions
    if kept is None or not all(str(size) in kept.runs for size in sizes):
        return [], 0, "the answers at every size are not kept; evaluate again"
    groups = resampled(kept, result.protocol)
    count = len(np.unique(groups))
    if count < 2 or resamples < 2:
        return [], count, "a single patient shows no spread" if count < 2 else "not asked for"
    terms, support = [], []
    for size, weight in zip(sizes, weights(sizes), strict=True):
        sets = chance.set_means(result, str(size))
        if len(sets) < 2:
            return [], count, f"a single support set of {size} patients shows no spread"
        share = chance.share_of_pool(chance.point_of(result, str(size)))
        support.append(SupportSets(sets, share))
        terms.append(Term(weight, studies.at_size(result, size).measure, groups))
    summed, names = weighted_sum(terms, "unit")
    patients = Bootstrap(names, resamples, seed).spread(summed)
    return [patients, *over_sizes(weights(sizes), support)], count, ""


def metric_of(result: Result) -> str:
    """What the points of a curve are values of: the first metric of its study."""
    return next(iter(result.metrics))


def unit_of(result: Result) -> str:
    """What the sizes of a curve count: "patients", or "images" of lists that name these."""
    return str(result.details.get("sizes_count") or "patients")


def of_size(result: Result, size: int) -> str:
    """A size of a curve in words: "1 image", "16 patients"."""
    return counted(size, unit_of(result))


def _images(result: Result) -> int | None:
    return None if result.predictions is None else len(result.predictions.example_id)


def _points(result: Result) -> list[dict[str, Any]]:
    if not result.curve:
        raise ValueError(f"{result.study} has no curve; a study of a label budget has one")
    return sorted(map(dict, result.curve), key=lambda point: int(point["patients"]))


def _crossing(sizes: Sequence[int], values: np.ndarray, score: float) -> Crossing:
    reached = np.flatnonzero(values >= score)
    if not len(reached):
        return Crossing(float(sizes[-1]), "more than")
    k = int(reached[0])
    if k == 0:
        return Crossing(float(sizes[0]), "at most")
    share = (score - values[k - 1]) / (values[k] - values[k - 1])
    low, high = np.log2(sizes[k - 1 : k + 1])
    return Crossing(float(2 ** (low + share * (high - low))))
