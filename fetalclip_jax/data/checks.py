"""What cannot be true of an ultrasound image, found where data enters.

Everything behind this point (captions, studies, reports) may trust vocabularies and units.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.labels import BRAIN_PLANES, OTHER, PLANES

Number = float | int
Ranges = Mapping[str, tuple[Number, Number]]
# Wide enough for any fetus and scanner, narrow enough that another unit falls out.
PLAUSIBLE: Ranges = {
    "ga_days": (28.0, 308.0),
    "hc_mm": (30.0, 450.0),
    "pixel_spacing_mm": (0.005, 5.0),
}
# Field -> what its number times a factor would be, had it been meant in another unit.
_UNITS = {
    "ga_days": ((7.0, "weeks; give days"),),
    "hc_mm": ((10.0, "centimetres; give millimetres"), (1000.0, "metres; give millimetres")),
    "pixel_spacing_mm": (
        (0.001, "micrometres; give millimetres"),
        (1000.0, "metres; give millimetres"),
    ),
}
# What programs write for a value that is not there; "none" may well be the name of a finding.
_ABSENT = ("nan", "<na>")
_NOT_TEXT = {
    "caption": (*_ABSENT, "none", "null"),
    "patient_id": (*_ABSENT, "none", "null"),
    "label": _ABSENT,
}


def implausible(field: str, number: Number, ranges: Ranges = PLAUSIBLE) -> str | None:
    """Why `number` cannot be the `field` of an image, and how to mend it; None where it can be."""
    low, high = ranges[field]
    if not math.isfinite(number):
        return f"{field} is {number}, not a finite number; leave it empty where it is not known"
    if low <= number <= high:
        return None
    units = [unit for factor, unit in _UNITS[field] if low <= number * factor <= high]
    advice = f"it looks like {units[0]}" if units else "correct it, or leave it empty"
    return f"{field} is {number:g}, outside {low:g} to {high:g}; {advice}"


def ranges_of(source: Any) -> Ranges:
    """The plausible ranges of a source: `PLAUSIBLE`, but for what its facts say otherwise."""
    facts = getattr(source, "facts", None)
    return PLAUSIBLE if facts is None else {**PLAUSIBLE, **facts.plausible}


def check_example(example: Example, ranges: Ranges = PLAUSIBLE) -> Example:
    """The example, where everything it says can be true.

    Raises:
      BadExampleError: an image that is not uint8 [H, W] or [H, W, 3], a mask of another size, a
        plane outside of the vocabulary, a number out of range, a text that says NaN.
    """
    for reason in (
        _check_image(example),
        _check_masks(example),
        _check_planes(example),
        _check_texts(example),
        *(
            implausible(field, number, ranges)
            for field in PLAUSIBLE
            if (number := getattr(example, field)) is not None
        ),
    ):
        if reason:
            raise BadExampleError(example.example_id, reason)
    return example


def _check_image(example: Example) -> str | None:
    image = np.asarray(example.image)
    grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype == np.uint8 and grey_or_rgb and 0 not in image.shape:
        return None
    return f"image is {image.dtype} {list(image.shape)}, not uint8 [H, W] or [H, W, 3]"


def _check_masks(example: Example) -> str | None:
    expected = np.shape(example.image)[:2]
    for name, mask in (example.masks or {}).items():
        if mask.shape != expected:
            return f"mask {name} is {list(mask.shape)}, image {list(expected)}"
    return None


def _check_planes(example: Example) -> str | None:
    plane, brain_plane = example.plane, example.brain_plane
    if plane is not None and plane not in (*PLANES, OTHER):
        return f"plane is {plane!r}; use one of {', '.join((*PLANES, OTHER))}, or leave it empty"
    if brain_plane is None:
        return None
    if brain_plane not in BRAIN_PLANES:
        return (
            f"brain_plane is {brain_plane!r}; use one of {', '.join(BRAIN_PLANES)}, or leave it "
            "empty"
        )
    if plane not in ("brain", None):
        return f"brain_plane is {brain_plane!r}, but plane is {plane!r}; correct one of them"
    return None


def _check_texts(example: Example) -> str | None:
    for field, absent in _NOT_TEXT.items():
        text = getattr(example, field)
        if text is None:
            continue
        if not isinstance(text, str):
            return f"{field} is {text!r}, not a text; leave it empty where there is none"
        if text.strip().lower() in absent:
            return f"{field} is {text!r}; leave it empty where there is none"
    return None
