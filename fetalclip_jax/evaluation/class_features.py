"""Classes as their prompts embed them, and how similar images are to them."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fetalclip_jax.evaluation.text_features import encode_tokens
from fetalclip_jax.models.clip import unit_length


@jax.jit
def similarity(
    image_features: Float[Array, "n d"], class_features: Float[Array, "classes d"]
) -> Float[Array, "n classes"]:
    """100 x cosine of each image with each class.

    Args:
      image_features: projected, normalised here.
      class_features: of length one, as `embed_classes` makes them.
    """
    return 100.0 * jnp.einsum(
        "nd,cd->nc",
        unit_length(image_features),
        class_features,
        precision=jax.lax.Precision.HIGHEST,
    )


def embed_classes(
    model, prompts: Mapping[str, Sequence[str]], *, batch_size: int = 256
) -> Float[np.ndarray, "classes d"]:
    """The embedding of every class: the normalised mean of its normalised prompt embeddings.

    Args:
      model: anything with `tokenize` and `encode_text`.
      prompts: texts by class name; each class has at least one.
      batch_size: prompts per call of the text tower.

    Raises:
      ValueError: two classes whose prompts are the same to the model.
    """
    counts = np.array([len(texts) for texts in prompts.values()])
    tokens = np.asarray(model.tokenize([text for texts in prompts.values() for text in texts]))
    parts = np.split(tokens, np.cumsum(counts)[:-1])
    _check_told_apart(dict(zip(prompts, parts, strict=True)))
    encoded = encode_tokens(model, tokens, batch_size=batch_size)
    # Classes with fewer prompts than others are padded.
    exists = np.arange(counts.max()) < counts[:, None]
    features = np.zeros((*exists.shape, encoded.shape[-1]), np.float32)
    features[exists] = encoded
    return np.asarray(_mean_direction(features, exists))


@jax.jit
def _mean_direction(
    prompts: Float[Array, "classes prompts d"], exists: Bool[Array, "classes prompts"]
) -> Float[Array, "classes d"]:
    flat = unit_length(prompts.reshape(-1, prompts.shape[-1])).reshape(prompts.shape)
    # The mean needs no division: the sum points the same way.
    return unit_length((flat * exists[..., None]).sum(axis=1))


def _check_told_apart(tokens: dict[str, Int[np.ndarray, "prompts context"]]) -> None:
    """Refuses two classes of which every prompt is the same, once cut to the context."""
    first: dict[tuple, str] = {}
    for name, rows in tokens.items():
        key = tuple(sorted(row.tobytes() for row in rows))
        if key in first:
            raise ValueError(
                f"the prompts of {first[key]!r} and {name!r} are the same within the "
                f"{rows.shape[1]} tokens that the model reads: no answer tells them apart; say "
                "what differs earlier in the prompt"
            )
        first[key] = name
