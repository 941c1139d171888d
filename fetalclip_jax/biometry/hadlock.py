"""Mean sizes by age (Hadlock, Deter, Harrist, Park, Radiology 1984;152:497-501)."""


def ac_mm(ga_weeks: float | int) -> float:
    """Mean abdominal circumference in mm (cm = -13.3 + 1.61 w - 0.00998 w^2)."""
    return 10.0 * (-13.3 + 1.61 * ga_weeks - 0.00998 * ga_weeks**2)


def fl_mm(ga_weeks: float | int) -> float:
    """Mean femur length in mm (cm = -3.91 + 0.427 w - 0.0034 w^2)."""
    return 10.0 * (-3.91 + 0.427 * ga_weeks - 0.0034 * ga_weeks**2)
