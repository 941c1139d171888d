"""The record every data source yields."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from fetalclip_jax import storage
from fetalclip_jax.models.preprocess import load_image


class BadExampleError(ValueError):
    """One example cannot be read. Preparation skips, counts and lists it.

    Attributes:
      example_id: the id (usually a file name) of the example.
      reason: what was found and how to mend it.
    """

    def __init__(self, example_id: str, reason: str):
        super().__init__(f"{example_id}: {reason}")
        self.example_id = example_id
        self.reason = reason

    def __reduce__(self):
        # Worker processes send errors back pickled; the default would lose the second argument.
        return type(self), (self.example_id, self.reason)


# The image of an example that stands for what is known of it.
NO_IMAGE = np.zeros((0, 0), np.uint8)


@runtime_checkable
class Frames(Protocol):
    """The frames of a clip, read when they are asked for: a list or array of images is one."""

    def __len__(self) -> int:
        """How many there are, at least one."""
        ...

    def __getitem__(self, number: int) -> np.ndarray:
        """uint8 [H, W] or [H, W, 3], of one size; raises BadExampleError where it is damaged."""
        ...


@dataclasses.dataclass(frozen=True)
class Example:
    """One ultrasound image or clip, and whatever its source knows about it.

    Attributes:
      example_id: unique and stable within a source.
      image: uint8 [H, W] or [H, W, 3]; of a clip the middle frame.
      caption: free text that came with the image; None where captions are made from metadata.
      ga_days: gestational age in days.
      pixel_spacing_mm: millimetres per pixel of `image` (square pixels).
      plane: one of `PLANES` or `OTHER`.
      brain_plane: one of `BRAIN_PLANES`; None off the brain.
      hc_mm: head circumference in millimetres.
      patient_id: groups the images of one fetus; splits and bootstraps go by it.
      label: a finding, such as one of `HEART_LABELS`.
      masks: structure name -> bool [H, W].
      extra: further labels, and what results may be grouped by (machine, operator), by name.
      frames: of a clip; None for a single image.
      second_image: what another machine shows of the same anatomy at the same scale, from sources
        that are asked for it; uint8, of any size whose longer side is that of `image`.
    """

    example_id: str
    image: np.ndarray
    caption: str | None = None
    ga_days: int | None = None
    pixel_spacing_mm: float | None = None
    plane: str | None = None
    brain_plane: str | None = None
    hc_mm: float | None = None
    patient_id: str | None = None
    label: str | None = None
    masks: Mapping[str, np.ndarray] | None = None
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)
    frames: Frames | None = None
    second_image: np.ndarray | None = None

    def resized_spacing_mm(self, image_size: int) -> float | None:
        """Millimetres per pixel after padding to a square and resizing to `image_size`."""
        if self.pixel_spacing_mm is None:
            return None
        return max(self.image.shape[:2]) / image_size * self.pixel_spacing_mm


def checked_index(index: int, length: int) -> int:
    """`index`, where it is one of `length` examples.

    Raises:
      IndexError: it is not; iteration over a source ends by it.
    """
    if not 0 <= index < length:
        raise IndexError(f"example {index} of {length}")
    return index


def read_image(path: storage.Path) -> UInt8[np.ndarray, "h w *c"]:
    """Pixels of an image file; see `models.preprocess.load_image`.

    Raises:
      BadExampleError: named after the file, where it cannot be decoded.
    """
    try:
        return load_image(path)
    except ValueError as error:
        raise BadExampleError(path.name, str(error)) from error
