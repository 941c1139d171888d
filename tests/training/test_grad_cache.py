import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from fetalclip_jax.config import default_config
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import AXES, make_mesh
from fetalclip_jax.training import grad_cache, objective, state, step
from tests.tiny import TINY

BATCH = 64
LOSS = default_config().loss
KEY = jax.random.key(0)
VISION = dataclasses.replace(TINY.vision_cfg, patch_dropout=0.5, layers=2)
MODEL = CLIP(dataclasses.replace(TINY, vision_cfg=VISION))


def one_device():
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((1, 1, 1), AXES, axis_types=types, devices=jax.devices()[:1])


def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, 16, 16), dtype=np.uint8),
        "tokens": rng.integers(1, 50, (BATCH, 10)).astype(np.int32),
        "caption_ids": (np.arange(BATCH) // 2).astype(np.int32),
        "record": rng.permutation(BATCH).astype(np.int32),
    }


def value_and_grad(mesh, micro_batches):
    """Loss and gradients of one batch of CLIP whose patches are dropped at random."""
    target = objective.create(LOSS, MODEL, mesh)
    encode = grad_cache.encoder(target, micro_batches, mesh)
    params = nn.meta.unbox(jax.jit(functools.partial(state.initial_params, MODEL))(KEY))

    def loss(params, batch):
        keys = step.example_keys(0, jnp.int32(3), batch["record"])
        return target.compare(params, (), encode(params, (), batch, keys), jnp.int32(0))[0]

    params = jax.device_put(params, sharding.replicated(mesh))
    return jax.jit(jax.value_and_grad(loss))(params, sharding.global_batch(batch(), mesh))


@pytest.fixture(scope="module")
def plain():
    return value_and_grad(one_device(), 1)


@pytest.mark.parametrize(
    ("mesh", "micro_batches"),
    [
        ({"data": 8}, 8),
        ({"data": 1, "fsdp": 8}, 2),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 4),
    ],
)
def test_value_and_gradients_do_not_depend_on_devices_or_parts(plain, mesh, micro_batches):
    loss, grads = plain
    other_loss, other_grads = value_and_grad(make_mesh(**mesh), micro_batches)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(other_grads), strict=True
    ):
        error = np.linalg.norm(np.subtract(a, b)) / max(np.linalg.norm(a), 1e-6)
        assert error < 1e-5, jax.tree_util.keystr(path)


def test_parts_hold_the_rows_of_every_shard():
    """Eight shards of eight rows: a part has the rows of each, so none moves."""
    mesh = make_mesh()
    rows = sharding.global_batch({"row": np.arange(BATCH)}, mesh)["row"]
    cut = jax.jit(lambda x: grad_cache._cut(x, 8, 4, mesh))(rows)
    assert cut.shape == (4, 16)
    where = {shard.device: set(np.ravel(shard.data).tolist()) for shard in cut.addressable_shards}
    for shard in rows.addressable_shards:
        assert where[shard.device] == set(np.ravel(shard.data).tolist())
    joined = jax.jit(lambda x: grad_cache._joined(x, 8, mesh))(cut)
    np.testing.assert_array_equal(joined, np.arange(BATCH))


def test_activations_of_one_part_are_held_at_a_time():
    """What the backward pass keeps grows with the part, not with the batch."""
    mesh = one_device()
    target = objective.create(LOSS, MODEL, mesh)
    params = nn.meta.unbox(jax.eval_shape(functools.partial(state.initial_params, MODEL), KEY))

    def temporaries(micro_batches):
        encode = grad_cache.encoder(target, micro_batches, mesh)

        def loss(params, batch):
            features = encode(params, (), batch, None)
            return target.compare(params, (), features, jnp.int32(0))[0]

        compiled = jax.jit(jax.grad(loss)).lower(params, batch()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(8) < temporaries(1) / 3
