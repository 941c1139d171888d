"""How well scores tell two classes apart: areas under curves, and sensitivity at a specificity.

All are means over runs, each of which may have judged some of the images only (a fold). They are
functions of ranks, so that a resample of patients is a set of weights on a fixed order.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measure

# Weights of the negatives and of the positives at each distinct score, ascending -> a number.
Statistic = Callable[[Float[np.ndarray, "r s"], Float[np.ndarray, "r s"]], Float[np.ndarray, "r"]]
# Shares are sums of numbers in another order: a specificity of 0.9 may come out as 0.8999...
_ROUNDING = 1e-9


def auroc(negatives: Float[np.ndarray, "r s"], positives: Float[np.ndarray, "r s"]):
    """The chance that a positive scores higher than a negative; ties count half. [r]

    Args:
      negatives, positives: weight of each class at every distinct score, ascending.
    """
    below = negatives.cumsum(1) - negatives / 2
    return (positives * below).sum(1) / (negatives.sum(1) * positives.sum(1))


def average_precision(negatives: Float[np.ndarray, "r s"], positives: Float[np.ndarray, "r s"]):
    """The area under the steps of precision over recall, without interpolation. [r]"""
    hits = positives[:, ::-1].cumsum(1)
    called = hits + negatives[:, ::-1].cumsum(1)
    precision = hits / np.where(called > 0, called, 1)
    return (positives[:, ::-1] * precision).sum(1) / positives.sum(1)


def sensitivity_at(specificity: float) -> Statistic:
    """The highest sensitivity of a threshold with at least this specificity.

    Raises:
      ValueError: no share between 0 and 1.
    """
    if not 0 < specificity < 1:
        raise ValueError(f"specificity must lie between 0 and 1, found {specificity}")

    def statistic(negatives, positives):
        false_alarms, hits = roc(negatives, positives)
        allowed = false_alarms <= 1 - specificity + _ROUNDING
        return np.where(allowed, hits, 0).max(1)

    return statistic


def roc(
    negatives: Float[np.ndarray, "r s"], positives: Float[np.ndarray, "r s"]
) -> tuple[Float[np.ndarray, "r t"], Float[np.ndarray, "r t"]]:
    """(1 - specificity, sensitivity) of every threshold, from none called to all; t = s + 1."""
    shares = []
    for weights in (negatives, positives):
        called = np.concatenate([np.zeros((len(weights), 1)), weights[:, ::-1].cumsum(1)], 1)
        shares.append(called / called[:, -1:])
    return shares[0], shares[1]


@dataclasses.dataclass(frozen=True)
class Ranking(Measure):
    """The mean over runs of a statistic of their ranks.

    A run, or a resample of one, that lacks a class has no such number: runs without are passed
    over in the mean, and a resample without any run is drawn again (it counts as the next one that
    has both classes); `undefined` says how many that were.

    Attributes:
      scores: of every run; higher means more likely positive.
      labels: whether an image is positive.
      statistic: such as `auroc`.
      judged: the images that each run judged.
      scale: see `Measure`.
    """

    scores: Float[np.ndarray, "m n"]
    labels: Bool[np.ndarray, "n"]
    statistic: Statistic
    judged: Bool[np.ndarray, "m n"]
    scale: str = "unit"

    def __post_init__(self):
        require_finite("the scores", np.where(self.judged, self.scores, 0).T)

    @property
    def defined(self) -> bool:
        both = [len(set(self.labels[own].tolist())) == 2 for own in self.judged]
        return any(both)

    @property
    def value(self) -> float:
        if not self.defined:
            raise ValueError(
                f"ranks need both classes among the images of a run; of {len(self)} images "
                f"{int(self.labels.sum())} are positive"
            )
        weights = np.ones((1, len(self)))
        return float(self._in_resamples(weights, np.arange(len(self)))[0])

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> "Ranking":
        return dataclasses.replace(
            self,
            scores=self.scores[:, rows],
            labels=self.labels[rows],
            judged=self.judged[:, rows],
        )

    def of_runs(self) -> Float[np.ndarray, "m"]:
        """The statistic of each run; nan of one that lacks a class."""
        weights, everything = np.ones((1, len(self))), np.arange(len(self))
        return np.array([values[0] for values in self._by_run(weights, everything)])

    def undefined(
        self, weights: Float[np.ndarray, "r g"], groups: Int[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "r"]:
        """The resamples in which no run has both classes."""
        both = np.zeros(len(weights), bool)
        for judged in np.unique(self.judged, axis=0):
            drawn = weights[:, groups[judged]] > 0
            labels = self.labels[judged]
            both |= drawn[:, labels].any(1) & drawn[:, ~labels].any(1)
        return ~both

    def weighted(self, weights, groups):
        values = self._in_resamples(weights, groups)
        alive = np.flatnonzero(np.isfinite(values))
        if not len(alive):
            raise ValueError(
                f"none of {len(values)} resamples holds both classes of {len(self)} images: there "
                "are too few of one; judge more, or ask for more resamples"
            )
        following = np.searchsorted(alive, np.arange(len(values)))
        return values[alive[following % len(alive)]]

    def _in_resamples(self, weights, groups) -> Float[np.ndarray, "r"]:
        total, times = np.zeros(len(weights)), np.zeros(len(weights))
        for values in self._by_run(weights, groups):
            alive = np.isfinite(values)
            total[alive] += values[alive]
            times += alive
        return np.divide(total, times, out=np.full(len(weights), np.nan), where=times > 0)

    def _by_run(self, weights, groups) -> Iterator[Float[np.ndarray, "r"]]:
        for scores, judged in zip(self.scores, self.judged, strict=True):
            rows = np.flatnonzero(judged)
            negatives, positives = by_score(
                scores[rows], self.labels[rows], weights[:, groups[rows]]
            )
            both = (negatives.sum(1) > 0) & (positives.sum(1) > 0)
            values = np.full(len(weights), np.nan)
            if both.any():
                values[both] = self.statistic(negatives[both], positives[both])
            yield values


def by_score(
    scores: Float[np.ndarray, "n"], labels: Bool[np.ndarray, "n"], weights: Float[np.ndarray, "r n"]
) -> tuple[Float[np.ndarray, "r s"], Float[np.ndarray, "r s"]]:
    """Weight of the negatives and of the positives at every distinct score, ascending."""
    order = np.argsort(scores, kind="stable")
    if not len(order):
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    drawn = weights[:, order]
    positive = labels[order].astype(np.float64)
    return (
        np.add.reduceat(drawn * (1 - positive), starts, axis=1),
        np.add.reduceat(drawn * positive, starts, axis=1),
    )
