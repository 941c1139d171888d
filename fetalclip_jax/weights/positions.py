"""Positional embeddings of another image size or context length, as open_clip resizes them."""

import math

import jax
import numpy as np
from jaxtyping import Float


def resize_image_positions(
    table: Float[np.ndarray, "old_tokens d"], tokens: int
) -> Float[np.ndarray, "tokens d"]:
    """Bicubic and antialiased over the square grid; the class token's row stays.

    Raises:
      ValueError: `table` is not a class token and a square grid.
    """
    old, new = math.isqrt(len(table) - 1), math.isqrt(tokens - 1)
    if old**2 != len(table) - 1:
        raise ValueError(
            f"the image positions have {len(table)} rows, which is not a square grid and a class "
            "token; they cannot be resized"
        )
    grid = table[1:].astype(np.float32).reshape(old, old, -1)
    resized = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    resized = np.asarray(resized).reshape(new * new, -1)
    return np.concatenate([table[:1].astype(np.float32), resized]).astype(table.dtype)


def resize_text_positions(
    table: Float[np.ndarray, "old_length d"], length: int
) -> Float[np.ndarray, "length d"]:
    """Linear, without antialiasing."""
    shape = (length, table.shape[1])
    resized = jax.image.resize(table.astype(np.float32), shape, "linear", antialias=False)
    return np.asarray(resized).astype(table.dtype)
