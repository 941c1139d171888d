"""How one `Example` is laid out in a record, and back.

A record is a flat mapping of bytes, strings and numbers that `data.builder` declares to TFDS.
Missing values are stored as "" or NaN, because a `tf.train.Example` has no null.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.data.checks import PLAUSIBLE, Ranges, check_example
from fetalclip_jax.data.example import Example
from fetalclip_jax.models.preprocess import square_resize

RECORD_TEXT_COLUMNS = (
    "example_id",
    "caption",
    "plane",
    "brain_plane",
    "patient_id",
    "label",
)
# `pixel_spacing_mm` is that of the stored, resized image; height and width are the original's.
RECORD_NUMBER_COLUMNS = ("ga_days", "resized_spacing_mm", "hc_mm", "height", "width")
RECORD_COLUMNS = RECORD_TEXT_COLUMNS + RECORD_NUMBER_COLUMNS


def encode_example(
    example: Example, image_size: int, *, ranges: Ranges = PLAUSIBLE, with_extra: bool = False
) -> dict[str, Any]:
    """One record: the columns, images (PNG bytes at image_size x image_size) and masks.

    Args:
      example: what to store.
      image_size: side of the stored square image in pixels.
      ranges: which numbers are plausible.
      with_extra: stores `example.extra` too, as a column of its own.

    Raises:
      BadExampleError: as `checks.check_example`.
    """
    check_example(example, ranges)
    image = np.asarray(example.image)
    record: dict[str, Any] = {
        "image": encode_png(square_resize(image, image_size)),
        **_encode_second_image(example, image_size),
        **_encode_masks(example, image_size),
    }
    for column in RECORD_TEXT_COLUMNS:
        record[column] = _without_nul(getattr(example, column) or "")
    numbers = {
        "ga_days": example.ga_days,
        "resized_spacing_mm": example.resized_spacing_mm(image_size),
        "hc_mm": example.hc_mm,
        "height": image.shape[0],
        "width": image.shape[1],
    }
    record |= {column: _storable(number) for column, number in numbers.items()}
    if with_extra:
        extra = {key: _without_nul(value) for key, value in example.extra.items()}
        record["extra"] = json.dumps(extra, sort_keys=True, ensure_ascii=False)
    return record


def parse_record(data: bytes) -> dict[str, Any]:
    """The fields of a serialised record: bytes and numbers by name."""
    # Here and not above: only who reads records needs TFDS, and TFDS takes long to import.
    from tensorflow_datasets.proto import tf_example_pb2

    fields = tf_example_pb2.Example.FromString(data).features.feature
    return {
        name: (field.bytes_list.value or field.float_list.value)[0]
        for name, field in fields.items()
    }


def decode_record(record: Mapping[str, Any], *, colour: bool, with_masks: bool = True) -> Example:
    """The example of a record; `image` is [S, S], or [S, S, 3] with `colour`."""
    text = {column: _text(record[column]) or None for column in RECORD_TEXT_COLUMNS}
    number = {column: _storable(record[column]) for column in RECORD_NUMBER_COLUMNS}
    number = {column: None if math.isnan(x) else x for column, x in number.items()}
    ga_days = number["ga_days"]
    return Example(
        **text,
        image=decode_png(record["image"], colour=colour),
        ga_days=None if ga_days is None else round(ga_days),
        pixel_spacing_mm=number["resized_spacing_mm"],
        hc_mm=number["hc_mm"],
        masks=_decode_masks(record) if with_masks else None,
        second_image=(
            decode_png(record["second_image"], colour=colour) if "second_image" in record else None
        ),
        extra=decode_extra(record),
    )


def decode_extra(record: Mapping[str, Any]) -> dict[str, str]:
    """The `extra` of a record's example; empty where the records hold none."""
    return json.loads(_text(record["extra"])) if "extra" in record else {}


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


def _encode_masks(example: Example, image_size: int) -> dict[str, Any]:
    # All masks of one image share one tall two-level PNG: [names * S, S].
    masks = dict(example.masks or {})
    if not masks:
        return {"mask_names": "", "masks": b""}
    planes = []
    for mask in masks.values():
        grey = square_resize(mask.astype(np.uint8) * 255, image_size)
        planes.append(np.where(grey >= 128, 255, 0).astype(np.uint8))
    return {"mask_names": "\n".join(masks), "masks": encode_png(np.concatenate(planes))}


def _encode_second_image(example: Example, image_size: int) -> dict[str, Any]:
    if example.second_image is None:
        return {}
    return {"second_image": encode_png(square_resize(example.second_image, image_size))}


def _decode_masks(record: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    names = _text(record["mask_names"])
    if not names:
        return None
    planes = decode_png(record["masks"], colour=False) > 0
    return dict(
        zip(names.split("\n"), np.split(planes, len(planes) // planes.shape[1]), strict=True)
    )


def _without_nul(text: str) -> str:
    # NUL separates strings in the metadata file; no caption needs it.
    return text.replace("\0", " ")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _storable(number: float | int | None) -> float:
    # tf.train.Example holds float32; the shortest decimal that gives the same float32 makes
    # 44.3 mm read back as 44.3 and lets records and metadata agree to the last digit.
    return math.nan if number is None else float(str(np.float32(number)))


def pack_strings(strings: Sequence[str]) -> UInt8[np.ndarray, "n"]:
    """Strings without NUL as one UTF-8 byte array, which .npz stores without pickle."""
    return np.frombuffer("\0".join(strings).encode(), np.uint8)


def unpack_strings(packed: UInt8[np.ndarray, "n"]) -> list[str]:
    """The strings of `pack_strings` (of at least one string)."""
    return packed.tobytes().decode().split("\0")
