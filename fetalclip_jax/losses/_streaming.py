"""Both losses tile by tile, on one device or many, without a buffer of all logits.

The first sweep over the tiles keeps a few numbers of each row and column; a second one computes the
logits again and adds up how the loss changes with the features. Where a logit's part in the loss
does not depend on other logits, the first sweep does both.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fetalclip_jax.losses import _tiles
from fetalclip_jax.losses._exchange import Division, all_pairs
from fetalclip_jax.losses._terms import Terms

Tree = Any


class _Tile(NamedTuple):
    """A tile, and what belongs to its rows and columns."""

    logits: jax.Array  # r c
    positive: jax.Array  # r c
    image: jax.Array  # r D
    text: jax.Array  # c D
    rows: Tree  # what `Terms.finish` kept of them
    columns: Tree


class _Sums(NamedTuple):
    """Something that adds up along rows and columns.

    Attributes:
      rows: of image features, before the first tile.
      columns: of text features, before the first tile.
      add: (tile, rows, columns) -> (rows, columns).
      own: own columns over all devices, of all columns over own rows.
    """

    rows: Callable
    columns: Callable
    add: Callable
    own: Callable


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def loss_and_metrics(terms: Terms, division: Division, image, text, scale, bias, ids):
    """A loss, and the metrics that all losses have.

    Args:
      terms: which loss.
      division: how it is computed.
      image: float32 [B D].
      text: float32 [B D].
      scale: float32 [].
      bias: float32 [], or None for a loss that has none.
      ids: [B n].
    """
    inputs = image, text, scale, bias, ids
    ((rows,), (columns,)) = _sweep(division, [_statistics(terms, division)], *inputs)
    return _results(terms, rows, columns)[0]


def _forward(terms, division, image, text, scale, bias, ids):
    inputs, sums = (image, text, scale, bias, ids), [_statistics(terms, division)]
    if terms.independent:
        sums.append(_changes(terms, division, bias))
    of_rows, of_columns = _sweep(division, sums, *inputs)
    results, kept = _results(terms, of_rows[0], of_columns[0])
    return results, (inputs, kept, (of_rows[1:], of_columns[1:]))


def _backward(terms, division, residuals, cotangents):
    inputs, kept, changes = residuals
    if not terms.independent:
        changes = _sweep(division, [_changes(terms, division, inputs[3])], *inputs, kept)
    (((by_image, by_bias),), (by_text,)), (image, _, scale, bias, _) = changes, inputs
    # A logit is scale times image times text plus bias, and so is each of its derivatives. Metrics
    # are counts: they have none.
    weight = cotangents[0] / len(image)
    by_scale = weight * (by_image * image).sum(axis=1).sum()
    by_bias = None if bias is None else weight * by_bias.sum()
    return weight * scale * by_image, weight * scale * by_text, by_scale, by_bias, None


loss_and_metrics.defvjp(_forward, _backward)


def _results(terms, rows, columns):
    """Loss and metrics, and what the second sweep needs of rows and columns."""
    total, *kept = terms.finish(rows, columns)
    metrics = {
        "image_to_text_accuracy": (rows["best"] > rows["best_other"]).mean(),
        "duplicate_caption_share": (rows["count"] > 1).mean(),
    }
    return (total / len(rows["count"]), metrics), tuple(kept)


def _sweep(division, sums, image, text, scale, bias, ids, kept=((), ())):
    """What each of `sums` makes of all rows and of all columns."""

    def tile(scale, bias, left, right, real, of_rows, of_columns):
        (image, ids, rows), (text, other_ids, columns) = left, right
        compared = _tiles.compare((image, ids), (text, other_ids), real, scale, bias)
        found = _Tile(*compared, image, text, rows, columns)
        added = [
            one.add(found, *before) for one, *before in zip(sums, of_rows, of_columns, strict=True)
        ]
        return [rows for rows, _ in added], [columns for _, columns in added]

    def local(image, text, scale, bias, ids, rows, columns):
        return all_pairs(
            division,
            functools.partial(tile, scale, bias),
            (image, ids, rows),
            (text, ids, columns),
            [one.rows(image) for one in sums],
            lambda right: [one.columns(right[0]) for one in sums],
            lambda of_columns: [one.own(c) for one, c in zip(sums, of_columns, strict=True)],
        )

    takes = ("rows", "rows", "all", "all", "rows", "rows", "rows")
    return division.on_devices(local, takes)(image, text, scale, bias, ids, *kept)


def _statistics(terms: Terms, division: Division) -> _Sums:
    """The numbers that a loss is computed from."""

    def own(columns):
        axes = division.axes
        size = len(jax.tree.leaves(columns)[0]) // jax.lax.axis_size(axes) if columns else 0
        start = jax.lax.axis_index(axes) * size
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size),
            terms.join(columns, axes),
        )

    return _Sums(
        rows=lambda image: terms.rows(len(image)),
        columns=lambda text: terms.columns(len(text)),
        add=lambda tile, rows, columns: terms.update(rows, columns, tile.logits, tile.positive),
        own=own,
    )


def _changes(terms: Terms, division: Division, bias: jax.Array | None) -> _Sums:
    """Derivatives by images and by texts, both without the scale, and by the bias."""

    def add(tile, rows, by_text):
        change = terms.gradient(tile.rows, tile.columns, tile.logits, tile.positive)
        by_image, by_bias = rows
        if bias is not None:
            # A product like the two below: a sum would have the derivatives computed once more.
            by_bias += _product(change, jnp.ones_like(tile.text[:, 0]), (1, 0))
        by_image += _product(change, tile.text, (1, 0))
        return (by_image, by_bias), by_text + _product(change, tile.image, (0, 0))

    return _Sums(
        rows=lambda image: (jnp.zeros_like(image), jnp.zeros_like(image[:, 0])),
        columns=jnp.zeros_like,
        add=add,
        own=lambda by_text: jax.lax.psum_scatter(by_text, division.axes, tiled=True),
    )


def _product(left: jax.Array, right: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Contracts one axis of each, in full float32."""
    contracted = ((over[0],), (over[1],))
    return jax.lax.dot_general(
        left, right, (contracted, ((), ())), precision=jax.lax.Precision.HIGHEST
    )
