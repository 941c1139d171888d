"""One metric of one model minus that of another, on the same images: interval, p and verdict."""

import dataclasses
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import merits
from fetalclip_jax.evaluation.chance import Chance
from fetalclip_jax.evaluation.statistics import intervals, measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measure

# Two rates closer than this are equivalent; of errors, a share of their mean.
MARGIN = 0.02
RELATIVE_MARGIN = 0.05
ALPHA = 0.05
VERDICTS = ("better", "worse", "equivalent", "undecided")
# Of a metric that may be too high as well as too low.
NO_VERDICT = "no verdict"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One metric of the first model minus that of the second, on the same images.

    Attributes:
      metric: its name.
      first, second: the two values.
      lower_is_better: the metric is an error.
      low, high: 95 % interval of the difference; None where there is none.
      p: two-sided, against no difference; None where there is no interval.
      inner: 90 % interval, that of two one-sided tests at 5 %; None likewise.
      margin: what still counts as equivalent, in the metric's unit.
      n: images.
      patients: patients of these images; an image without one is a patient of its own.
      learned_from: labelled patients that both learned from, a point of their curves; None where
        the study has no curve.
      bootstrap: of the images (what it draws, how often).
      measure: the difference as a function of the images.
      chance: what beside the judged patients it depends on.
    """

    metric: str
    first: float
    second: float
    lower_is_better: bool
    low: float | None
    high: float | None
    p: float | None
    inner: tuple[float, float] | None
    margin: float
    n: int
    patients: int
    bootstrap: Bootstrap = dataclasses.field(repr=False)
    measure: Measure = dataclasses.field(repr=False)
    chance: Chance
    learned_from: int | None = None

    @property
    def value(self) -> float:
        return self.first - self.second

    @property
    def equivalent(self) -> bool:
        """Whether two one-sided tests both exclude a difference as large as the margin."""
        return (
            self.inner is not None
            and merits.has_better(self.metric)
            and -self.margin < self.inner[0]
            and self.inner[1] < self.margin
        )

    def verdict(self, p: float | None = None) -> str:
        """One of `VERDICTS`, of the first model; `NO_VERDICT` where nothing is better.

        Args:
          p: adjusted for other tests; None takes the own.
        """
        if not merits.has_better(self.metric):
            return NO_VERDICT
        p = self.p if p is None else p
        if p is not None and p < ALPHA:
            return "better" if (self.value > 0) != self.lower_is_better else "worse"
        return "equivalent" if self.equivalent else "undecided"

    def to_json(self) -> dict[str, Any]:
        names = ("metric", "first", "second", "low", "high", "p", "margin", "n", "patients")
        return {name: getattr(self, name) for name in names} | {
            "patients_to_learn_from": self.learned_from,
            "difference": self.value,
            "inner_interval": list(self.inner) if self.inner else None,
            "groups": self.bootstrap.count,
            "lower_is_better": self.lower_is_better,
            "equivalent": self.equivalent,
            "verdict": self.verdict(),
            "other_sources_of_chance": self.chance.words,
            "without_interval_because": self.without_interval,
        }

    @property
    def without_interval(self) -> str:
        """Why there is no interval; "" where there is one."""
        if self.low is not None:
            return ""
        if self.bootstrap.count < 2:
            return "a single patient shows no spread"
        if self.bootstrap.resamples < 2:
            return "no resample was asked for"
        return self.chance.unknown or "the images show no spread"


def difference(
    metric: str,
    pair: tuple[Measure, Measure],
    bootstrap: Bootstrap,
    patients: np.ndarray,
    found: Chance,
    margin: float,
) -> Difference:
    """One metric of two models on the same images.

    Args:
      metric: its name.
      pair: the two models' measures, of the same images in the same order.
      bootstrap: of these images.
      patients: of each of them.
      found: chance beside that of the bootstrap.
      margin: of rates, see `comparison.compare`.
    """
    first, second = (one.value for one in pair)
    of_both = measure.difference(*pair)
    is_error = pair[0].scale == "positive"
    low = high = p = inner = None
    if bootstrap.count > 1 and bootstrap.resamples > 1 and not found.unknown:
        # Drawn in one order, so that the models the other way round get the mirrored interval.
        ordered = measure.difference(*sorted(pair, key=lambda one: one.value))
        spreads = [bootstrap.spread(ordered), *found.spreads]
        options = {"scale": of_both.scale, "groups": bootstrap.count}
        low, high = intervals.interval(first - second, spreads, **options)
        edges = intervals.interval(first - second, spreads, level=1 - 2 * ALPHA, **options)
        inner = None if edges[0] is None else edges
        p = intervals.p_value(first - second, spreads)
    return Difference(
        metric,
        first,
        second,
        is_error,
        low,
        high,
        p,
        inner,
        margin=RELATIVE_MARGIN * (first + second) / 2 if is_error else margin,
        n=len(patients),
        patients=len(np.unique(patients)),
        bootstrap=bootstrap,
        measure=of_both,
        chance=found,
    )


def check_margin(margin: float) -> None:
    """Raises ValueError for a margin that no difference of two rates could be held against."""
    if not 0 < margin < 1:
        raise ValueError(
            f"margin must lie between 0 and 1, the difference of two rates that still counts as "
            f"equivalent (such as {MARGIN}), found {margin}"
        )
