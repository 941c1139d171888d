"""k nearest neighbours by cosine, their votes equal or weighted by similarity.

A weighted vote is exp(cosine / temperature), as in the evaluation of DINO (Caron et al. 2021, with
k = 20 and a temperature of 0.07).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# So many queries' similarities to the whole gallery are held at a time.
_BLOCK = 256
NO_FOLD = -1


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The nearest images of each query, nearest first.

    Attributes:
      cosine: of each.
      labels: their classes.
    """

    cosine: Float[np.ndarray, "n k"]
    labels: Int[np.ndarray, "n k"]

    def votes(self, num_classes: int, k: int, temperature: float = 0.0) -> Float[np.ndarray, "n c"]:
        """The share of the votes of the first k that each class gets.

        Args:
          temperature: of weighted votes; 0 for equal ones.
        """
        weights = np.ones_like(self.cosine[:, :k], np.float64)
        if temperature > 0:
            # Shares do not change with a common factor: the nearest weighs 1, and none overflows.
            nearness = self.cosine[:, :k] - self.cosine[:, :1]
            weights = np.exp(nearness.astype(np.float64) / temperature)
        found = np.zeros((len(weights), num_classes))
        np.add.at(found, (np.arange(len(weights))[:, None], self.labels[:, :k]), weights)
        return found / weights.sum(1, keepdims=True)


def find(
    queries: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    labels: Int[np.ndarray, "g"],
    k: int,
    *,
    query_folds: Int[np.ndarray, "q"] | None = None,
    gallery_folds: Int[np.ndarray, "g"] | None = None,
) -> Neighbours:
    """The k nearest of the gallery; of equally near ones the first.

    Args:
      queries, gallery: features of any length; of length 0, they are like nothing.
      labels: classes of the gallery.
      query_folds, gallery_folds: a query finds nothing of its own fold; None for no folds.

    Raises:
      ValueError: fewer than k images to be found.
    """
    query_folds = np.full(len(queries), NO_FOLD) if query_folds is None else query_folds
    if gallery_folds is None:
        gallery_folds = np.full(len(gallery), NO_FOLD - 1)
    sizes = [(gallery_folds != fold).sum() for fold in np.unique(query_folds)]
    if not 1 <= k <= min(sizes):
        raise ValueError(
            f"k={k} neighbours cannot be found among {min(sizes)} images: give a k of 1 to "
            f"{min(sizes)}"
        )
    fixed = _unit(gallery), jnp.asarray(gallery_folds, jnp.int32)
    queries, folds = _unit(queries), jnp.asarray(query_folds, jnp.int32)
    size = min(_BLOCK, len(queries))
    cosine, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), size):
        # The last block starts earlier: one shape, one program.
        start = min(start, len(queries) - size)
        block = slice(start, start + size)
        cosine[block], rows[block] = _nearest(queries[block], folds[block], *fixed, k)
    return Neighbours(cosine, labels[rows])


@functools.partial(jax.jit, static_argnums=4)
def _nearest(
    queries: Float[Array, "b d"],
    query_folds: Int[Array, "b"],
    gallery: Float[Array, "g d"],
    gallery_folds: Int[Array, "g"],
    k: int,
) -> tuple[Float[Array, "b k"], Int[Array, "b k"]]:
    cosine = jnp.einsum("bd,gd->bg", queries, gallery, precision=jax.lax.Precision.HIGHEST)
    other = query_folds[:, None] != gallery_folds
    return tuple(jax.lax.top_k(jnp.where(other, cosine, -jnp.inf), k))


def _unit(features: Float[np.ndarray, "n d"]) -> Float[Array, "n d"]:
    exact = np.asarray(features, np.float64)
    return jnp.asarray(
        exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12), jnp.float32
    )
