"""Random changes of an image that keep what it shows. NumPy and OpenCV only."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from fetalclip_jax.data import appearance

_LARGEST = {
    "rotate_degrees": 180.0,
    "translate": 1.0,
    "jitter": 1.0,
    "flip": 1.0,
    "flip_vertical": 1.0,
    "zoom": 1.0,
} | appearance.LARGEST


# For models that learn from simulated images and are to read real ones. Rotation and shift are the
# simulator's. No vertical flips: no real image shows the probe below, and with them models read
# brain planes worse.
SIMULATED_TO_REAL = {
    "rotate_degrees": 0.0,
    "translate": 0.0,
    "jitter": 0.1,
    "zoom": 0.1,
} | appearance.OTHER_MACHINES


@dataclasses.dataclass(frozen=True)
class AugmentConfig(appearance.Appearance):
    """Strength of `train_augment`; zero turns a part off. Further ones are those of `Appearance`.

    Attributes:
      rotate_degrees: rotation is uniform within plus or minus this angle.
      translate: shift along each axis, as a share of the side, within plus or minus this.
      jitter: brightness and contrast are each scaled by a factor within 1 plus or minus this.
      flip: probability of a horizontal flip.
      flip_vertical: probability of a vertical flip; it shows the probe below, as no machine does.
      zoom: the logarithm of the magnification is within plus or minus this. The caption of a
        magnified image quotes the pixel spacing it then has.
    """

    rotate_degrees: float = 7.0
    translate: float = 0.05
    jitter: float = 0.15
    flip: float = 0.5
    flip_vertical: float = 0.0
    zoom: float = 0.0

    def __post_init__(self):
        for field, largest in _LARGEST.items():
            value = getattr(self, field)
            if not 0 <= value <= largest:  # nor is NaN
                raise ValueError(f"augment.{field} is {value}; use a number from 0 to {largest:g}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | ConfigDict) -> "AugmentConfig":
        """From a dict or ConfigDict.

        Raises:
          ValueError: for a field that does not exist, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"augment has no field {unknown[0]!r}; it has {sorted(known)}")
        return cls(**{key: values[key] for key in values})


def train_augment(
    image: UInt8[np.ndarray, "h w *c"],
    rng: np.random.Generator,
    config: AugmentConfig,
    zoom: float = 1.0,
) -> UInt8[np.ndarray, "h w *c"]:
    """Rotation, shift, brightness, contrast and flips of a training image; black border.

    Then what another machine would make of it, see `appearance.change_appearance`. Strengths of
    rotation, shift and jitter follow the recipe of MobileFetalCLIP (arXiv 2603.05421), section on
    training; the rest is this project's.

    Args:
      zoom: magnification about the centre. It is the caller's to draw (`draw_zoom`), for the
        caption has to change with it: it quotes the pixel spacing.
    """
    # Every number is drawn whatever the strengths, so that turning one part off leaves the
    # others as they were.
    angle, shift_x, shift_y, brightness, contrast = rng.uniform(-1, 1, 5)
    flip = rng.random() < config.flip
    if config.rotate_degrees or config.translate or zoom != 1.0:
        shift = config.translate * np.array([shift_x, shift_y])
        image = _affine(image, config.rotate_degrees * angle, shift, zoom)
    if config.jitter:
        image = _adjust(image, 1 + config.jitter * brightness, 1 + config.jitter * contrast)
    if flip:
        image = image[:, ::-1]
    if rng.random() < config.flip_vertical:
        image = image[::-1]
    image = np.ascontiguousarray(image)
    return appearance.change_appearance(image, rng, config) if config.changes_appearance else image


def draw_zoom(rng: np.random.Generator, config: AugmentConfig) -> float:
    """A magnification; its logarithm is uniform within plus or minus `config.zoom`."""
    return float(np.exp(config.zoom * rng.uniform(-1, 1)))


def probe_augment(
    image: UInt8[np.ndarray, "h w *c"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w *c"]:
    """One augmented copy for probes, as in FetalCLIP (arXiv 2502.14807).

    Colour jitter 0.2 with probability 0.5, CLAHE with probability 0.5, and always a shift within
    20 % and a rotation within 20 degrees, with a black border.
    """
    return probe_augment_outlined(image, (), rng)[0]


def probe_augment_outlined(
    image: UInt8[np.ndarray, "h w *c"],
    masks: Sequence[UInt8[np.ndarray, "h w"]],
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "h w *c"], list[UInt8[np.ndarray, "h w"]]]:
    """`probe_augment` of an image, and its outlines moved and turned as the image is."""
    jitter, equalise = rng.random(2) < 0.5
    brightness, contrast, saturation, hue = rng.uniform(-0.2, 0.2, 4)
    clip_limit = rng.uniform(1, 4)
    angle, shift_x, shift_y = rng.uniform(-1, 1, 3)
    if jitter:
        image = _adjust(image, 1 + brightness, 1 + contrast)
        if image.ndim == 3:
            image = _adjust_colour(image, 1 + saturation, hue)
    if equalise:
        image = _equalise(image, clip_limit)
    shift = 0.2 * np.array([shift_x, shift_y])
    return _affine(image, 20 * angle, shift), [_affine(one, 20 * angle, shift) for one in masks]


def _affine(image: np.ndarray, degrees: float, shift: np.ndarray, zoom: float = 1.0) -> np.ndarray:
    height, width = image.shape[:2]
    # Pixel centres are at whole numbers, so the middle of a side of n pixels is (n - 1) / 2.
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
    matrix[:, 2] += shift * (width, height)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _adjust(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """Scales all values, then spreads them about their mean (which includes the padding)."""
    mean = brightness * image.mean()
    # One table look-up per pixel: eight times as fast as float images.
    values = (brightness * np.arange(256) - mean) * contrast + mean
    return cv2.LUT(image, np.clip(np.round(values), 0, 255).astype(np.uint8))


def _adjust_colour(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """Scales the saturation and turns the hue by a share of the circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)  # OpenCV's hue is 0..180
    hsv[..., 0] = (hsv[..., 0] + 180 * hue) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    return cv2.cvtColor(np.round(hsv).astype(np.uint8), cv2.COLOR_HSV2RGB)


def _equalise(image: np.ndarray, clip_limit: float) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation, of the lightness where there is colour."""
    clahe = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(8, 8))
    if image.ndim == 2:
        return clahe.apply(image)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
