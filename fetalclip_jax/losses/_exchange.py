"""How the images of each device meet the texts of all: gathered on each, or passed round a ring."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from fetalclip_jax.losses import _tiles

Tree = Any


@dataclasses.dataclass(frozen=True)
class Division:
    """How the work is divided, which changes no result.

    Attributes:
      block: rows and columns of a tile at most; None for one tile of all that a device has.
      mesh: of the devices that rows lie on; None for one device.
      axes: of the mesh, which rows are split over.
      ring: pass texts from device to device instead of gathering them.
    """

    block: int | None = None
    mesh: Mesh | None = None
    axes: tuple[str, ...] = ()
    ring: bool = False

    def on_devices(self, function: Callable, takes: tuple[str, ...]) -> Callable:
        """`function` of each device's own rows ("rows") and of what is the same on all ("all").

        What it returns are own rows.
        """
        if self.mesh is None:
            return function
        where = {"rows": PartitionSpec(self.axes), "all": PartitionSpec()}
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(where[name] for name in takes),
            out_specs=where["rows"],
            # Along the axes that rows are not split over all devices do the same, which the check
            # does not see through loops.
            check_vma=False,
        )


def all_pairs(
    division: Division,
    tile: Callable,
    left: Tree,
    right: Tree,
    of_rows: Tree,
    new_columns: Callable[[Tree], Tree],
    own: Callable[[Tree], Tree],
) -> tuple[Tree, Tree]:
    """Sweeps over this device's rows and the columns of all devices.

    Args:
      tile: see `_tiles.sweep`.
      left: this device's rows.
      right: this device's columns.
      of_rows: what becomes of the rows, before the first tile.
      new_columns: the same of columns, which it is given.
      own: makes this device's part, over all rows, from what every device made of all columns.
    """
    if division.ring:
        return _round_the_ring(division, tile, left, right, of_rows, new_columns(right))
    if division.mesh is not None:
        gather = functools.partial(jax.lax.all_gather, axis_name=division.axes, tiled=True)
        right = jax.tree.map(gather, right)
    of_columns = new_columns(right)
    of_rows, of_columns = _tiles.sweep(tile, division.block, left, right, of_rows, of_columns)
    return of_rows, of_columns if division.mesh is None else own(of_columns)


def _round_the_ring(division, tile, left, right, of_rows, of_columns):
    """As many hops as there are devices, after which all columns are back where they came from."""
    devices = math.prod(division.mesh.shape[axis] for axis in division.axes)
    to_next = [(device, (device + 1) % devices) for device in range(devices)]
    pass_on = functools.partial(jax.lax.ppermute, axis_name=division.axes, perm=to_next)

    def hop(carry, _):
        of_rows, right, of_columns = carry
        of_rows, of_columns = _tiles.sweep(tile, division.block, left, right, of_rows, of_columns)
        return (of_rows, *jax.tree.map(pass_on, (right, of_columns))), None

    (of_rows, _, of_columns), _ = jax.lax.scan(hop, (of_rows, right, of_columns), length=devices)
    return of_rows, of_columns
