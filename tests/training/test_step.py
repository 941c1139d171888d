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
from fetalclip_jax.training import objective, state, step
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


def run(mesh, steps=3):
    """The state after a few steps of CLIP, and the losses."""
    model, optimizer = CLIP(TINY), optax.sgd(0.1)
    _, shardings = state.abstract_state(model, optimizer, mesh, seed=0)
    current = state.create_state(model, optimizer, mesh, seed=0)
    target = objective.create("softmax", model)
    train_step = step.make_train_step(target, optimizer, mesh, shardings, seed=0)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        batch = {
            "image": rng.integers(0, 256, (16, 16, 16), dtype=np.uint8),
            "tokens": rng.integers(1, 50, (16, 10)).astype(np.int32),
            "caption_ids": (np.arange(16) // 2).astype(np.int32),
        }
        current, metrics = train_step(current, sharding.global_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return current, losses


class Toy:
    """Pulls a weight towards the mean of the batch, plus its teacher's offset and noise."""

    frozen = {"offset": np.float32(3.0)}  # noqa: RUF012

    def encode(self, params, frozen, batch, rngs):
        noise = jax.random.uniform(rngs["patch_dropout"]) if rngs else 0.0
        return batch["x"] + frozen["offset"], noise

    def compare(self, params, frozen, features, step):
        targets, noise = features
        loss = (params["weight"] - targets.mean()) ** 2 - 10.0 * params["logit_scale"]
        return loss, {"noise": noise, "told_step": step}


def toy(seed=0, ema_decay=0.0):
    """A step, the state before it and the mesh of both."""
    mesh, optimizer = make_mesh(), optax.sgd(0.25)
    params = {"weight": jnp.float32(1.0), "logit_scale": jnp.float32(4.0)}
    current = state.TrainState(
        step=jnp.int32(0),
        params=params,
        ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
        opt_state=optimizer.init(params),
    )
    current = jax.device_put(current, sharding.replicated(mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, current)
    train_step = step.make_train_step(
        Toy(), optimizer, mesh, shardings, seed=seed, ema_decay=ema_decay
    )
    return train_step, current, mesh


def run_toy(steps=3, seed=0, ema_decay=0.0):
    """The last state, and the metrics and weight of each step."""
    train_step, current, mesh = toy(seed, ema_decay)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, current)
    batch = sharding.global_batch({"x": np.arange(8, dtype=np.float32)}, mesh)
    eval_step = step.make_eval_step(Toy(), mesh, shardings)
    history = []
    for _ in range(steps):
        before = float(eval_step(current.params, current.step, batch))
        current, metrics = train_step(current, batch)
        weight = float(current.params["weight"])
        history.append({k: float(v) for k, v in metrics.items()} | {"weight": weight})
        assert history[-1]["loss"] == before  # it is judged by the same loss
    return current, history


def test_a_step_minimises_what_the_objective_compares():
    final, history = run_toy()
    # Half the way to 3.5 + 3 at each step.
    np.testing.assert_allclose([h["weight"] for h in history], [3.75, 5.125, 5.8125])
    assert [h["told_step"] for h in history] == [0, 1, 2]
    assert int(final.step) == 3


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


def test_the_logit_scale_stays_at_100_or_below():
    final, history = run_toy()
    np.testing.assert_allclose(final.params["logit_scale"], np.log(100), rtol=1e-6)
    np.testing.assert_allclose(history[0]["logit_scale"], 100.0, rtol=1e-5)


def test_the_average_follows_the_weight_from_its_first_steps_on():
    final, history = run_toy(ema_decay=0.25)
    expected = 1.0
    # The ramp (1 + step) / (10 + step) reaches 0.25 at the third step.
    for decay, now in zip((0.1, 2 / 11, 0.25), history, strict=True):
        expected = decay * expected + (1 - decay) * now["weight"]
    np.testing.assert_allclose(final.ema["weight"], expected, rtol=1e-6)


def test_what_is_random_in_a_step_depends_on_the_seed_and_the_step():
    noise = [[h["noise"] for h in run_toy(2, seed)[1]] for seed in (0, 0, 1)]
    assert noise[0] == noise[1]
    assert len({*noise[0], *noise[2]}) == 4


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


@pytest.mark.parametrize(("clip_norm", "norm"), [(1.0, 1.0), (float("inf"), 200.0)])
def test_gradients_are_clipped(clip_norm, norm):
    config = ConfigDict(OPTIMIZER.to_dict() | {"clip_norm": clip_norm})
    optimizer = make_optimizer(config, 10)
    params = {"kernel": jnp.zeros(4)}
    # AdamW's first update does not depend on the gradient's size, so look at its moments.
    _, after = optimizer.update({"kernel": jnp.full(4, 100.0)}, optimizer.init(params), params)
    moments = optax.tree.get(after, "mu")
    np.testing.assert_allclose(jnp.linalg.norm(moments["kernel"]), 0.1 * norm, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", 0.0, "learning_rate=0.0 is not a number above 0"),
        ("learning_rate", float("nan"), "learning_rate=nan"),
        ("learning_rate", float("inf"), "learning_rate=inf"),
        ("warmup_steps", -1, "warmup_steps=-1 is not a number 0 or above"),
        ("beta1", 1.0, "beta1=1.0 is not a number from 0 to below 1"),
        ("beta2", -0.1, r"beta2=-0\.1"),
        ("eps", 0.0, "eps=0.0"),
        ("weight_decay", -0.1, r"weight_decay=-0\.1"),
        ("clip_norm", 0.0, "clip_norm=0.0 would leave nothing .* inf for no clipping"),
        ("clip_norm", float("nan"), "clip_norm=nan"),
    ],
)
def test_numbers_that_cannot_work_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(ConfigDict(OPTIMIZER.to_dict() | {name: value}), 10)


def test_objectives_are_known_by_name():
    with pytest.raises(ValueError, match=r"config\.loss\.kind='hinge' is not one of softmax"):
        objective.create("hinge", CLIP(TINY))


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    train_step, current, mesh = toy(ema_decay=0.25)

    def took(current, *first):
        x = np.array([*first, *(7 * [1.0])], np.float32)
        current, metrics = train_step(current, sharding.global_batch({"x": x}, mesh))
        return current, float(metrics["skipped"])

    current, skipped = took(current, 1.0)
    assert skipped == 0.0
    for number, bad in enumerate((np.nan, np.inf), start=2):
        before = jax.device_get(current)
        current, skipped = took(current, bad)
        assert skipped == 1.0
        assert int(current.step) == number
        assert jax.device_get((current.params, current.ema)) == (before.params, before.ema)
    current, skipped = took(current, 1.0)
    assert skipped == 0.0
    assert current.params["weight"] != before.params["weight"]
