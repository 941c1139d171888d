"""The mathematics of zero-shot gestational age; `studies.age` runs it on images.

Each image is compared with prompts for each of 175 days. A predicted age is valid when the true
head circumference is normal for it (WHO).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite

# 14 weeks 0 days to 38 weeks 6 days.
DAYS = np.arange(14 * 7, 38 * 7 + 7)
# Images whose true head circumference lies outside are not judged.
HC_RANGE_MM = (100.0, 342.0)


class ValidPredictionRate(NamedTuple):
    """Share of predictions at whose age the true head circumference is normal.

    Attributes:
      rate: count / total.
      count: valid predictions.
      total: images whose head circumference is judged (100 to 342 mm).
      interval: bootstrap interval of the rate; (None, None) of a single patient.
    """

    rate: float
    count: int
    total: int
    interval: tuple[float | None, float | None]


def days_from_similarity(scores: np.ndarray, top_n: int = 15) -> Int[np.ndarray, "n"]:
    """Predicted age in days: the middle of the best days.

    The `top_n` days of the highest scores are taken (of equal scores, the earlier day), sorted by
    day, and element `top_n // 2` is the answer.

    Args:
      scores: [n, 175], similarity of each image with each day of `DAYS`.
      top_n: number of best days, 1 to 175.

    Raises:
      ValueError: if `scores` is not [n, 175], is not finite, or `top_n` is out of range.
    """
    # NumPy, so that ties are those of the scores as given and not of a cast to float32.
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] != len(DAYS):
        raise ValueError(f"scores must have shape [n, {len(DAYS)}], found {scores.shape}")
    if not 1 <= top_n <= len(DAYS):
        raise ValueError(f"top_n must lie between 1 and {len(DAYS)}, found {top_n}")
    require_finite("scores", scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_n]
    return DAYS[np.sort(best, axis=1)[:, top_n // 2]]


def valid_prediction_rate(
    days: np.ndarray,
    hc_mm: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> ValidPredictionRate:
    """Share of valid ages among the images with a head circumference of 100 to 342 mm.

    Args:
      days: [n], predicted ages.
      hc_mm: [n], true head circumferences; values out of range or nan are left out.
      groups: patient ids for the bootstrap; None resamples images.
      resamples: bootstrap samples.
      seed: of the bootstrap.

    Raises:
      ValueError: if the lengths differ, a day is not finite or no head circumference is in range.
    """
    days, hc_mm = np.asarray(days), np.asarray(hc_mm, np.float64)
    if days.shape != hc_mm.shape or days.ndim != 1:
        raise ValueError(f"one age per head circumference: found {days.shape} and {hc_mm.shape}")
    require_finite("days", days)
    kept = in_hc_range(hc_mm)
    if not kept.any():
        raise ValueError(f"no head circumference lies within {HC_RANGE_MM} mm")
    valid = who_chart.is_valid(days[kept], hc_mm[kept])
    groups = np.arange(len(valid)) if groups is None else np.asarray(groups)[kept]
    found = Bootstrap(groups, resamples, seed).estimate(measure.mean(valid))
    interval = found.low, found.high
    return ValidPredictionRate(float(valid.mean()), int(valid.sum()), len(valid), interval)


def best_constant_days(hc_mm: Float[np.ndarray, "n"]) -> int:
    """The one age that is valid for the most head circumferences (the earliest of equals)."""
    low, high = who_chart.hc_mm(DAYS / 7, 2.5), who_chart.hc_mm(DAYS / 7, 97.5)
    hc_mm = np.asarray(hc_mm, np.float64)[:, None]
    return int(DAYS[((low <= hc_mm) & (hc_mm <= high)).sum(0).argmax()])


def in_hc_range(hc_mm: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Whether a head circumference is judged; False for nan."""
    return (hc_mm >= HC_RANGE_MM[0]) & (hc_mm <= HC_RANGE_MM[1])
