"""The Dice loss of masks that may overlap, as segmentation libraries count it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_EPSILON = 1e-7  # the least denominator


class DiceSums(NamedTuple):
    """What the loss is a function of; those of several batches add up.

    Attributes:
      intersection: probability inside the true mask, of each class.
      total: probability and true pixels.
      true: true pixels.
    """

    intersection: Float[Array | np.ndarray, "*runs classes"]
    total: Float[Array | np.ndarray, "*runs classes"]
    true: Float[Array | np.ndarray, "*runs classes"]


def dice_loss(
    logits: Float[Array, "B H W classes"], masks: Bool[Array | np.ndarray, "B H W classes"]
) -> Float[Array, ""]:
    """1 - Dice of the soft masks of a whole batch, averaged over classes.

    Each class is a yes or no of its own, for structures overlap: a chamber lies in the heart. The
    sums run over all images, with nothing added to numerator or denominator. A class of which the
    batch shows no pixel counts as a loss of 0, without a gradient, and still takes part in the
    average.
    """
    return loss_of_sums(dice_sums(logits, masks))


def dice_sums(
    logits: Float[Array, "B H W classes"],
    masks: Bool[Array | np.ndarray, "B H W classes"],
    weights: Float[Array, "B"] | None = None,
) -> DiceSums:
    """Sums over the pixels of all images, each with its weight."""
    probabilities = jax.nn.sigmoid(logits)
    true = jnp.asarray(masks, logits.dtype)
    # First within an image: a float32 sum of a whole batch would lose digits.
    sums = [one.sum((1, 2)) for one in (probabilities * true, probabilities + true, true)]  # B c
    if weights is not None:
        sums = [one * weights[:, None] for one in sums]
    return DiceSums(*(one.sum(0) for one in sums))


def loss_of_sums(sums: DiceSums) -> Float[Array, "*runs"]:
    """The loss, see `dice_loss`."""
    dice = 2 * sums.intersection / jnp.maximum(sums.total, _EPSILON)
    return jnp.where(jnp.asarray(sums.true) > 0, 1 - dice, 0).mean(-1)
