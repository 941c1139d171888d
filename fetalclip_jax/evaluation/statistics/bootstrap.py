"""Bootstrap: how far a measure varies when other patients, or images, had been judged."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.measure import Measure, Measured, OfSums

Statistic = Callable[[Float[np.ndarray, "r n"]], Float[np.ndarray, "r"]]

# Weights of so many (resample, image) pairs are held at a time: 32 MiB of float64.
_WEIGHTS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How the estimates of one study get their intervals.

    Attributes:
      groups: [n] identifiers; images that share one are drawn together.
      resamples: number of bootstrap samples; 1 for no interval.
      seed: of the draws.
    """

    groups: np.ndarray
    resamples: int = 1000
    seed: int = 0

    def select(self, rows: np.ndarray) -> "Bootstrap":
        """The same for some of the images (indices or a mask)."""
        return dataclasses.replace(self, groups=self.groups[rows])

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(np.unique(self.groups))

    def spread(self, measure: Measure) -> Spread:
        """The chance of the judged groups.

        Raises:
          ValueError: one group, or fewer than two resamples.
        """
        values = resample(measure, self.groups, resamples=self.resamples, seed=self.seed)
        return _spread(values, self.count)

    def estimate(self, measure: Measure, others: Sequence[Spread] = ()) -> Estimate:
        """A measure of these images with its interval; of a single group it has none.

        Args:
          others: further sources of chance, such as that of support sets.
        """
        low, high = None, None
        if self.count > 1 and self.resamples > 1:
            low, high = intervals.interval(
                measure.value,
                [self.spread(measure), *others],
                scale=measure.scale,
                groups=self.count,
            )
        return Estimate(measure.value, low, high, len(self.groups), self.count)

    def estimates(
        self,
        measured: Mapping[str, Measured],
        others: Mapping[str, Sequence[Spread]] | None = None,
    ) -> dict[str, Estimate]:
        """The estimates of a study's measures.

        Args:
          others: further sources of chance, by name.
        """
        others = others or {}
        return {
            name: self.select(one.rows).estimate(one.measure, others.get(name, ()))
            for name, one in measured.items()
        }

    def constant(self, value: float) -> Estimate:
        """A value without an interval, such as that of a uniform guess."""
        return Estimate(float(value), n=len(self.groups), groups=self.count)


def bootstrap_interval(
    statistic: Statistic,
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | tuple[None, None]:
    """The interval of any statistic, resampling whole groups with replacement.

    Its width is that of Student's t with the bootstrap's standard error, on the logit scale for a
    statistic that stays between 0 and 1: it reaches its level where there are few groups, or few
    errors, and a percentile interval does not (`benchmarks/coverage.py`).

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
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2 for an interval, found {resamples}")
    count = len(np.unique(groups))
    if count == 1:
        return None, None
    weights = bootstrap_weights(groups, resamples=resamples, seed=seed)
    values = np.concatenate([np.asarray(statistic(chunk), np.float64) for chunk in weights])
    require_finite("the statistic of a resample", values)
    value = float(np.asarray(statistic(np.ones((1, len(groups)))))[0])
    everything = np.append(values, value)
    is_rate = everything.min() >= 0 and everything.max() <= 1
    return intervals.interval(
        value,
        [_spread(values, count)],
        scale="unit" if is_rate else "real",
        groups=count,
        level=level,
    )


def resample(
    measure: Measure, groups: np.ndarray, *, resamples: int, seed: int
) -> Float[np.ndarray, "r *k"]:
    """A measure in each of many resamples of whole groups.

    Args:
      groups: [n] identifiers; see `bootstrap_interval`.

    Raises:
      ValueError: no image, or a measure that is not finite in some resample.
    """
    if isinstance(measure, OfSums):
        draws, sums = resampled_sums(measure, groups, resamples=resamples, seed=seed)
        values = [measure.of_sums(chunk @ sums) for chunk in draws]
    else:
        _, of_image = np.unique(groups, return_inverse=True)
        draws = _group_weights(groups, resamples=resamples, seed=seed)
        values = [measure.weighted(chunk, of_image) for chunk in draws]
    values = np.concatenate(values)
    require_finite("the statistic of a resample", values)
    return values


def resampled_sums(
    measure: OfSums, groups: np.ndarray, *, resamples: int, seed: int
) -> tuple[Iterator[Float[np.ndarray, "r u"]], Float[np.ndarray, "u k"]]:
    """How often each distinct group is drawn, in chunks, and what it adds to the sums.

    Groups that add the same are one row: of a few thousand images by themselves a few dozen rows
    are left, and their draws are multinomial.
    """
    names, of_image = np.unique(groups, return_inverse=True)
    sums = measure.by_group(of_image, len(names))
    distinct, times = np.unique(sums, axis=0, return_counts=True)
    if 2 * len(distinct) > len(names):
        return _group_weights(groups, resamples=resamples, seed=seed), sums
    rng = np.random.default_rng(seed)
    draws = (
        rng.multinomial(len(names), times / len(names), rows).astype(np.float64)
        for rows in _chunks(resamples, len(distinct))
    )
    return draws, distinct


def bootstrap_weights(
    groups: np.ndarray, *, resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "r n"]]:
    """Yield weights float64 [r, n] of images in chunks that add up to `resamples` rows."""
    groups = np.asarray(groups)
    _, of_image = np.unique(groups, return_inverse=True)
    for times in _group_weights(groups, resamples=resamples, seed=seed):
        yield times[:, of_image]


def _group_weights(groups, *, resamples, seed) -> Iterator[Float[np.ndarray, "r g"]]:
    if len(groups) == 0:
        raise ValueError("a bootstrap needs at least one image, found none")
    count = len(np.unique(groups))
    rng = np.random.default_rng(seed)
    for rows in _chunks(resamples, max(count, len(groups))):
        drawn = rng.integers(0, count, size=(rows, count))
        flat = drawn + count * np.arange(rows)[:, None]
        times = np.bincount(flat.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(np.float64)


def _chunks(resamples: int, width: int) -> Iterator[int]:
    chunk = max(1, _WEIGHTS_AT_ONCE // max(width, 1))
    for start in range(0, resamples, chunk):
        yield min(chunk, resamples - start)


def _spread(values: np.ndarray, count: int) -> Spread:
    if count < 2 or len(values) < 2:
        raise ValueError(f"{count} groups in {len(values)} resamples show no spread: give two")
    # A bootstrap of few groups varies too little: its variance lacks the factor n / (n - 1).
    return Spread(intervals.variance(values) * count / (count - 1), count - 1)
