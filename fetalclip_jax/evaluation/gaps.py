"""How far two subgroups are apart, one pair among many.

The gap of two subgroups that were picked for being far apart must not be judged as if they had been
named beforehand: its interval has the level at which the intervals of all k (k - 1) / 2 pairs hold
together (Bonferroni). It is made of the subgroups' own intervals (Newcombe 1998, Zou and Donner
2008), so that it stays within what a difference can be and is not of no width between two perfect
scores. Patients with images in both subgroups are drawn together.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from fetalclip_jax.evaluation.statistics import bootstrap, intervals
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.measure import Measured

UNKNOWN = "unknown"


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


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The images of one subgroup.

    Attributes:
      measured: every measure that these images have, and its rows among all images of the result.
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
    def of(
        cls,
        result: Result,
        name: str,
        measured: Mapping[str, Measured],
        rows: Bool[np.ndarray, "n"],
        prefix: str = "",
    ) -> "Part":
        """Some images of a result.

        Args:
          measured: the measures of all its images.
          rows: which ones.
          prefix: of the ids of its patients, where those of other results stand beside them.
        """
        predictions, protocol = result.predictions, result.protocol
        owners = np.char.add(prefix, predictions.patients())
        by_image = protocol.get("resample_by") == "image"
        groups = np.char.add(prefix, predictions.example_id) if by_image else owners
        resamples, seed = int(protocol.get("resamples", 1000)), int(protocol.get("seed", 0))
        labels = ()
        if {"classes", "per_class_f1"} & result.details.keys():
            labels = (predictions.label, *_further_labels(predictions))
        return cls(
            name,
            _among(measured, rows),
            Bootstrap(np.asarray(groups), max(resamples, 2), seed),
            owners,
            labels,
            rows,
            bool(result.data.get("simulated")),
        )

    @functools.cached_property
    def classes(self) -> set[str]:
        found = [column[self.rows] for column in self.labels]
        return set(np.concatenate(found).tolist()) - {""} if found else set()

    @property
    def patients(self) -> int:
        return len(np.unique(self.owners[self.rows]))

    def only(self, classes: frozenset[str]) -> "Part":
        """The images of some classes."""
        inside = np.logical_and.reduce(
            [np.isin(column, [*classes, ""]) for column in self.labels] + [self.rows]
        )
        return dataclasses.replace(self, measured=_among(self.measured, inside), rows=inside)

    def groups_of(self, metric: str) -> np.ndarray:
        """What a bootstrap of the metric's images draws."""
        return self.bootstrap.groups[self.measured[metric].rows]

    def can_compare(self, metric: str) -> bool:
        """Whether the metric has an interval here: two patients, not of unknown group."""
        has = metric in self.measured and len(self.measured[metric].rows) > 0
        return has and self.name != UNKNOWN and len(np.unique(self.groups_of(metric))) > 1

    @functools.cached_property
    def _spreads(self) -> dict[str, Spread]:
        return {}  # by metric: intervals of several levels are made of one bootstrap

    def estimate(self, metric: str, level: float = intervals.LEVEL) -> Estimate:
        """The metric here; of one patient it has no interval."""
        one = self.measured[metric]
        found = self.bootstrap.select(one.rows)
        low, high = None, None
        if found.count > 1:
            if metric not in self._spreads:
                self._spreads[metric] = found.spread(one.measure)
            low, high = intervals.interval(
                one.measure.value,
                [self._spreads[metric]],
                scale=one.measure.scale,
                groups=found.count,
                level=level,
            )
        return Estimate(one.measure.value, low, high, len(one.rows), found.count)


def _among(measured: Mapping[str, Measured], rows: np.ndarray) -> dict[str, Measured]:
    """The measures of some images, without those that they have not."""
    kept = {name: one.among(rows) for name, one in measured.items()}
    return {name: one for name, one in kept.items() if one.measure.defined}


def gaps(metric: str, parts: Sequence[Part]) -> list[Gap]:
    """Every pair that has an interval, and means over the same things."""
    pairs = list(itertools.combinations(parts, 2))
    level = 1 - (1 - intervals.LEVEL) / max(len(pairs), 1)
    estimate = functools.cache(lambda part: part.estimate(metric, level))
    # Many subgroups lack the same classes: each part over each set of classes is measured once.
    only = functools.cache(lambda part, classes: part.only(classes))
    together = _Together(metric, parts)
    found = []
    for pair in pairs:
        shared = frozenset(set.intersection(*(part.classes for part in pair)))
        over = ()
        if _over_classes(metric) and any(part.classes - shared for part in pair):
            pair, over = [only(part, shared) for part in pair], tuple(sorted(shared))
            if not all(part.can_compare(metric) for part in pair):
                continue
        if len({part.measured[metric].measure.over for part in pair}) > 1:
            continue
        smaller, larger = sorted(pair, key=lambda part: estimate(part).value)
        correlation = together.correlation(smaller, larger)
        edges = _difference(estimate(larger), estimate(smaller), correlation)
        if edges is None:
            continue
        value = estimate(larger).value - estimate(smaller).value
        lower_is_better = larger.measured[metric].measure.scale == "positive"
        names = (smaller.name, larger.name) if lower_is_better else (larger.name, smaller.name)
        owners = [part.owners[part.measured[metric].rows] for part in pair]
        patients = len(np.intersect1d(*owners))
        found.append(Gap(*names, value, *edges, len(pairs), patients, over))
    return found


def _difference(
    larger: Estimate, smaller: Estimate, correlation: float
) -> tuple[float, float] | None:
    """The interval of a difference from those of its parts (Zou and Donner 2008)."""
    if larger.low is None or smaller.low is None:
        return None

    def reach(first: float, second: float) -> float:
        # Rounding must not leave the square below zero where both move as one.
        return math.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0))

    value = larger.value - smaller.value
    low = value - reach(larger.value - larger.low, smaller.high - smaller.value)
    high = value + reach(larger.high - larger.value, smaller.value - smaller.low)
    return low, high


class _Together:
    """A metric in several subgroups when the patients of all are drawn anew at once."""

    def __init__(self, metric: str, parts: Sequence[Part]):
        self._metric, self._parts = metric, parts
        self._of_part: dict[Part, np.ndarray] = {}

    def correlation(self, first: Part, second: Part) -> float:
        """How the metric in two subgroups moves together; 0 where they share no patient."""
        groups = [part.groups_of(self._metric) for part in (first, second)]
        if not len(np.intersect1d(*groups)):
            return 0.0
        values = np.stack([self._values(first), self._values(second)])
        values = values[:, np.isfinite(values).all(0)]
        if values.shape[1] < 2 or any(intervals.variance(one) == 0 for one in values):
            return 0.0
        return float(np.corrcoef(values)[0, 1])

    @functools.cached_property
    def _names(self) -> np.ndarray:
        return np.unique(np.concatenate([part.groups_of(self._metric) for part in self._parts]))

    @functools.cached_property
    def _drawn(self) -> Float[np.ndarray, "r g"]:
        settings = self._parts[0].bootstrap
        weights = bootstrap.bootstrap_weights(
            self._names, resamples=settings.resamples, seed=settings.seed
        )
        return np.concatenate(list(weights))

    def _values(self, part: Part) -> Float[np.ndarray, "r"]:
        """The metric in every resample; nan in one without an image of the subgroup."""
        if part not in self._of_part:
            own, of_image = np.unique(part.groups_of(self._metric), return_inverse=True)
            drawn = self._drawn[:, np.searchsorted(self._names, own)]
            alive = drawn.any(1)
            values = np.full(len(drawn), np.nan)
            values[alive] = part.measured[self._metric].measure.weighted(drawn[alive], of_image)
            self._of_part[part] = values
        return self._of_part[part]


def _further_labels(predictions: Predictions) -> list[np.ndarray]:
    """True classes of a second task that was judged with the first."""
    return [values for name, values in predictions.extra.items() if name.endswith("_label")]


def _over_classes(metric: str) -> bool:
    return metric.endswith("macro_f1") or metric.startswith("balanced_")
