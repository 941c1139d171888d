"""Intervals and p-values from sources of chance that add up.

An interval is Student's t on a scale on which errors are symmetric: the logit of a rate, the
logarithm of an error, a difference as it is. Each source of chance (test patients, support sets,
draws of augmented copies) brings a variance and the degrees of freedom it was estimated with;
Satterthwaite's formula joins them. What this covers is measured by `benchmarks/coverage.py`.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

LEVEL = 0.95
# What a number can be: a rate or a score, an error, or a difference of two.
SCALES = ("unit", "positive", "real")
# Sums of the same numbers in another order differ by so much, relatively.
_ROUNDING = 1e-12
# Differences of rates live between -1 and 1.
DIFFERENCE = "difference"

Edges = tuple[float, float] | tuple[None, None]


@dataclasses.dataclass(frozen=True)
class Spread:
    """One source of chance in an estimate.

    Attributes:
      variance: of the estimate, by this source alone.
      freedom: degrees of freedom that the variance was estimated with; at least 1.
    """

    variance: float
    freedom: int | float

    @classmethod
    def of_redraws(cls, values: Sequence[float] | np.ndarray, copies: int) -> "Spread":
        """That of one draw of augmented copies, from trainings on copies drawn with replacement.

        Args:
          values: the score after each training.
          copies: of each image, from which they were drawn: 2 or more.
        """
        # As of any bootstrap of so few.
        return cls(variance(values) * copies / (copies - 1), len(values) - 1)


def variance(values: Sequence[float] | np.ndarray) -> float:
    """Sample variance; 0 where values differ by rounding alone.

    Raises:
      ValueError: fewer than two values, which show no spread.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        raise ValueError(f"a spread needs at least two values, found {len(values)}")
    if np.ptp(values) <= _ROUNDING * max(1.0, np.abs(values).max()):
        return 0.0
    return float(values.var(ddof=1))


def joint(spreads: Sequence[Spread]) -> Spread:
    """All sources together (Satterthwaite 1946).

    Raises:
      ValueError: no source.
    """
    if not spreads:
        raise ValueError("an interval needs at least one source of chance")
    variance = sum(one.variance for one in spreads)
    if variance == 0:
        return Spread(0.0, min(one.freedom for one in spreads))
    return Spread(variance, variance**2 / sum(s.variance**2 / s.freedom for s in spreads))


def interval(
    value: float,
    spreads: Sequence[Spread],
    *,
    scale: str,
    groups: int,
    level: float = LEVEL,
) -> Edges:
    """The interval of an estimate.

    Args:
      value: the estimate.
      spreads: its sources of chance.
      scale: one of `SCALES`, or `DIFFERENCE` for that of two rates.
      groups: patients (or images) that were judged: what bounds a rate of which they show no
        spread, such as a perfect score.
      level: coverage, in (0, 1).

    Returns:
      (low, high), never of no width; (None, None) where there is no spread and nothing bounds it.

    Raises:
      ValueError: an unknown scale, a level out of range, or a value that its scale cannot hold.
    """
    _check(value, scale, level)
    spread = joint(spreads)
    reach = float(special.stdtrit(spread.freedom, 0.5 + level / 2)) * math.sqrt(spread.variance)
    if scale == "unit" and (reach == 0 or not 0 < value < 1):
        return exact(value, groups, level)
    if scale == DIFFERENCE and reach == 0:
        # As of as many pairs that agree: the bound of a perfect score, to either side.
        bound = 1 - exact(1.0, groups, level)[0]
        return max(-1.0, value - bound), min(1.0, value + bound)
    if reach == 0 or (scale == "positive" and value == 0):
        return None, None
    if scale == "unit":
        centre, reach = special.logit(value), reach / (value * (1 - value))
        low, high = special.expit([centre - reach, centre + reach])
    elif scale == "positive":
        low, high = value * math.exp(-reach / value), value * math.exp(min(reach / value, 700.0))
    else:
        low, high = value - reach, value + reach
        if scale == DIFFERENCE:
            low, high = max(-1.0, low), min(1.0, high)
    return float(low), float(high)


def p_value(difference: float, spreads: Sequence[Spread]) -> float:
    """Two-sided p of a difference against none, by the t of its interval; 1 where nothing differs.

    Zero spread about a difference that is not zero is no evidence: (one patient, say): 1 too.
    """
    spread = joint(spreads)
    if spread.variance == 0:
        return 1.0
    t = -abs(difference) / math.sqrt(spread.variance)
    return float(min(1.0, 2 * special.stdtr(spread.freedom, t)))


def exact(value: float, groups: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval (1934) of a rate of `groups` patients, each right or wrong."""
    hits, tail = value * groups, (1 - level) / 2
    low = 0.0 if hits <= 0 else float(special.betaincinv(hits, groups - hits + 1, tail))
    high = 1.0 if hits >= groups else float(special.betaincinv(hits + 1, groups - hits, 1 - tail))
    return low, high


def _check(value: float, scale: str, level: float) -> None:
    if scale not in (*SCALES, DIFFERENCE):
        raise ValueError(
            f"scale must be one of {', '.join((*SCALES, DIFFERENCE))}, found {scale!r}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    inside = {"unit": 0 <= value <= 1, "positive": value >= 0, DIFFERENCE: -1 <= value <= 1}
    if not inside.get(scale, True):
        raise ValueError(f"{value} is no value of scale {scale!r}")
