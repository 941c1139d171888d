"""How far numbers are from the truth: errors, bias, limits of agreement, explained variance."""

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measure, OfSums

# Bland and Altman (1986): 95 % of the differences of a normal distribution.
LIMITS = 1.96
# Metrics that a baseline is compared by.
ERRORS = ("mae", "percent_error", "r2")
WITHOUT_UNIT = ("percent_error", "r2")


def measures(true: Float[np.ndarray, "n"], found: Float[np.ndarray, "n"]) -> dict[str, Measure]:
    """By name, of values `found` where `true` is right; the error is found - true.

    "mae": mean absolute error. "bias": mean error. "lower_limit", "upper_limit": the limits of
    agreement, bias -+ 1.96 standard deviations of the error. "percent_error": mean absolute error
    in percent of the truth, where that is positive throughout. "r2": share of the variance of the
    truth that is explained, where it varies; 0 in a resample in which it does not.

    Raises:
      ValueError: a value that is not finite.
    """
    true, found = np.asarray(true, np.float64), np.asarray(found, np.float64)
    require_finite("the true values", true)
    require_finite("the predictions", found)
    error = found - true
    ones = np.ones_like(error)
    moments = np.stack([error, error**2, ones], 1)
    measured = {
        "mae": measure.mean(np.abs(error), "positive"),
        "bias": measure.mean(error, "real"),
        "lower_limit": OfSums(moments, lambda sums: _limit(sums, -LIMITS), "real"),
        "upper_limit": OfSums(moments, lambda sums: _limit(sums, LIMITS), "real"),
    }
    if (true > 0).all():
        measured["percent_error"] = measure.mean(100 * np.abs(error) / true, "positive")
    if np.ptp(true) > 0:
        # About the mean, so that squares of large numbers do not lose the digits.
        about = true - true.mean()
        parts = np.stack([error**2, about, about**2, ones], 1)
        measured["r2"] = OfSums(parts, _explained, "real")
    return measured


def _limit(sums, times):
    total, squares, count = np.moveaxis(sums, -1, 0)
    mean = total / count
    variance = np.maximum(squares - count * mean**2, 0) / np.maximum(count - 1, 1)
    return mean + times * np.sqrt(variance)


def _explained(sums):
    residual, total, squares, count = np.moveaxis(sums, -1, 0)
    variation = squares - total**2 / count
    varies = variation > 1e-9 * squares
    return np.where(varies, 1 - residual / np.where(varies, variation, 1), 0.0)
