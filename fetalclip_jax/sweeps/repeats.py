"""Points that differ in the seed alone, as one setting with an interval; and which setting is best.

Interval of a setting: Student's t over its seeds. Two seeds leave one degree of freedom, with
which an interval is about nine standard deviations wide to either side, and three seeds two.

Which is best: the one with the best mean is held against every other. The difference of two
settings could have come out otherwise by their seeds and by the judged patients, who are the same
for both. The spread over seeds is taken to be alike in all settings and pooled, for of two or three
seeds alone nothing would ever be told apart. Holm's procedure adjusts the p-values of all these
tests; the best is named where each is below 5 %, for then it is better than all of them. Else those
are named that it was not told apart from. It was chosen as the extreme of many by the same numbers,
so a single one is told apart only where its p, adjusted for all pairs of settings, is below 5 %.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.alignment import resampled
from fetalclip_jax.evaluation.difference import ALPHA
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.measure import Measured, OfSums
from fetalclip_jax.evaluation.statistics.multiplicity import holm
from fetalclip_jax.evaluation.statistics.weighted_sum import Term, weighted_sum

_RESAMPLES = 1000
# A sentence of more settings is read by nobody; all are in the table.
_MOST_NAMES = 5


@dataclasses.dataclass(frozen=True)
class Setting:
    """The finished points of one setting.

    Attributes:
      name: what it sets.
      settings: the same as fields and values.
      seeds: of its points.
      values: their scores.
      mean, low, high: over the seeds; no interval of a single one.
      results: that the scores are of.
    """

    name: str
    settings: Mapping[str, Any]
    seeds: tuple[Any, ...]
    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    results: tuple[Result, ...] = dataclasses.field(default=(), repr=False)

    @property
    def half_width(self) -> float | None:
        return None if self.low is None else (self.high - self.low) / 2

    def to_json(self) -> dict[str, Any]:
        names = ("name", "settings", "seeds", "values", "mean", "low", "high")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Against:
    """The best setting minus another.

    Attributes:
      name: of the other.
      difference, low, high: of the means, and the 95 % interval.
      p: two-sided, adjusted for all others by Holm; None where there is no interval.
      decided: whether the best was told apart from it. Where not all p are below 5 % that takes
        more than its p: see the module.
    """

    name: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    decided: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Which setting is best, as far as that can be said.

    Attributes:
      best: the one with the best mean; None where nothing is done.
      against: every other.
      reason: why nothing is decided; "" where tests could be made.
      freedom: degrees of freedom of the pooled spread over seeds.
    """

    best: str | None = None
    against: tuple[Against, ...] = ()
    reason: str = ""
    freedom: int = 0

    @property
    def decided(self) -> bool:
        return bool(self.against) and all(one.decided for one in self.against)

    @property
    def open(self) -> list[str]:
        """Settings that the best one was not told apart from."""
        return [one.name for one in self.against if not one.decided]

    def to_json(self) -> dict[str, Any]:
        return {
            "highest_mean": self.best,
            "decided": self.decided,
            "not_told_apart": self.open,
            "reason": self.reason,
            "freedom_over_seeds": self.freedom,
            "against": [dataclasses.asdict(one) for one in self.against],
        }

    def in_words(self, shown: Callable[[str], str] = str) -> str:
        """The verdict as a sentence; `shown` writes the name of a setting."""
        if self.best is None:
            return "No point is finished: nothing can be compared."
        if not self.against:
            return f"There is one setting, {shown(self.best)}: nothing to choose from."
        if self.decided:
            return f"Best: {shown(self.best)}, better than each of the {len(self.against)} others."
        if self.reason:
            return f"Not decided: {self.reason}. The highest mean is that of {shown(self.best)}."
        told = len(self.against) - len(self.open)
        names = [shown(name) for name in (self.best, *self.open)]
        if len(names) > _MOST_NAMES:
            names = [*names[:_MOST_NAMES], f"{len(names) - _MOST_NAMES} more"]
        words = f"Not decided between {'; '.join(names)}."
        if told:
            words += f" {told} of {len(self.against)} others are worse than {shown(self.best)}."
        return words


def setting(
    name: str, settings: Mapping[str, Any], score: str, found: Mapping[Any, Result]
) -> Setting:
    """One setting.

    Args:
      name: what it sets.
      settings: the same as fields and values.
      score: "study/metric".
      found: seed -> result of the study; one or more.

    Raises:
      ValueError: a result without the score.
    """
    metric = score.partition("/")[2]
    for result in found.values():
        if metric not in result.metrics:
            raise ValueError(
                f"the score {score} was not measured of {name}; let sweep() compare by one of "
                f"{', '.join(f'{result.study}/{one}' for one in result.metrics)}"
            )
    values = tuple(result.metrics[metric].value for result in found.values())
    results, mean = tuple(found.values()), float(np.mean(values))
    low = high = None
    if len(values) > 1:
        spread = Spread(intervals.variance(values) / len(values), len(values) - 1)
        measured = _measured(results[0], metric)
        scale = measured.measure.scale if measured else "real"
        groups = results[0].metrics[metric].groups or 1
        low, high = intervals.interval(mean, [spread], scale=scale, groups=groups)
    return Setting(name, settings, tuple(found), values, mean, low, high, results)


def verdict(settings: Sequence[Setting], score: str, *, lower_is_better: bool) -> Verdict:
    """Which of some settings is best; see the module."""
    if not settings:
        return Verdict()
    order = sorted(settings, key=lambda one: one.mean, reverse=not lower_is_better)
    best, others = order[0], order[1:]
    freedom = sum(len(one.values) - 1 for one in settings)
    if not others or not freedom:
        reason = "one seed a setting shows nothing of the chance of training" if others else ""
        against = [Against(o.name, best.mean - o.mean, None, None, None) for o in others]
        return Verdict(best.name, tuple(against), reason, freedom)
    pooled = sum(
        intervals.variance(one.values) * (len(one.values) - 1)
        for one in settings
        if len(one.values) > 1
    )
    tests = [_test(best, other, score, pooled / freedom, freedom) for other in others]
    adjusted = holm([p for *_, p in tests])
    told = adjusted if max(adjusted) < ALPHA else _of_all_pairs([p for *_, p in tests])
    against = tuple(
        Against(other.name, best.mean - other.mean, low, high, p, one < ALPHA)
        for other, (low, high, _), p, one in zip(others, tests, adjusted, told, strict=True)
    )
    return Verdict(best.name, against, "", freedom)


def _of_all_pairs(p_values: list[float]) -> list[float]:
    """Adjusted for every pair of settings; the pairs without the best one count as no finding."""
    settings = len(p_values) + 1
    rest = settings * (settings - 1) // 2 - len(p_values)
    return holm([*p_values, *[1.0] * rest])[: len(p_values)]


def _test(
    best: Setting, other: Setting, score: str, variance: float, freedom: int
) -> tuple[float | None, float | None, float]:
    """95 % interval and p of the difference of two means."""
    counts = 1 / len(best.values) + 1 / len(other.values)
    spreads = [Spread(variance * counts, freedom)]
    patients, groups = _of_patients(best, other, score)
    if patients is not None:
        spreads.append(patients)
    difference = best.mean - other.mean
    is_rate = all(0 <= value <= 1 for value in (*best.values, *other.values))
    scale = intervals.DIFFERENCE if is_rate else "real"
    low, high = intervals.interval(difference, spreads, scale=scale, groups=groups)
    return low, high, intervals.p_value(difference, spreads)


def _of_patients(best: Setting, other: Setting, score: str) -> tuple[Spread | None, int]:
    """The chance of the judged patients in the difference, and how many there are."""
    metric, terms = score.partition("/")[2], []
    for one, sign in ((best, 1.0), (other, -1.0)):
        for result in one.results:
            measured = _measured(result, metric)
            if measured is None or not isinstance(measured.measure, OfSums):
                return None, 1
            groups = resampled(result.predictions, result.protocol)[measured.rows]
            terms.append(Term(sign / len(one.results), measured.measure, groups))
    summed, names = weighted_sum(terms, intervals.DIFFERENCE)
    if len(names) < 2:
        return None, len(names)
    return Bootstrap(names, _RESAMPLES).spread(summed), len(names)


def _measured(result: Result, metric: str) -> Measured | None:
    """The score as a function of images, where the predictions are kept."""
    return studies.measures(result).get(metric) if result.predictions is not None else None


def key(settings: Mapping[str, Any]) -> str:
    """The same for points that differ in the seed alone."""
    return json.dumps(settings, sort_keys=True, default=str)
