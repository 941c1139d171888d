"""How numbers are written, in captions and in prompts alike."""

import math
from numbers import Real

DAYS_PER_WEEK = 7


def age_long(days: Real) -> str:
    """143 -> "20 weeks and 3 days"."""
    weeks, rest = _weeks_and_days(days)
    return f"{_count(weeks, 'week')} and {_count(rest, 'day')}"


def age_comma(days: Real) -> str:
    """143 -> "20 weeks, 3 days"."""
    weeks, rest = _weeks_and_days(days)
    return f"{_count(weeks, 'week')}, {_count(rest, 'day')}"


def age_short(days: Real) -> str:
    """143 -> "20w3d"."""
    weeks, rest = _weeks_and_days(days)
    return f"{weeks}w{rest}d"


def pixel_spacing(spacing_mm: Real) -> str:
    """0.5333 -> "0.53 mm/pixel"; the spacing is that of the resized image."""
    if not (math.isfinite(spacing_mm) and spacing_mm > 0):
        raise ValueError(
            f"resized pixel spacing is {spacing_mm!r}; it must be a positive number of "
            "millimetres per pixel (or None where unknown)"
        )
    return f"{spacing_mm:.2f} mm/pixel"


def _weeks_and_days(days: Real) -> tuple[int, int]:
    if not (math.isfinite(days) and days >= 0 and days == int(days)):
        raise ValueError(
            f"gestational age is {days!r}; it must be a whole number of days, 0 or more "
            "(or None where unknown)"
        )
    return divmod(int(days), DAYS_PER_WEEK)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
