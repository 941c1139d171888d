"""The gradient cache: a global batch of any size, encoded some examples at a time, exactly.

A contrastive loss needs the features of the whole batch, but no example's activations need those
of another. The batch is cut into micro-batches that are encoded one after the other, keeping the
features alone; the loss compares all of them; its gradient then passes back through one micro-batch
at a time, whose activations are computed again (Gao et al. 2021, "Scaling Deep Contrastive Learning
Batch Size under Memory Limited Setup"). In JAX that is a scan over a rematerialised encoder: value
and gradients are those of the whole batch, at the cost of one more forward pass.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fetalclip_jax.parallel import sharding
from fetalclip_jax.training.objective import Objective


def encoder(objective: Objective, micro_batches: int, mesh: Mesh) -> Callable[..., Any]:
    """`objective.encode` that holds the activations of one of `micro_batches` parts at a time.

    Each part has as many examples of every device as of any other, so no example moves.

    Args:
      micro_batches: parts of the global batch; 1 encodes it whole.
      mesh: of the batch; its size must divide by the shards of the batch times `micro_batches`.
    """
    if micro_batches == 1:
        return objective.encode
    shards = sharding.batch_shards(mesh)

    def encode(params, frozen, batch, keys):
        def one(_, part):
            return None, jax.checkpoint(objective.encode)(params, frozen, *part)

        parts = jax.tree.map(lambda x: _cut(x, shards, micro_batches, mesh), (batch, keys))
        _, features = jax.lax.scan(one, None, parts)
        return jax.tree.map(lambda x: _joined(x, shards, mesh), features)

    return encode


def _cut(x: jax.Array, shards: int, micro_batches: int, mesh: Mesh) -> jax.Array:
    """[B, ...] to [micro_batches, B / micro_batches, ...]: of each shard's rows a part in each."""
    x = x.reshape(shards, micro_batches, -1, *x.shape[1:]).swapaxes(0, 1)  # k S b ...
    x = x.reshape(micro_batches, -1, *x.shape[3:])  # k S*b ...
    return jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(None, *sharding.BATCH))
    )


def _joined(x: jax.Array, shards: int, mesh: Mesh) -> jax.Array:
    """The inverse of `_cut`."""
    x = x.reshape(len(x), shards, -1, *x.shape[2:]).swapaxes(0, 1)  # S k b ...
    x = x.reshape(-1, *x.shape[3:])  # B ...
    return jax.lax.with_sharding_constraint(x, sharding.batch_sharding(mesh))
