"""How one `Example` is laid out in a record, and back.

A record is a flat mapping of bytes, strings and numbers that `datasets.image_text` declares to
TFDS. Missing values are stored as "" or NaN, because a `tf.train.Example` has no null.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.models.preprocess import square_resize

TEXT_COLUMNS = (
    "example_id",
    "caption",
    "plane",
    "brain_plane",
    "patient_id",
    "label",
)
# `pixel_spacing_mm` is that of the stored, resized image; height and width are the original's.
NUMBER_COLUMNS = ("ga_days", "resized_spacing_mm", "hc_mm", "height", "width")
COLUMNS = TEXT_COLUMNS + NUMBER_COLUMNS


def encode_example(example: Example, image_size: int) -> dict[str, Any]:
    """One record: the columns, `image` (PNG bytes at image_size x image_size) and masks.

    Raises:
      BadExampleError: when the image is not uint8 [H, W] or [H, W, 3], or a number is infinite.
    """
    image = _checked_image(example)
    record: dict[str, Any] = {
        "image": encode_png(square_resize(image, image_size)),
        **_encode_masks(example, image_size),
    }
    for column in TEXT_COLUMNS:
        # NUL separates strings in the metadata file; no caption needs it.
        record[column] = (getattr(example, column) or "").replace("\0", " ")
    numbers = {
        "ga_days": example.ga_days,
        "resized_spacing_mm": example.resized_spacing_mm(image_size),
        "hc_mm": example.hc_mm,
        "height": image.shape[0],
        "width": image.shape[1],
    }
    for column, number in numbers.items():
        if number is not None and not math.isfinite(number):
            raise BadExampleError(example.example_id, f"{column} is {number}, not a finite number")
        record[column] = _storable(number)
    return record


def decode_record(record: Mapping[str, Any], *, colour: bool) -> Example:
    """The example of a record; `image` is [S, S], or [S, S, 3] with `colour`."""
    text = {column: _text(record[column]) or None for column in TEXT_COLUMNS}
    number = {column: _storable(record[column]) for column in NUMBER_COLUMNS}
    number = {column: None if math.isnan(x) else x for column, x in number.items()}
    ga_days = number["ga_days"]
    return Example(
        **text,
        image=decode_png(record["image"], colour=colour),
        ga_days=None if ga_days is None else round(ga_days),
        pixel_spacing_mm=number["resized_spacing_mm"],
        hc_mm=number["hc_mm"],
        masks=_decode_masks(record),
    )


def encode_png(image: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """Lossless PNG. A colour image whose three channels agree is stored as grey."""
    if image.ndim == 3:
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        grey = np.array_equal(red, green) and np.array_equal(green, blue)
        image = np.ascontiguousarray(red if grey else image[..., ::-1])
    done, data = cv2.imencode(".png", image)
    assert done
    return data.tobytes()


def decode_png(data: bytes, *, colour: bool) -> UInt8[np.ndarray, "h w *c"]:
    """Pixels of `encode_png`; a grey image is repeated over three channels with `colour`."""
    flag = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    return np.ascontiguousarray(image[..., ::-1]) if colour else image


def is_colour_png(data: bytes) -> bool:
    """Whether `encode_png` kept three channels: byte 25 of a PNG is its colour type."""
    return data[25] == 2


def _checked_image(example: Example) -> np.ndarray:
    image = np.asarray(example.image)
    grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not grey_or_rgb or 0 in image.shape:
        raise BadExampleError(
            example.example_id,
            f"image is {image.dtype} {list(image.shape)}, not uint8 [H, W] or [H, W, 3]",
        )
    return image


def _encode_masks(example: Example, image_size: int) -> dict[str, Any]:
    # All masks of one image share one tall two-level PNG: [names * S, S].
    masks = dict(example.masks or {})
    if not masks:
        return {"mask_names": "", "masks": b""}
    planes = []
    for name, mask in masks.items():
        if mask.shape != example.image.shape[:2]:
            raise BadExampleError(
                example.example_id,
                f"mask {name} is {list(mask.shape)}, image {list(example.image.shape[:2])}",
            )
        grey = square_resize(mask.astype(np.uint8) * 255, image_size)
        planes.append(np.where(grey >= 128, 255, 0).astype(np.uint8))
    return {"mask_names": "\n".join(masks), "masks": encode_png(np.concatenate(planes))}


def _decode_masks(record: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    names = _text(record["mask_names"])
    if not names:
        return None
    planes = decode_png(record["masks"], colour=False) > 0
    return dict(
        zip(names.split("\n"), np.split(planes, len(planes) // planes.shape[1]), strict=True)
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _storable(number: float | None) -> float:
    # tf.train.Example holds float32; the shortest decimal that gives the same float32 makes
    # 44.3 mm read back as 44.3 and lets records and metadata agree to the last digit.
    return math.nan if number is None else float(str(np.float32(number)))


def pack_strings(strings: Sequence[str]) -> UInt8[np.ndarray, "n"]:
    """Strings without NUL as one UTF-8 byte array, which .npz stores without pickle."""
    return np.frombuffer("\0".join(strings).encode(), np.uint8)


def unpack_strings(packed: UInt8[np.ndarray, "n"]) -> list[str]:
    """The strings of `pack_strings` (of at least one string)."""
    return packed.tobytes().decode().split("\0")
