"""The WHO fetal growth chart of head circumference (Kiserud et al., PLoS Med 2017).

HC(t) = exp(b0 + b1 t + b2 t^2 + b3 t^3) in mm with t in weeks, one cubic per percentile.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Real

_COEFFICIENTS = {
    2.5: (1.59317517131532, 2.9459800552433e-1, -7.3860372566707e-3, 6.56951770216148e-5),
    50.0: (2.09924879247164, 2.53373656106037e-1, -6.05647816678282e-3, 5.14256072059917e-5),
    97.5: (2.50074069629423, 2.20067854715719e-1, -4.93623111462443e-3, 3.89066000946519e-5),
}
# The chart covers 14 to 40 weeks; the median is still monotone a little outside of it.
_FIRST_DAY, _LAST_DAY = 8 * 7, 42 * 7


def hc_mm(
    ga_weeks: Real[np.ndarray, "..."] | float | int, percentile: float = 50.0
) -> Float[np.ndarray, "..."] | np.floating:
    """Head circumference in mm at `ga_weeks` on the 2.5th, 50th or 97.5th percentile.

    Raises:
      ValueError: for any other percentile.
    """
    if percentile not in _COEFFICIENTS:
        raise ValueError(f"percentile {percentile} is not one of {sorted(_COEFFICIENTS)}")
    b0, b1, b2, b3 = _COEFFICIENTS[percentile]
    t = np.asarray(ga_weeks, np.float64)
    return np.exp(b0 + b1 * t + b2 * t**2 + b3 * t**3)


def ga_days_from_hc(
    hc: Real[np.ndarray, "..."] | float | int,
) -> Int[np.ndarray, "..."] | np.integer:
    """Whole days at which the median head circumference is nearest to `hc` mm (8 to 42 weeks)."""
    days = np.arange(_FIRST_DAY, _LAST_DAY + 1)
    median = hc_mm(days / 7.0)
    return days[np.abs(np.asarray(hc, np.float64)[..., None] - median).argmin(-1)]


def is_valid(
    ga_days: Real[np.ndarray, "n"] | int | np.integer, hc: Real[np.ndarray, "n"]
) -> Bool[np.ndarray, "n"]:
    """Whether `hc` mm lies within the 2.5th to 97.5th percentile at `ga_days`, or one for all."""
    weeks = np.asarray(ga_days, np.float64) / 7.0
    hc = np.asarray(hc, np.float64)
    return (hc_mm(weeks, 2.5) <= hc) & (hc <= hc_mm(weeks, 97.5))
