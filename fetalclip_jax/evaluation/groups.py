"""Columns by which a result may be split: those of the data set, and ages and spacings in bands."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fetalclip_jax.data.columns import CAPTION, TEXT_COLUMNS
from fetalclip_jax.evaluation.features.rows import Rows

# Days of gestation at which the second and the third trimester begin: 14 and 28 weeks.
_TRIMESTERS = (14.0 * 7, 28.0 * 7)
_TRIMESTER_NAMES = ("first trimester", "second trimester", "third trimester")
# The bulk of FetalCLIP's training images lies in the middle two (their peak is at 0.53).
_SPACINGS = (0.3, 0.5, 0.8)
_SPACING_NAMES = ("0 to 0.3 mm", "0.3 to 0.5 mm", "0.5 to 0.8 mm", "0.8 mm and more")
_SPACING_PIXELS = 224
MOST_GROUPS = 40


def group_columns(store: Rows) -> dict[str, np.ndarray]:
    """The group of every image, by column, "" where it is unknown.

    Columns of the data set such as machine and operator; `trimester` of a known age; `spacing_mm`,
    that of an image resized to 224 pixels whatever a model is shown, so that the groups of two
    models are the same. A column of the data set with more than `MOST_GROUPS` values, or with more
    than half as many as it has images, names images or holds sentences: it is left out.
    """
    found = {
        name: values
        for name, values in store.columns.items()
        if name not in (*TEXT_COLUMNS, CAPTION)
        and values.dtype.kind == "U"
        and _puts_together(values)
    }
    bands = {"trimester": _bands(store.columns["ga_days"], _TRIMESTERS, _TRIMESTER_NAMES)}
    if image_size := store.fingerprint.get("image_size"):
        spacings = store.columns["resized_spacing_mm"] * (image_size / _SPACING_PIXELS)
        bands["spacing_mm"] = _bands(spacings, _SPACINGS, _SPACING_NAMES)
    return found | {name: values for name, values in bands.items() if (values != "").any()}


def _puts_together(values: np.ndarray) -> bool:
    known = values[values != ""]
    count = len(set(known.tolist()))
    # One value is a group, if a lonely one: that all images are of one machine can be said.
    return count == 1 or 0 < count <= min(MOST_GROUPS, len(known) // 2)


def _bands(
    values: Float[np.ndarray, "n"], edges: Sequence[float], names: Sequence[str]
) -> np.ndarray:
    known = np.isfinite(values)
    return np.where(known, np.array(names)[np.digitize(np.where(known, values, 0), edges)], "")
