"""What is not finite never becomes a score."""

import numpy as np


def require_finite(what: str, values: np.ndarray, example_ids: np.ndarray | None = None) -> None:
    """Checks that no value is nan or inf: comparisons with them would count as hits.

    Args:
      what: what the values are, for the message.
      values: [n, ...].
      example_ids: [n], to name the first example concerned.

    Raises:
      ValueError: naming how many rows are not finite, and the first of them.
    """
    values = np.asarray(values)
    if np.isfinite(values).all():
        return
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
    first = f"row {bad[0]}" if example_ids is None else f"example {str(example_ids[bad[0]])!r}"
    raise ValueError(
        f"{what}: {len(bad)} of {len(values)} are not finite (nan or inf), first {first}; what is "
        "not finite is no score: look at the weights of the model and at that image"
    )
