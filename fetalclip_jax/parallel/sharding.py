"""Which mesh axis each named array axis lies on."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

# Logical axis of a parameter -> mesh axis. "layers" is the scan axis and is never split.
RULES = (
    ("layers", None),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("head_width", None),
    ("embed", "fsdp"),
    ("joint", None),
)
BATCH = PartitionSpec(("data", "fsdp"))


def tree_shardings(abstract: Any, mesh: Mesh) -> Any:
    """Shardings of an abstract tree whose leaves may carry logical axis names.

    An axis whose size the mesh axis does not divide is left whole.
    """
    specs = nn.get_partition_spec(abstract)
    shardings = nn.logical_to_mesh_sharding(specs, mesh, RULES)
    return jax.tree.map(_divisible, nn.meta.unbox(abstract), shardings)


def _divisible(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> NamedSharding:
    axes = [
        axis if axis is None or size % sharding.mesh.shape[axis] == 0 else None
        for size, axis in zip(leaf.shape, sharding.spec, strict=False)
    ]
    return NamedSharding(sharding.mesh, PartitionSpec(*axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the devices that hold different examples."""
    return NamedSharding(mesh, BATCH)


def within(mesh: Mesh) -> Callable[[Callable], Callable]:
    """Decorates a function to be compiled: what it calls knows the devices it is compiled for."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def decorated(*arguments):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return function(*arguments)

        return decorated

    return decorate


def by_example(x: Array) -> Array:
    """Activations [B, ...], held to be split along their examples, as the batch is.

    Left to itself the compiler may as well follow the parameters, which `fsdp` splits along their
    width: it then gathers the examples of all devices on each. Outside of `within` nothing is held.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*BATCH, *rest))


def whole_rows(table: Array) -> Array:
    """A table [rows, D] to be looked up in, each row whole: `fsdp` splits them along D.

    From a table that is split the compiler would look up the rows of all devices on each.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return table
    return jax.lax.with_sharding_constraint(table, PartitionSpec(PartitionSpec.UNCONSTRAINED, None))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts `batch_sharding` splits a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH[0])


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_part(mesh: Mesh) -> tuple[int, int]:
    """Which contiguous part of every global batch this process supplies, and of how many.

    As many parts as there are processes where each has rows of its own. Processes that hold the
    same rows (a `tensor` axis that spans hosts) supply the same part, all of it if need be.

    Returns:
      (index, count), for `global_batch`.
    """
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    held: dict[int, set[int]] = {}
    for device, index in batch_sharding(mesh).devices_indices_map((rows,)).items():
        held.setdefault(device.process_index, set()).add(index[0].start or 0)
    for count in range(rows, 0, -1):
        parts = {
            process: {row * count // rows for row in theirs} for process, theirs in held.items()
        }
        if rows % count == 0 and all(len(part) == 1 for part in parts.values()):
            break
    return parts[jax.process_index()].pop(), count


def global_batch(local: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Joins the parts of all processes into global arrays split along their first axis.

    Args:
      local: this process's part of it, see `batch_part`: rows [b, ...] of [b x count, ...].
    """
    index, count = batch_part(mesh)
    return {name: _joined(part, index, count, batch_sharding(mesh)) for name, part in local.items()}


def _joined(part: np.ndarray, index: int, count: int, where: NamedSharding) -> jax.Array:
    shape, first = (len(part) * count, *part.shape[1:]), len(part) * index

    def rows(wanted: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = wanted[0].indices(shape[0])
        return part[start - first : stop - first]

    # The transfer that is meant; JAX takes it for an implicit one.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_callback(shape, where, rows)


def place(tree: Any, where: NamedSharding) -> Any:
    """Puts what every process holds whole onto the devices of all of them.

    Arrays that lie there already are taken as they are.
    """
    return jax.tree.map(lambda leaf: _placed(leaf, where), tree)


def _placed(leaf: Any, where: NamedSharding) -> jax.Array:
    # What no process holds whole is moved by JAX.
    if where.is_fully_addressable or (
        isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    ):
        return jax.device_put(leaf, where)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, where, whole.__getitem__)
