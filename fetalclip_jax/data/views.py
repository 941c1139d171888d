"""The images of a source as a model is shown them in an evaluation: clean, and in copies."""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.data.augment import probe_augment
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example
from fetalclip_jax.models import preprocess

RAW_SIDE = 16


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
    """

    example: Example
    resized_spacing_mm: float | None
    pixels: UInt8[np.ndarray, "copies s s *c"] | UInt8[np.ndarray, "0"]
    thumbnails: UInt8[np.ndarray, "copies p"]
    frames: int | None = None


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
    """

    source: object
    image_size: int
    transform: str = "clip"
    copies: int = 0
    seed: int = 0
    only: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __call__(self, index: int) -> View | BadExampleError | None:
        try:
            example = self.source[index]
        except BadExampleError as error:
            return error
        return self.view(example, index) if self.keeps(example) else None

    def keeps(self, example: Example) -> bool:
        """Whether an example is one of those that are asked for."""
        return all(_known(example, name) in values for name, values in self.only.items())

    def view(self, example: Example, index: int) -> View:
        """The image of an example, the one at `index`, clean and in copies."""
        square = self._shown(example.image)
        pixels = [self._resized(square)]
        for copy in range(1, self.copies + 1):
            rng = np.random.default_rng([self.seed, index, copy])
            pixels.append(self._resized(probe_augment(square, rng)))
        spacing_mm = example.resized_spacing_mm(self.image_size)
        bare = dataclasses.replace(example, image=NO_IMAGE, masks=None, frames=None)
        return View(bare, spacing_mm, np.stack(pixels), np.stack([shrink(one) for one in pixels]))

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


def shrink(pixels: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "p"]:
    """A grey 16 x 16 thumbnail by area averaging, flattened."""
    grey = pixels.astype(np.float32)
    grey = grey if grey.ndim == 2 else grey.mean(-1)
    small = cv2.resize(grey, (RAW_SIDE, RAW_SIDE), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8).ravel()


def _known(example: Example, name: str) -> object:
    """A field of an example, or one of its further labels and group columns."""
    return getattr(example, name) if hasattr(example, name) else example.extra.get(name)
