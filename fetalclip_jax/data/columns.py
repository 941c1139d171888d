"""What is known of examples, as columns: what every table of them is made of."""

from collections.abc import Iterable

import numpy as np

from fetalclip_jax.data.example import Example

TEXT_COLUMNS = ("example_id", "patient_id", "plane", "brain_plane", "label")
# `resized_spacing_mm` is that of the pixels a model is shown.
NUMBER_COLUMNS = ("ga_days", "hc_mm", "resized_spacing_mm")
# There only where an example has one.
CAPTION = "caption"


def columns(examples: Iterable[tuple[Example, float | None]]) -> dict[str, np.ndarray]:
    """Columns by name, [n] each, of examples and their resized pixel spacings.

    A missing text is "", a missing number is nan. The keys of `Example.extra` are columns too, and
    so is `caption`, of data that come with captions.
    """
    examples = list(examples)
    extras = sorted({name for example, _ in examples for name in example.extra})
    found = {}
    for name in TEXT_COLUMNS:
        found[name] = _texts(getattr(example, name) for example, _ in examples)
    for name in ("ga_days", "hc_mm"):
        found[name] = _numbers(getattr(example, name) for example, _ in examples)
    found["resized_spacing_mm"] = _numbers(spacing_mm for _, spacing_mm in examples)
    if any(example.caption is not None for example, _ in examples):
        found[CAPTION] = _texts(example.caption for example, _ in examples)
    for name in extras:
        found[name] = _texts(example.extra.get(name) for example, _ in examples)
    return found


def _texts(values: Iterable[str | None]) -> np.ndarray:
    return np.array(["" if value is None else value for value in values], np.str_)


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)
