"""Columns by which a result may be split: those of the data set, and ages and spacings in bands."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fetalclip_jax.data.columns import TEXT_COLUMNS
from fetalclip_jax.evaluation.features.store import FeatureStore

# Days of gestation at which the second and the third trimester begin (14 and 28 weeks).
_TRIMESTERS = (14.0 * 7, 28.0 * 7)
_TRIMESTER_NAMES = ("first trimester", "second trimester", "third trimester")
# Resized spacing in mm per pixel: the bulk of FetalCLIP's training images lies in the middle two.
_SPACINGS = (0.3, 0.5, 0.8)
_SPACING_NAMES = ("below 0.3", "0.3 to 0.5", "0.5 to 0.8", "0.8 and above")
# A column of more values than this names images or holds sentences: no group.
MOST_GROUPS = 40


def group_columns(store: FeatureStore) -> dict[str, np.ndarray]:
    """The group of every image, by column, "" where it is unknown.

    Columns of the data set such as machine and operator, `trimester` of a known age and
    `spacing_mm` of a known resized pixel spacing. Columns with more than `MOST_GROUPS` values are
    none.
    """
    found = {
        name: values
        for name, values in store.columns.items()
        if name not in TEXT_COLUMNS and values.dtype.kind == "U"
    }
    ages, spacings = store.columns["ga_days"], store.columns["resized_spacing_mm"]
    found["trimester"] = _bands(ages, _TRIMESTERS, _TRIMESTER_NAMES)
    found["spacing_mm"] = _bands(spacings, _SPACINGS, _SPACING_NAMES)
    return {
        name: values
        for name, values in found.items()
        if 0 < len(set(values.tolist()) - {""}) <= MOST_GROUPS
    }


def _bands(
    values: Float[np.ndarray, "n"], edges: Sequence[float], names: Sequence[str]
) -> np.ndarray:
    known = np.isfinite(values)
    return np.where(known, np.array(names)[np.digitize(np.where(known, values, 0), edges)], "")
