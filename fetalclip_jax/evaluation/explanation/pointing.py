"""The pointing game: how much of a map lies inside a structure, and what maps without a model get.

What a scanner's frame leaves black says nothing to anyone: chance is a map that is even over the
image's content, the smallest rectangle that holds all its echoes, and not over the padded square.
"""

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from fetalclip_jax.evaluation.statistics import segmentation

# Standard deviations of the central spot, as a share of the sides of the content.
_SPREAD = 0.25


def mass_inside(
    heat: Float[np.ndarray, "n s s"], masks: Bool[np.ndarray, "n s s"]
) -> Float[np.ndarray, "n"]:
    """The share of each map that lies in the mask; no value is negative and each has some mass."""
    heat = heat.astype(np.float64)
    return (heat * masks).sum((1, 2)) / heat.sum((1, 2))


def hits(
    heat: Float[np.ndarray, "n s s"], masks: Bool[np.ndarray, "n s s"]
) -> Float[np.ndarray, "n"]:
    """Whether the largest value of each map lies in the mask (Zhang et al. 2018).

    Of several equal ones, the share that does.
    """
    largest = heat == heat.max((1, 2), keepdims=True)
    return (largest & masks).sum((1, 2)) / largest.sum((1, 2))


def content(pixels: UInt8[np.ndarray, "n s s 3"]) -> Bool[np.ndarray, "n s s"]:
    """The smallest rectangle that holds what is not black; all of an image that is."""
    inside = np.zeros(pixels.shape[:3], bool)
    for own, shown in zip(inside, pixels, strict=True):
        top, left, bottom, right = segmentation.content(shown)
        own[top:bottom, left:right] = True
    return inside


def even(inside: Bool[np.ndarray, "n s s"]) -> Float[np.ndarray, "n s s"]:
    """Maps without preference: chance."""
    return inside.astype(np.float32)


def central(inside: Bool[np.ndarray, "n s s"]) -> Float[np.ndarray, "n s s"]:
    """A Gaussian spot in the middle of the content: what is photographed is centred."""
    rows, columns = _bell(inside.any(2)), _bell(inside.any(1))
    return (rows[:, :, None] * columns[:, None, :] * inside).astype(np.float32)


def or_even(
    heat: Float[np.ndarray, "n s s"], inside: Bool[np.ndarray, "n s s"]
) -> tuple[Float[np.ndarray, "n s s"], Bool[np.ndarray, "n"]]:
    """Maps, those that are 0 everywhere replaced by even ones; and which those are."""
    empty = heat.max((1, 2)) <= 0
    return np.where(empty[:, None, None], even(inside), heat), empty


def _bell(inside: Bool[np.ndarray, "n s"]) -> Shaped[np.ndarray, "n s"]:
    places = np.arange(inside.shape[1])
    count = inside.sum(1, keepdims=True)
    middle = (inside * places).sum(1, keepdims=True) / count
    return np.exp(-0.5 * ((places - middle) / (_SPREAD * count)) ** 2)
