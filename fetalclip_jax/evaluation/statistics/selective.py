"""Selective prediction: fewer answers, fewer errors. Risk is the share of errors among answers."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from fetalclip_jax.evaluation.statistics.measure import Measure


@dataclasses.dataclass(frozen=True)
class AreaUnderRisk(Measure):
    """The mean risk over all coverages (Geifman and El-Yaniv 2017); lower is better.

    Attributes:
      confidence: of each answer; images of the same confidence are answered together.
      errors: whether it is wrong.
    """

    confidence: Float[np.ndarray, "n"]
    errors: Bool[np.ndarray, "n"]
    scale: str = "unit"

    @property
    def value(self) -> float:
        return float(self.weighted(np.ones((1, len(self))), np.arange(len(self)))[0])

    def __len__(self) -> int:
        return len(self.errors)

    def select(self, rows: np.ndarray) -> "AreaUnderRisk":
        return dataclasses.replace(self, confidence=self.confidence[rows], errors=self.errors[rows])

    def weighted(self, weights, groups):
        order = np.argsort(-self.confidence, kind="stable")
        times = weights[:, groups[order]]
        answered = times.cumsum(1)
        wrong = (times * self.errors[order]).cumsum(1)
        last = _last_of_ties(self.confidence[order])
        risk = wrong[:, last] / np.maximum(answered[:, last], 1)  # none drawn: counts for nothing
        return (times * risk).sum(1) / answered[:, -1]


def risk_by_coverage(
    confidence: Float[np.ndarray, "n"], errors: Bool[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Coverages and the risks there, one point for each distinct confidence."""
    order = np.argsort(-confidence, kind="stable")
    ends = np.unique(_last_of_ties(confidence[order]))
    return (ends + 1) / len(errors), errors[order].cumsum()[ends] / (ends + 1.0)


def lowest_confidence(
    confidence: Float[np.ndarray, "n"], errors: Bool[np.ndarray, "n"], risk: float
) -> float:
    """The lowest confidence down to which the risk is no more than `risk`; inf if it never is."""
    coverages, risks = risk_by_coverage(confidence, errors)
    reached = np.flatnonzero(risks <= risk)
    if not len(reached):
        return float("inf")
    answers = round(coverages[reached[-1]] * len(errors))
    return float(np.sort(confidence)[::-1][answers - 1])


def _last_of_ties(ordered: np.ndarray) -> np.ndarray:
    """[n] index of the last entry that equals each one, of a descending list."""
    return np.searchsorted(-ordered, -ordered, side="right") - 1
