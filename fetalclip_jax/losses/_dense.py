"""Both losses by their definition, from the whole matrix of logits."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

Metrics = dict[str, Float[Array, ""]]


def softmax(
    image: Float[Array, "B D"],
    text: Float[Array, "B D"],
    scale: Float[Array, ""],
    ids: Integer[Array, "B n"],
) -> tuple[Float[Array, ""], Metrics]:
    """Cross entropy along rows and along columns, targets spread evenly over the positives."""
    logits = scale * similarities(image, text)  # B_image B_text
    positive = same(ids, ids)
    targets = positive / positive.sum(axis=1)[:, None]  # symmetric, as `positive` is
    by_image = -(targets * jax.nn.log_softmax(logits, axis=1)).sum(axis=1)
    by_text = -(targets * jax.nn.log_softmax(logits, axis=0).T).sum(axis=1)
    return 0.5 * (by_image.mean() + by_text.mean()), _metrics(logits, positive)


def sigmoid(
    image: Float[Array, "B D"],
    text: Float[Array, "B D"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    ids: Integer[Array, "B n"],
) -> tuple[Float[Array, ""], Metrics]:
    """Logistic loss of each of the B x B pairs, summed over texts and averaged over images."""
    logits = scale * similarities(image, text) + bias
    positive = same(ids, ids)
    by_image = jax.nn.softplus(jnp.where(positive, -logits, logits)).sum(axis=1)
    return by_image.mean(), _metrics(logits, positive)


def same(
    ids: Integer[Array, "rows n"], others: Integer[Array, "columns n"]
) -> Bool[Array, "rows columns"]:
    """Where all parts of two ids are equal."""
    pairs = zip(ids.T, others.T, strict=True)
    return functools.reduce(
        jnp.logical_and, [part[:, None] == other[None, :] for part, other in pairs]
    )


def similarities(
    image: Float[Array, "rows D"], text: Float[Array, "columns D"]
) -> Float[Array, "rows columns"]:
    """Cosines of unit-length features, in full float32 on accelerators too."""
    return jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST)


def _metrics(logits, positive) -> Metrics:
    best = jnp.where(positive, logits, -jnp.inf).max(axis=1)
    best_other = jnp.where(positive, -jnp.inf, logits).max(axis=1)
    return {
        "image_to_text_accuracy": (best > best_other).mean(),
        "duplicate_caption_share": (positive.sum(axis=1) > 1).mean(),
    }
