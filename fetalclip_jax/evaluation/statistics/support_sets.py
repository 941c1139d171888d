"""The chance of support sets that are drawn from one pool of patients."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation.statistics.intervals import Spread, variance


@dataclasses.dataclass(frozen=True)
class SupportSets:
    """Scores of the support sets of one size.

    Sets of one pool have patients in common, so that their own spread hides what another pool would
    change: the inverse of the correction for a finite population.

    Attributes:
      means: of each set, over its runs; or the difference of two models.
      share: of the pool's patients that one set holds, in [0, 1); None where it is not known.
    """

    means: Float[np.ndarray, "sets"]
    share: float | None = None

    def __post_init__(self):
        if self.share is not None and not 0 <= self.share < 1:
            raise ValueError(f"a set's share of the pool must lie in [0, 1), found {self.share}")

    @property
    def of_sets(self) -> float:
        """Variance of the mean over sets of this pool."""
        return variance(self.means) / len(self.means)

    @property
    def of_pool(self) -> float:
        """Variance of that mean when another pool is drawn."""
        share = self.share or 0.0
        return variance(self.means) * share / (1 - share)

    @property
    def spread(self) -> Spread:
        """Both.

        Raises:
          ValueError: a single set, which shows no spread.
        """
        return Spread(self.of_sets + self.of_pool, len(self.means) - 1)


def over_sizes(weights: Sequence[float] | np.ndarray, sizes: Sequence[SupportSets]) -> list[Spread]:
    """Sources of chance of a weighted sum over sizes, whose sets are of one pool.

    Sets are drawn anew for every size; what another pool would change, it changes for all.

    Args:
      weights: of each size.
      sizes: the sets of each.
    """
    freedom = min(len(one.means) for one in sizes) - 1
    pairs = list(zip(weights, sizes, strict=True))
    found = [Spread(float(w) ** 2 * one.of_sets, len(one.means) - 1) for w, one in pairs]
    pool = sum(float(w) * np.sqrt(one.of_pool) for w, one in pairs)
    return [*found, Spread(float(pool) ** 2, freedom)]
