import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import state, step
from fetalclip_jax.training.optimizer import decay_mask, learning_rate_schedule, make_optimizer
from tests.tiny import TINY

OPTIMIZER = ConfigDict(
    {
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-6,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
    }
)


def run(mesh, steps=3, optimizer=None):
    model = CLIP(TINY)
    optimizer = optimizer or optax.sgd(0.1)
    _, shardings = state.abstract_state(model, optimizer, mesh, seed=0)
    current = state.create_state(model, optimizer, mesh, seed=0)
    train_step = step.make_train_step(model, optimizer, mesh, shardings)
    rng = np.random.default_rng(0)
    history = []
    for _ in range(steps):
        batch = {
            "image": rng.integers(0, 256, (16, 16, 16), dtype=np.uint8),
            "tokens": rng.integers(1, 50, (16, 10)).astype(np.int32),
            "caption_ids": (np.arange(16) // 2).astype(np.int32),
        }
        current, metrics = train_step(current, sharding.global_batch(batch, mesh))
        history.append(float(metrics["loss"]))
    return current, history


def test_any_mesh_takes_the_same_steps():
    one, losses = run(make_mesh(data=8))
    for shape in ({"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "fsdp": 8}):
        other, other_losses = run(make_mesh(**shape))
        np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_state_keeps_its_shardings():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    final, _ = run(mesh)
    kernel = final.params["visual"]["transformer"]["blocks"]["mlp_in"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    assert int(final.step) == 3


def test_the_logit_scale_stays_between_1_and_100():
    final, _ = run(make_mesh(), steps=1, optimizer=optax.sgd(-1e6))
    assert 0.0 <= float(final.params["logit_scale"]) <= np.log(100) + 1e-6


def test_weight_decay_spares_whatever_has_one_axis():
    towers = {
        name: dataclasses.replace(getattr(TINY, name), ls_init_value=0.1)
        for name in ("vision_cfg", "text_cfg")
    }
    model = CLIP(dataclasses.replace(TINY, **towers))
    boxed = jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0)))
    mask = jax.tree_util.tree_leaves_with_path(decay_mask(boxed))
    names = [(path[-2].key if hasattr(path[-1], "name") else path[-1].key, m) for path, m in mask]
    decayed = {name for name, decays in names if decays}
    spared = {name for name, decays in names if not decays}
    assert decayed == {"kernel", "projection", "positional_embedding", "token_embedding"}
    assert spared == {"bias", "scale", "ls_1", "ls_2", "class_embedding", "logit_scale"}


def test_schedule_warms_up_and_ends_at_zero():
    schedule = learning_rate_schedule(OPTIMIZER, 10)
    np.testing.assert_allclose(
        [schedule(0), schedule(1), schedule(2), schedule(10)], [0, 5e-3, 1e-2, 0], atol=1e-9
    )
    with pytest.raises(ValueError, match="warmup_steps=2 is not below"):
        learning_rate_schedule(OPTIMIZER, 2)


def test_gradients_are_clipped():
    optimizer = make_optimizer(OPTIMIZER, 10)
    params = {"kernel": jnp.zeros(4)}
    # AdamW's first update does not depend on the gradient's size, so look at its moments.
    _, after = optimizer.update({"kernel": jnp.full(4, 100.0)}, optimizer.init(params), params)
    moments = optax.tree.get(after, "mu")
    np.testing.assert_allclose(jnp.linalg.norm(moments["kernel"]), 0.1 * 1.0, rtol=1e-5)
