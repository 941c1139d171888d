"""How often one model of a pair is better, and by how much on the average of its studies."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation.comparison import Comparison
from fetalclip_jax.evaluation.difference import VERDICTS, Difference
from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.measure import OfSums
from fetalclip_jax.evaluation.statistics.weighted_sum import Term, weighted_sum


@dataclasses.dataclass(frozen=True)
class Wins:
    """How often the first model of a pair was better, by tests whose p is adjusted.

    Equivalence is by two tests of its own, not adjusted.

    Attributes:
      names: of the pair.
      simulated: on images that a program drew; those are never counted with images of patients.
      counts: verdicts of the first model, by `difference.VERDICTS`.
      mean: difference of the headline metrics that are rates, averaged over studies and data sets;
        None where there is none.
      studies: how many the mean is over.
    """

    names: tuple[str, str]
    simulated: bool
    counts: Mapping[str, int]
    mean: Estimate | None
    studies: int

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.names[0],
            "second": self.names[1],
            "simulated": self.simulated,
            "counts": dict(self.counts),
            "mean_difference": dataclasses.asdict(self.mean) if self.mean else None,
            "studies_in_the_mean": self.studies,
        }


def count_wins(compared: Sequence[tuple[Comparison, str]], *, resamples: int, seed: int) -> Wins:
    """The wins of one pair on real, or on simulated, images.

    Args:
      compared: comparisons of the pair, each with the verdict of its headline; one or more.
      resamples, seed: of the bootstrap of the mean.
    """
    first, _ = compared[0]
    counts = Counter(verdict for _, verdict in compared)
    rates = [one for one, _ in compared if _is_rate(one.headline)]
    mean = _mean(rates, resamples, seed) if rates else None
    return Wins(first.names, first.simulated, {v: counts[v] for v in VERDICTS}, mean, len(rates))


def _mean(rates: Sequence[Comparison], resamples: int, seed: int) -> Estimate:
    """The mean difference of rates; patients are drawn once for all studies on a data set.

    Without an interval where one study of a data set draws patients and another images: they would
    be taken for others.
    """
    share = 1 / len(rates)
    spreads: list[Spread] = []
    drawn: dict[tuple[str, str], list[Difference]] = {}
    for one in rates:
        drawn.setdefault((one.data, one.resample_by), []).append(one.headline)
        spreads += [
            Spread(share**2 * other.variance, other.freedom)
            for other in one.headline.chance.spreads
        ]
    sums = [
        weighted_sum(
            [Term(share, d.measure, d.bootstrap.groups) for d in own], intervals.DIFFERENCE
        )
        for own in drawn.values()
    ]
    mean = Estimate(
        float(np.mean([one.headline.value for one in rates])),
        n=sum(one.headline.n for one in rates),
        groups=sum(len(names) for _, names in sums),
    )
    mixed = len(drawn) > len({data for data, _ in drawn})
    if mixed or any(one.headline.low is None for one in rates):
        return mean
    try:
        with np.errstate(invalid="ignore"):
            spreads += [Bootstrap(names, resamples, seed).spread(one) for one, names in sums]
    except ValueError:
        return mean  # some draw of patients has no image of a study that few of them have
    low, high = intervals.interval(
        mean.value, spreads, scale=intervals.DIFFERENCE, groups=mean.groups
    )
    return dataclasses.replace(mean, low=low, high=high)


def _is_rate(d: Difference) -> bool:
    return d.measure.scale == intervals.DIFFERENCE and isinstance(d.measure, OfSums)
