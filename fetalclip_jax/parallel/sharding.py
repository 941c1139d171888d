"""Which mesh axis each named array axis lies on."""

import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts `batch_sharding` splits a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH[0])


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def global_batch(local: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Joins the batches of all processes into global arrays split along their first axis."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in local.items()}
