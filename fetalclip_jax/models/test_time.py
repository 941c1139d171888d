"""Test-time augmentation: one feature from several views of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from fetalclip_jax.models.preprocess import normalise

# Probes are held no steadier than this. Mirroring and turning keep every length, so that what a
# prompt says of the pixel spacing stays true.
LARGEST_DEGREES = 8.0
_MOST = 32


def check(views: int) -> None:
    """Raises ValueError for a number of views that there is no set of."""
    if views != 1 and (views % 2 or not 2 <= views <= _MOST):
        raise ValueError(
            f"test_time_views={views}: use 1 for images as they are, or an even number up to "
            f"{_MOST}, half of them mirrored"
        )


def angles(views: int) -> Float[np.ndarray, "half"]:
    """By how many degrees the images are turned, each of them as it is and mirrored.

    Evenly spaced within plus or minus `LARGEST_DEGREES`; 0 alone of two views.
    """
    largest = LARGEST_DEGREES if views > 2 else 0.0
    return np.linspace(-largest, largest, views // 2, dtype=np.float32)


def mean_of_views(
    encode: Callable[[Float[Array, "b s s 3"]], Float[Array, "b d"]],
    images: Float[Array, "b s s 3"],
    views: int,
) -> Float[Array, "b d"]:
    """The mean of what `encode` makes of mirrored and turned images, one view after another.

    Averaging over mirrored and shifted views is as old as AlexNet (Krizhevsky et al. 2012, section
    4.1, who average the answers).

    Args:
      encode: images to features.
      images: normalised.
      views: as `check` allows; 1 is `encode` alone.
    """
    if views == 1:
        return encode(images)

    def both(angle):
        turned = turn(images, angle)
        return (encode(turned) + encode(turned[:, :, ::-1])) / 2

    return jax.lax.map(both, jnp.asarray(angles(views))).mean(0)


def turn(images: Float[Array, "b s s 3"], degrees: Float[Array, ""]) -> Float[Array, "b s s 3"]:
    """Normalised images turned counter-clockwise about their centre; linear, black border."""
    size = images.shape[1]
    radians = jnp.deg2rad(degrees)
    rows, columns = jnp.mgrid[:size, :size] - (size - 1) / 2
    sine, cosine = jnp.sin(radians), jnp.cos(radians)
    from_rows = cosine * rows + sine * columns + (size - 1) / 2
    from_columns = cosine * columns - sine * rows + (size - 1) / 2
    black = jnp.asarray(normalise(np.zeros((1, 1, 1), np.uint8))).reshape(3)

    def one(plane):  # S S
        return map_coordinates(plane, [from_rows, from_columns], order=1, cval=0.0)

    # Above black, so that what lies beyond the border is 0.
    planes = jnp.moveaxis(images - black, -1, 1)  # B 3 S S
    return jnp.moveaxis(jax.vmap(jax.vmap(one))(planes), 1, -1) + black
