"""Bootstrap intervals that resample patients or images."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.statistics.finite import require_finite

Statistic = Callable[[Float[np.ndarray, "r n"]], Float[np.ndarray, "r"]]

# Weights of so many (resample, image) pairs are held at a time: 32 MiB of float64.
_WEIGHTS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How the estimates of one study get their intervals.

    Attributes:
      groups: [n] identifiers; images that share one are drawn together.
      resamples: number of bootstrap samples.
      seed: of the draws, the same for every estimate: their resamples are the same patients.
    """

    groups: np.ndarray
    resamples: int = 1000
    seed: int = 0

    def select(self, rows: np.ndarray) -> "Bootstrap":
        """The same for some of the images (indices or a mask)."""
        return dataclasses.replace(self, groups=self.groups[rows])

    def estimate(self, value: float, statistic: Statistic) -> Estimate:
        """`value` with the interval of the statistic that it is an instance of."""
        low, high = bootstrap_interval(
            statistic, self.groups, resamples=self.resamples, seed=self.seed
        )
        return Estimate(float(value), low, high, len(self.groups), len(np.unique(self.groups)))

    def constant(self, value: float) -> Estimate:
        """A value without an interval, such as that of a uniform guess."""
        return Estimate(float(value), n=len(self.groups), groups=len(np.unique(self.groups)))


def bootstrap_interval(
    statistic: Statistic,
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap interval of a statistic, resampling whole groups with replacement.

    Args:
      statistic: weights [r, n] -> value [r]; a weight is the number of times an image was drawn.
      groups: [n] identifiers. Images that share one are drawn together: patient ids resample
        patients, `np.arange(n)` resamples images.
      resamples: number of bootstrap samples.
      level: coverage, in (0, 1).
      seed: of the draws; the same seed gives the same interval on every machine.

    Returns:
      (low, high), or (None, None) where all images are of one group: it has no spread to show.

    Raises:
      ValueError: if there is no image, `level` or `resamples` is out of range, or the statistic is
        not finite in some resample.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    if len(groups) and len(np.unique(groups)) == 1:
        return None, None
    weights = bootstrap_weights(groups, resamples=resamples, seed=seed)
    values = np.concatenate([np.asarray(statistic(chunk)) for chunk in weights])
    require_finite("the statistic of a resample", values)
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_weights(
    groups: np.ndarray, *, resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "r n"]]:
    """Yield weights float64 [r, n] in chunks that add up to `resamples` rows."""
    groups = np.asarray(groups)
    if len(groups) == 0:
        raise ValueError("a bootstrap needs at least one image, found none")
    names, group_of_image = np.unique(groups, return_inverse=True)
    count = len(names)
    rng = np.random.default_rng(seed)
    chunk = max(1, _WEIGHTS_AT_ONCE // max(count, len(groups)))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count))
        flat = drawn + count * np.arange(rows)[:, None]
        times = np.bincount(flat.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(np.float64)[:, group_of_image]
