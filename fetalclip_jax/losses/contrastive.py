"""The contrastive losses of CLIP and SigLIP, with several positives per row where captions repeat.

Each is one function of global arrays. How it is computed (the whole matrix of logits or tiles of
it, on one device or many) changes neither value nor gradients.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer

from fetalclip_jax.losses import _dense, _streaming
from fetalclip_jax.losses._exchange import Division
from fetalclip_jax.losses._terms import Sigmoid, Softmax
from fetalclip_jax.parallel.sharding import BATCH

EXCHANGES = ("gather", "ring")


def softmax_contrastive(
    image_features: Float[Array, "B D"],
    text_features: Float[Array, "B D"],
    logit_scale: Float[Array, ""],
    *,
    caption_ids: Integer[Array, "B"] | Integer[Array, "B n"] | None = None,
    block_size: int | None = None,
    mesh: Mesh | None = None,
    exchange: str = "gather",
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Symmetric cross entropy over the global batch of image-text similarities.

    Row i's target is spread evenly over every column with the caption id of i: in this domain
    many images share a caption, and a caption must not be pushed away from an image it describes.
    Without `caption_ids` each row has its own column only, the loss of Radford et al. (2021),
    "Learning Transferable Visual Models From Natural Language Supervision".

    The arrays are global. Under `jit` over a mesh they may be sharded along B in any way; value
    and gradients do not depend on it.

    Args:
      image_features: unit length, [B, D]; computed in float32 whatever their type.
      text_features: unit length, [B, D].
      logit_scale: the exponentiated scale, [].
      caption_ids: equal ids mark equal captions, [B]; or [B, n] of ids in n parts, which are equal
        where all parts are.
      block_size: rows and columns of the logits to have in memory at a time, forward and backward;
        any number from 1, 1,024 or 2,048 are fast; None for all. Logits are computed twice then,
        and memory grows with B instead of its square.
      mesh: each device compares its own rows with all texts; None leaves the division of the work
        to the compiler. Its axes "data" and "fsdp" together divide B.
      exchange: how texts come to the other devices of `mesh`: "gather" collects all of them on
        each, "ring" passes them on from device to device, so that each holds those of one only.

    Returns:
      The loss in nats, and metrics: `image_to_text_accuracy` (share of images with one of their
      texts above every other; a draw is a miss) and `duplicate_caption_share` (share of rows that
      have another positive).

    Raises:
      ValueError: numbers of features or ids that differ, a block size below 1, an unknown
        exchange, or a mesh that does not divide B.
    """
    image, text, ids = _inputs(image_features, text_features, caption_ids)
    scale = jnp.asarray(logit_scale, jnp.float32)
    division = _division(len(image), block_size, mesh, exchange)
    if division is None:
        return _dense.softmax(image, text, scale, ids)
    return _streaming.loss_and_metrics(Softmax(), division, image, text, scale, None, ids)


def sigmoid_contrastive(
    image_features: Float[Array, "B D"],
    text_features: Float[Array, "B D"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    *,
    caption_ids: Integer[Array, "B"] | Integer[Array, "B n"] | None = None,
    block_size: int | None = None,
    mesh: Mesh | None = None,
    exchange: str = "gather",
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The logistic loss of every image-text pair of the global batch, over the number of images.

    Of Zhai et al. (2023), "Sigmoid Loss for Language Image Pre-Training", algorithm 1. Every pair
    of equal caption ids is a positive one, whichever row it came from.

    Args:
      image_features: unit length, [B, D]; computed in float32 whatever their type.
      text_features: unit length, [B, D].
      logit_scale: the exponentiated scale, [].
      logit_bias: added to every scaled similarity, [].
      caption_ids: as of `softmax_contrastive`, like the other options.

    Returns:
      The loss in nats, and the metrics of `softmax_contrastive`.

    Raises:
      ValueError: as `softmax_contrastive` does.
    """
    image, text, ids = _inputs(image_features, text_features, caption_ids)
    scale = jnp.asarray(logit_scale, jnp.float32)
    bias = jnp.asarray(logit_bias, jnp.float32)
    division = _division(len(image), block_size, mesh, exchange)
    if division is None:
        return _dense.sigmoid(image, text, scale, bias, ids)
    return _streaming.loss_and_metrics(Sigmoid(), division, image, text, scale, bias, ids)


def _inputs(image, text, ids) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features in float32, and ids [B n]: the numbers of the rows where there are none."""
    if image.shape != text.shape or image.ndim != 2 or not len(image):
        raise ValueError(
            f"image_features are {list(image.shape)} and text_features {list(text.shape)}; "
            "both must be [B, D] of the same pairs"
        )
    if ids is None:
        ids = jnp.arange(len(image))
    if len(ids) != len(image):
        raise ValueError(f"{len(ids)} caption_ids for {len(image)} pairs; pass one for each")
    return image.astype(jnp.float32), text.astype(jnp.float32), ids.reshape(len(ids), -1)


def _division(
    batch: int, block_size: int | None, mesh: Mesh | None, exchange: str
) -> Division | None:
    """How to divide the work; None for a loss by its definition.

    Raises:
      ValueError: see `softmax_contrastive`.
    """
    if exchange not in EXCHANGES:
        raise ValueError(f"exchange={exchange!r} is not one of {', '.join(EXCHANGES)}")
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size={block_size} is not 1 or more; None is for all at once")
    if mesh is None or mesh.size == 1:
        return None if block_size is None else Division(block_size)
    axes = tuple(axis for axis in BATCH[0] if axis in mesh.axis_names)
    if not axes:
        raise ValueError(
            f"mesh has the axes {', '.join(mesh.axis_names)}; batches are split over "
            f"{' and '.join(BATCH[0])}: use parallel.mesh.make_mesh"
        )
    devices = math.prod(mesh.shape[axis] for axis in axes)
    if batch % devices:
        raise ValueError(
            f"a batch of {batch} is not a multiple of the {devices} devices that the mesh splits "
            f"it over ({' x '.join(axes)}); change the global batch size or the mesh"
        )
    return Division(block_size, mesh, axes, exchange == "ring")
