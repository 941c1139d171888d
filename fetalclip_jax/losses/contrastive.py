"""The softmax contrastive loss of CLIP, with several positives per row where captions repeat."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer


def softmax_contrastive(
    image_features: Float[Array, "B D"],
    text_features: Float[Array, "B D"],
    logit_scale: Float[Array, ""],
    *,
    caption_ids: Integer[Array, "B"] | Integer[Array, "B n"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Symmetric cross entropy over the global batch of image-text similarities.

    Row i's target is spread evenly over every column with the caption id of i: in this domain
    many images share a caption, and a caption must not be pushed away from an image it describes.
    Without `caption_ids` each row has its own column only, the loss of Radford et al. (2021).

    The arrays are global. Under `jit` over a mesh they may be sharded along B in any way; value
    and gradients do not depend on it.

    Args:
      image_features: unit length, [B, D].
      text_features: unit length, [B, D].
      logit_scale: the exponentiated scale, [].
      caption_ids: equal ids mark equal captions, [B]; or [B, n] of ids in n parts, which are equal
        where all parts are.

    Returns:
      The loss in nats, and metrics: `image_to_text_accuracy` (share of images whose best text is
      one of theirs) and `duplicate_caption_share` (share of rows that have another positive).
    """
    logits = logit_scale.astype(jnp.float32) * jnp.matmul(
        image_features.astype(jnp.float32),
        text_features.astype(jnp.float32).T,
        precision=jax.lax.Precision.HIGHEST,
    )  # B_image B_text
    batch = logits.shape[0]
    if caption_ids is None:
        caption_ids = jnp.arange(batch)
    parts = caption_ids.reshape(batch, -1).T  # n B
    positive = functools.reduce(
        jnp.logical_and, [part[:, None] == part[None, :] for part in parts]
    )  # B B, symmetric
    count = positive.sum(axis=1)
    targets = positive / count[:, None]
    by_image = -(targets * jax.nn.log_softmax(logits, axis=1)).sum(axis=1)
    by_text = -(targets * jax.nn.log_softmax(logits, axis=0).T).sum(axis=1)
    loss = 0.5 * (by_image.mean() + by_text.mean())
    best = logits.argmax(axis=1)
    metrics = {
        "image_to_text_accuracy": jnp.take_along_axis(positive, best[:, None], axis=1).mean(),
        "duplicate_caption_share": (count > 1).mean(),
    }
    return loss, metrics
