"""Both losses tile by tile, on one device or many, without a buffer of all logits.

Value and gradients take one sweep over the tiles each: the first keeps sums of rows and columns,
the second computes the logits again. Between them only the features and these sums are kept. Each
device has its own rows; texts are gathered on all, or pass round a ring with what belongs to them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fetalclip_jax.losses import _tiles
from fetalclip_jax.losses._terms import Terms

Tree = Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a loss is computed; nothing but `terms` changes the value.

    Attributes:
      terms: which loss.
      block: rows and columns of a tile at most; None for one tile of all that a device has.
      mesh: of the devices that rows lie on; None for one device.
      axes: of the mesh, which rows are split over.
      ring: pass texts from device to device instead of gathering them.
    """

    terms: Terms
    block: int | None = None
    mesh: Mesh | None = None
    axes: tuple[str, ...] = ()
    ring: bool = False

    def on_devices(self, function: Callable, takes: tuple, gives: tuple) -> Callable:
        """`function` of each device's own rows ("rows") and of what is the same on all ("all")."""
        if self.mesh is None:
            return function
        where = {"rows": PartitionSpec(self.axes), "all": PartitionSpec()}
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(where[name] for name in takes),
            out_specs=tuple(where[name] for name in gives),
            # Sums over devices are the same on all, which the check cannot always see.
            check_vma=False,
        )

    def sum(self, value: jax.Array) -> jax.Array:
        return value if self.mesh is None else jax.lax.psum(value, self.axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def loss_and_metrics(plan: Plan, image, text, scale, bias, ids):
    """The loss, and the metrics that all losses have.

    Args:
      image: float32 [B D].
      text: float32 [B D].
      scale: float32 [].
      bias: float32 [], or None for a loss that has none.
      ids: [B n].
    """
    return _forward(plan, image, text, scale, bias, ids)[0]


def _forward(plan, image, text, scale, bias, ids):
    terms, batch = plan.terms, len(image)

    def tile(scale, bias, left, right, real, rows, columns):
        logits, positive = _tiles.compare(left, right, real, scale, bias)
        return terms.update(rows, columns, logits, positive)

    def local(image, text, scale, bias, ids):
        rows, columns = _all_pairs(
            plan,
            functools.partial(tile, scale, bias),
            (image, ids),
            (text, ids),
            terms.rows(len(image)),
            terms.columns,
            functools.partial(_own_columns, plan, len(text)),
        )
        total, of_rows, of_columns = terms.finish(rows, columns)
        hits = (rows["best"] > rows["best_other"]).sum()
        repeated = (rows["count"] > 1).sum()
        return plan.sum(jnp.stack([total, hits, repeated])) / batch, of_rows, of_columns

    run = plan.on_devices(local, ("rows", "rows", "all", "all", "rows"), ("all", "rows", "rows"))
    means, rows, columns = run(image, text, scale, bias, ids)
    metrics = {"image_to_text_accuracy": means[1], "duplicate_caption_share": means[2]}
    return (means[0], metrics), (image, text, scale, bias, ids, rows, columns)


def _backward(plan, kept, cotangents):
    def tile(scale, bias, left, right, real, of_rows, of_text):
        (*left, rows), (*right, columns) = left, right
        logits, positive = _tiles.compare(left, right, real, scale, bias)
        change = plan.terms.gradient(rows, columns, logits, positive)
        of_image, sums = of_rows
        if bias is not None:
            # A product like the two below: a sum would have the derivatives computed once more.
            sums += _product(change, jnp.ones_like(right[0][:, 0]), (1, 0))
        of_image += _product(change, right[0], (1, 0))
        return (of_image, sums), of_text + _product(change, left[0], (0, 0))

    def local(weight, image, text, scale, bias, ids, rows, columns):
        (of_image, sums), of_text = _all_pairs(
            plan,
            functools.partial(tile, scale, bias),
            (image, ids, rows),
            (text, ids, columns),
            (jnp.zeros_like(image), jnp.zeros_like(image[:, 0])),
            lambda count: jnp.zeros((count, text.shape[1]), text.dtype),
            functools.partial(_own_sums, plan),
        )
        # A logit is scale times image times text plus bias, and so is each of its derivatives.
        of_scale = weight * plan.sum((of_image * image).sum(axis=1).sum())
        of_bias = None if bias is None else weight * plan.sum(sums.sum())
        return weight * scale * of_image, weight * scale * of_text, of_scale, of_bias

    run = plan.on_devices(
        local,
        ("all", "rows", "rows", "all", "all", "rows", "rows", "rows"),
        ("rows", "rows", "all", "all"),
    )
    image, *others = kept
    weight = cotangents[0] / len(image)  # metrics are counts, without a derivative
    return *run(weight, image, *others), None


loss_and_metrics.defvjp(_forward, _backward)


def _all_pairs(
    plan: Plan,
    tile: Callable,
    left: Tree,
    right: Tree,
    of_rows: Tree,
    new_columns: Callable[[int], Tree],
    own: Callable[[Tree], Tree],
) -> tuple[Tree, Tree]:
    """Sweeps over this device's rows and the columns of all devices.

    Args:
      tile: see `_tiles.sweep`.
      new_columns: what becomes of so many columns, before the first tile.
      own: what becomes of this device's columns, of what each device made of all columns.
    """
    size = len(right[0])
    if not plan.ring:
        if plan.mesh is not None:
            gather = functools.partial(jax.lax.all_gather, axis_name=plan.axes, tiled=True)
            right = jax.tree.map(gather, right)
        of_columns = new_columns(len(right[0]))
        of_rows, of_columns = _tiles.sweep(tile, plan.block, left, right, of_rows, of_columns)
        return of_rows, own(of_columns)

    devices = math.prod(plan.mesh.shape[axis] for axis in plan.axes)
    to_next = [(device, (device + 1) % devices) for device in range(devices)]
    pass_on = functools.partial(jax.lax.ppermute, axis_name=plan.axes, perm=to_next)

    def hop(carry, _):
        of_rows, right, of_columns = carry
        of_rows, of_columns = _tiles.sweep(tile, plan.block, left, right, of_rows, of_columns)
        return (of_rows, *jax.tree.map(pass_on, (right, of_columns))), None

    # After as many hops as there are devices, all columns are back where they came from.
    start = of_rows, right, new_columns(size)
    (of_rows, _, of_columns), _ = jax.lax.scan(hop, start, length=devices)
    return of_rows, of_columns


def _own_columns(plan: Plan, size: int, columns: Tree) -> Tree:
    if plan.mesh is None:
        return columns
    start = jax.lax.axis_index(plan.axes) * size
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size),
        plan.terms.join(columns, plan.axes),
    )


def _own_sums(plan: Plan, of_columns: jax.Array) -> jax.Array:
    if plan.mesh is None:
        return of_columns
    return jax.lax.psum_scatter(of_columns, plan.axes, tiled=True)


def _product(left: jax.Array, right: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Contracts one axis of each, in full float32."""
    contracted = ((over[0],), (over[1],))
    return jax.lax.dot_general(
        left, right, (contracted, ((), ())), precision=jax.lax.Precision.HIGHEST
    )
