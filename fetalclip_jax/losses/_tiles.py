"""Sweeps over the tiles of a matrix of all pairs, which is never there as a whole.

`left` and `right` are trees of arrays with the rows and the columns of the matrix along their first
axis. What a sweep makes of rows and of columns is too, and goes through all tiles.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fetalclip_jax.losses._dense import same, similarities
from fetalclip_jax.losses._terms import LOWEST

Tree = Any


def sweep(
    tile: Callable, block: int | None, left: Tree, right: Tree, of_rows: Tree, of_columns: Tree
) -> tuple[Tree, Tree]:
    """Calls `tile` for each tile, and returns what that made of `of_rows` and `of_columns`.

    Args:
      tile: (left, right, real, of_rows, of_columns) -> (of_rows, of_columns), all of one tile;
        `real` says which pairs exist, None for all.
      block: rows and columns of a tile at most; None for one tile.
    """
    (left, of_rows), real_rows, rows = _cut((left, of_rows), block)
    (right, of_columns), real_columns, columns = _cut((right, of_columns), block)

    def across(of_columns, row):
        left, of_rows, real_rows = row

        def one(of_rows, column):
            right, of_columns, real_columns = column
            real = _pairs(real_rows, real_columns)
            return tile(left, right, real, of_rows, of_columns)

        of_rows, of_columns = jax.lax.scan(one, of_rows, (right, of_columns, real_columns))
        return of_columns, of_rows

    of_columns, of_rows = jax.lax.scan(across, of_columns, (left, of_rows, real_rows))
    return _join(of_rows, rows), _join(of_columns, columns)


def compare(
    left: Tree, right: Tree, real: Bool[Array, "#r #c"] | None, scale: Array, bias: Array | None
) -> tuple[Float[Array, "r c"], Bool[Array, "r c"]]:
    """Logits of a tile, and which of its pairs are positive.

    Pairs that do not exist get the lowest logit and are not positive: every sum of exponentials
    is what it is without them.
    """
    (image, ids), (text, other_ids) = left, right
    logits = scale * similarities(image, text)
    if bias is not None:
        logits += bias
    positive = same(ids, other_ids)
    if real is None:
        return logits, positive
    return jnp.where(real, logits, LOWEST), positive & real


def _cut(tree: Tree, block: int | None) -> tuple[Tree, Bool[Array, "k b"] | None, int]:
    """Arrays [n ...] as [k b ...], which of their rows are not filling (None: all are), and n.

    The blocks are as even as can be, so that there is little filling.
    """
    size = len(jax.tree.leaves(tree)[0])
    count = 1 if block is None else -(-size // block)
    block = -(-size // count)
    filling = count * block - size

    def cut(leaf):
        if filling:
            leaf = jnp.pad(leaf, ((0, filling),) + ((0, 0),) * (leaf.ndim - 1))
        return leaf.reshape(count, block, *leaf.shape[1:])

    real = cut(jnp.ones(size, bool)) if filling else None
    return jax.tree.map(cut, tree), real, size


def _join(tree: Tree, size: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], tree)


def _pairs(rows, columns):
    if rows is None and columns is None:
        return None
    if rows is None or columns is None:
        return rows[:, None] if columns is None else columns[None, :]
    return rows[:, None] & columns[None, :]
