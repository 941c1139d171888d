"""The images of a source as a model is shown them in an evaluation: clean, and in copies."""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from fetalclip_jax.data.augment import probe_augment_outlined
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example
from fetalclip_jax.models import preprocess

RAW_SIDE = 16
NO_MASKS = np.zeros(0, bool)


@dataclasses.dataclass(frozen=True)
class View:
    """One example without its image, and the image in all its copies.

    Attributes:
      example: its `image` is empty.
      resized_spacing_mm: of the pixels, or None.
      pixels: the clean image and its copies, or frames of a clip; empty where they are not needed
        any more.
      thumbnails: `shrink` of each of them.
      frames: how many a clip has; None for an image.
      masks: of the structures that were asked for, in each of the copies; empty where none were.
    """

    example: Example
    resized_spacing_mm: float | None
    pixels: UInt8[np.ndarray, "copies s s *c"] | UInt8[np.ndarray, "0"]
    thumbnails: UInt8[np.ndarray, "copies p"]
    frames: int | None = None
    masks: Bool[np.ndarray, "copies k s s"] | Bool[np.ndarray, "0"] = dataclasses.field(
        default_factory=lambda: NO_MASKS
    )


@dataclasses.dataclass(frozen=True)
class NotOutlined:
    """An example that is asked for, but for its outlines.

    Attributes:
      structures: those that it lacks.
    """

    structures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Views:
    """Makes the view of an index. Picklable and free of JAX: worker processes call it.

    Attributes:
      source: a `datasets.protocol.Source`.
      image_size: side of the pixels.
      transform: "clip" shrinks with antialiasing, as the models were trained; "opencv" without, as
        the paper's probes do.
      copies: augmented copies beside the clean image. The padded image is augmented at its native
        size and shrunk afterwards; copy k of image i depends on (seed, i, k) alone.
      seed: of the augmentation.
      only: column -> the values kept; other examples give None.
      masks: structures that must be outlined; other examples give `NotOutlined`. A pixel is in a
        structure if at least half of it is.
    """

    source: object
    image_size: int
    transform: str = "clip"
    copies: int = 0
    seed: int = 0
    only: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    masks: Sequence[str] = ()

    def __call__(self, index: int) -> View | NotOutlined | BadExampleError | None:
        try:
            example = self.source[index]
        except BadExampleError as error:
            return error
        if not self.keeps(example):
            return None
        missing = tuple(name for name in self.masks if name not in (example.masks or {}))
        return NotOutlined(missing) if missing else self.view(example, index)

    def keeps(self, example: Example) -> bool:
        """Whether an example is of the kind that is asked for, outlined or not."""
        return all(_known(example, name) in values for name, values in self.only.items())

    def view(self, example: Example, index: int) -> View | BadExampleError:
        """The image of an example, the one at `index`, clean and in copies."""
        try:
            outlines = [_padded_mask(example, name) for name in self.masks]
        except BadExampleError as error:
            return error
        square = self._shown(example.image)
        pixels, masks = [self._resized(square)], [self._resized_masks(outlines)]
        for copy in range(1, self.copies + 1):
            rng = np.random.default_rng([self.seed, index, copy])
            changed, moved = probe_augment_outlined(square, outlines, rng)
            pixels.append(self._resized(changed))
            masks.append(self._resized_masks(moved))
        return View(
            dataclasses.replace(example, image=NO_IMAGE, masks=None, frames=None),
            example.resized_spacing_mm(self.image_size),
            np.stack(pixels),
            np.stack([shrink(one) for one in pixels]),
            masks=np.stack(masks) if self.masks else NO_MASKS,
        )

    def _shown(self, image: np.ndarray) -> np.ndarray:
        """What is augmented and shrunk: the padded image, where anything is done before."""
        if self.transform == "opencv":
            # Published copies are made of three channels, grey images included.
            colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
            return preprocess.pad_to_square(colour)
        grey = preprocess.grey_where_equal(image)
        return preprocess.pad_to_square(grey) if self.copies else grey

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.transform == "opencv":
            return preprocess.opencv_resize(image, self.image_size)
        return preprocess.square_resize(image, self.image_size)

    def _resized_masks(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        size = (self.image_size, self.image_size)
        # By area the share of a pixel that is covered; where images grow that is linear between.
        found = [
            cv2.resize(one, size, interpolation=cv2.INTER_AREA)
            if len(one) >= self.image_size
            else cv2.resize(one, size, interpolation=cv2.INTER_LINEAR)
            for one in masks
        ]
        return np.array(found).reshape(-1, *size) >= 128


def shrink(pixels: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "p"]:
    """A grey 16 x 16 thumbnail by area averaging, flattened."""
    grey = pixels.astype(np.float32)
    grey = grey if grey.ndim == 2 else grey.mean(-1)
    small = cv2.resize(grey, (RAW_SIDE, RAW_SIDE), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8).ravel()


def _padded_mask(example: Example, name: str) -> UInt8[np.ndarray, "s s"]:
    """A structure as 0 and 255, padded as the image is.

    Raises:
      BadExampleError: the mask is of another size than the image.
    """
    mask = np.asarray(example.masks[name])
    if mask.shape != example.image.shape[:2]:
        raise BadExampleError(
            example.example_id,
            f"the mask of {name!r} is {list(mask.shape)}, its image "
            f"{list(example.image.shape[:2])} pixels; outline the image at its own size",
        )
    return preprocess.pad_to_square(np.where(mask, 255, 0).astype(np.uint8))


def _known(example: Example, name: str) -> object:
    """A field of an example, or one of its further labels and group columns."""
    return getattr(example, name) if hasattr(example, name) else example.extra.get(name)
