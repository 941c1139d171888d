import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import AXES, make_mesh
from fetalclip_jax.training import grad_cache, objective, state, step
from tests.tiny import TINY

BATCH = 64
KEY = jax.random.key(0)
MODEL = CLIP(
    dataclasses.replace(
        TINY,
        vision_cfg=dataclasses.replace(TINY.vision_cfg, patch_dropout=0.5, layers=2),
        init_logit_bias=-2.0,
    )
)
LOSSES = {"softmax": objective.Contrastive, "sigmoid": objective.SigmoidContrastive}


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


@functools.cache
def params():
    return nn.meta.unbox(jax.jit(functools.partial(state.initial_params, MODEL))(KEY))


def value_and_grad(kind, mesh, micro_batches, **options):
    """Loss and gradients of one batch of CLIP whose patches are dropped at random."""
    target = LOSSES[kind](MODEL, {"mesh": mesh, **options})
    encode = grad_cache.encoder(target, micro_batches, mesh)

    def loss(params, batch):
        keys = step.example_keys(jax.random.key(0), jnp.int32(3), batch["record"])
        return target.compare(params, (), encode(params, (), batch, keys), jnp.int32(0))[0]

    _, shardings = state.abstract_state(MODEL, optax.identity(), mesh, seed=0)
    placed = jax.device_put(params(), shardings.params)
    return jax.jit(jax.value_and_grad(loss))(placed, sharding.global_batch(batch(), mesh))


@functools.cache
def plain(kind):
    return value_and_grad(kind, one_device(), 1)


@pytest.mark.parametrize(
    ("kind", "mesh", "micro_batches", "options"),
    [
        ("softmax", {"data": 8}, 8, {"block_size": 3, "exchange": "ring"}),
        ("softmax", {"data": 1, "tensor": 8}, 1, {}),
        ("sigmoid", {"data": 1, "fsdp": 8}, 2, {"block_size": 4}),
        ("sigmoid", {"data": 2, "fsdp": 2, "tensor": 2}, 4, {"exchange": "ring"}),
    ],
)
def test_value_and_gradients_do_not_depend_on_how_they_are_computed(
    kind, mesh, micro_batches, options
):
    loss, grads = plain(kind)
    other_loss, other_grads = value_and_grad(kind, make_mesh(**mesh), micro_batches, **options)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(other_grads), strict=True
    ):
        error = np.linalg.norm(np.subtract(a, b))
        assert error <= 1e-5 * np.linalg.norm(a), jax.tree_util.keystr(path)


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
    target = objective.Contrastive(MODEL)

    def temporaries(micro_batches):
        encode = grad_cache.encoder(target, micro_batches, mesh)

        def loss(params, batch):
            features = encode(params, (), batch, None)
            return target.compare(params, (), features, jnp.int32(0))[0]

        compiled = jax.jit(jax.grad(loss)).lower(params(), batch()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(8) < temporaries(1) / 3
