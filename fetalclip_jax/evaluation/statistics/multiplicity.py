"""Many tests at once."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, so that its chance of any false finding is that of one.

    Holm's step-down procedure (1979): the smallest is multiplied by the number of tests, the next
    by one less, and none may fall below the one before it.

    Args:
      p_values: of single tests, each in [0, 1].

    Returns:
      Adjusted p-values in the same order.

    Raises:
      ValueError: a number that is no probability.
    """
    p = np.asarray(p_values, np.float64)
    wrong = [value for value in p_values if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"a p-value must lie between 0 and 1, found {wrong[0]}")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()
