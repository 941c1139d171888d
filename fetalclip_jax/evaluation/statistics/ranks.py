"""Ranks of a search: how far down the list the first right entry stands, and by chance."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import special

from fetalclip_jax.evaluation.statistics.finite import require_finite

# Cosines that differ by rounding alone are ties.
_ROUNDING = 1e-6


def first_hits(
    queries: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    query_ids: Int[np.ndarray, "q"],
    gallery_ids: Int[np.ndarray, "g"],
    times: Int[np.ndarray, "g"] | None = None,
    *,
    block_size: int = 256,
) -> tuple[Int[np.ndarray, "q"], Int[np.ndarray, "q"]]:
    """The rank of each query's best hit, and the entry that is nearest to it.

    A rank is one more than the number of wrong entries that are as near as the nearest right one,
    or nearer: ties count against the model. Similarities are held for one block of queries at a
    time, never all of them.

    Args:
      queries, gallery: features, of any length but 0.
      query_ids, gallery_ids: an entry is right for a query of the same id.
      times: how often each entry stands in the gallery; once, by default.
      block_size: queries at a time.

    Raises:
      ValueError: a feature that is not finite or has no direction, or a query without a right
        entry.
    """
    queries, gallery = _unit("the queries", queries), _unit("the gallery", gallery)
    missing = np.flatnonzero(~np.isin(query_ids, gallery_ids))
    if len(missing):
        raise ValueError(f"{len(missing)} queries have no right entry, first number {missing[0]}")
    times = np.ones(len(gallery)) if times is None else times
    fixed = gallery, jnp.asarray(gallery_ids, jnp.int32), jnp.asarray(times, jnp.int32)
    size = min(block_size, len(queries))
    found = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    for start in range(0, len(queries), size):
        # The last block starts earlier: one shape, one program.
        start = min(start, len(queries) - size)
        rows = slice(start, start + size)
        block = _first_hits(queries[rows], jnp.asarray(query_ids[rows], jnp.int32), *fixed)
        found[0][rows], found[1][rows] = block
    return found


@jax.jit
def _first_hits(
    queries: Float[Array, "b d"],
    query_ids: Int[Array, "b"],
    gallery: Float[Array, "g d"],
    gallery_ids: Int[Array, "g"],
    times: Int[Array, "g"],
) -> tuple[Int[Array, "b"], Int[Array, "b"]]:
    similarity = jnp.einsum("bd,gd->bg", queries, gallery, precision=jax.lax.Precision.HIGHEST)
    right = query_ids[:, None] == gallery_ids
    best = jnp.where(right, similarity, -jnp.inf).max(1, keepdims=True)
    before = ~right & (similarity >= best - _ROUNDING)
    return 1 + (before * times).sum(1), similarity.argmax(1)


def chance_of_hit(
    entries: Int[np.ndarray, "n"], right: Int[np.ndarray, "n"], k: int
) -> Float[np.ndarray, "n"]:
    """The probability that a list in random order has a right entry among its first k.

    Args:
      entries: length of each list.
      right: right entries in it.
    """
    wrong = entries - right
    # None of k draws without replacement is right: (wrong choose k) / (entries choose k).
    none = np.exp(_log_choose(wrong, k) - _log_choose(entries, k))
    return 1 - np.where(wrong >= k, none, 0.0)


def chance_median_rank(entries: Int[np.ndarray, "n"], right: Int[np.ndarray, "n"]) -> int:
    """The median of the first hits' ranks over lists in random order."""
    low, high = 1, int(entries.max())
    while low < high:
        middle = (low + high) // 2
        if chance_of_hit(entries, right, middle).mean() >= 0.5:
            high = middle
        else:
            low = middle + 1
    return low


def _log_choose(n: np.ndarray, k: int) -> np.ndarray:
    # Of fewer than k the caller makes nothing; the logarithm of gamma must still exist.
    n = np.maximum(n, k).astype(np.float64)
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _unit(what: str, features: Float[np.ndarray, "n d"]) -> Float[Array, "n d"]:
    require_finite(what, features)
    exact = np.asarray(features, np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(
            f"{what}: the feature of number {int((length == 0).argmax())} is zero and has no "
            "direction; look at the weights of the model"
        )
    return jnp.asarray(exact / length, jnp.float32)


def counts_of(ids: Sequence[int] | np.ndarray) -> Int[np.ndarray, "n"]:
    """For each entry, how many share its id, itself among them."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return counts[inverse]
