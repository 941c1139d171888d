import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import objective, state, step
from tests.tiny import TINY

LOSS = {
    "kind": "softmax",
    "block_size": 0,
    "exchange": "gather",
    "consistency_weight": 0.0,
    "consistency": "cosine",
}


def run(mesh, steps=3):
    """The state after a few steps of CLIP, and the losses."""
    model, optimizer = CLIP(TINY), optax.sgd(0.1)
    _, shardings = state.abstract_state(model, optimizer, mesh, seed=0)
    current = state.create_state(model, optimizer, mesh, seed=0)
    target = objective.create(LOSS, model, mesh)
    train_step = step.make_train_step(target, optimizer, mesh, shardings, seed=0)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        batch = {
            "image": rng.integers(0, 256, (16, 16, 16), dtype=np.uint8),
            "tokens": rng.integers(1, 50, (16, 10)).astype(np.int32),
            "caption_ids": (np.arange(16) // 2).astype(np.int32),
            "record": np.arange(16, dtype=np.int32),
        }
        current, metrics = train_step(current, sharding.global_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return current, losses


class Toy:
    """Pulls a weight towards the mean of the batch, plus its teacher's offset and noise."""

    frozen = {"offset": np.float32(3.0)}  # noqa: RUF012

    def encode(self, params, frozen, batch, keys):
        noise = jnp.zeros(8) if keys is None else jax.vmap(jax.random.uniform)(keys)
        return batch["x"] + frozen["offset"], noise

    def compare(self, params, frozen, features, step):
        targets, noise = features
        loss = (params["weight"] - targets.mean()) ** 2 - 10.0 * params["logit_scale"]
        return loss, {"noise": noise.mean(), "told_step": step}


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
    x = np.arange(8)
    batch = sharding.global_batch({"x": x.astype(np.float32), "record": x.astype(np.int32)}, mesh)
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


def test_no_device_computes_with_the_examples_of_another():
    # Parameters that are split along their width would have the compiler split activations so too.
    mesh, model, optimizer, batch = make_mesh(fsdp=8), CLIP(TINY), optax.sgd(0.1), 88
    abstract, shardings = state.abstract_state(model, optimizer, mesh, seed=0)
    target = objective.create(LOSS, model, mesh)
    compiled = step.make_train_step(target, optimizer, mesh, shardings, seed=0, micro_batches=1)

    def rows(dtype, *shape):
        where = sharding.batch_sharding(mesh)
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=where)

    inputs = {
        "image": rows(np.uint8, 16, 16),
        "tokens": rows(np.int32, 10),
        "caption_ids": rows(np.int32),
        "record": rows(np.int32),
    }
    program = compiled.lower(abstract, inputs).compile().as_text()
    # Of all examples there are features [88, D] and ids [88, 1], for the loss.
    assert re.findall(rf"\[{batch // 8},5,", program)
    assert not re.findall(rf"\[{batch},\d+,[\d,]+\]", program)


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


def test_a_step_whose_numbers_are_not_finite_changes_nothing():
    mesh, optimizer = make_mesh(), optax.adam(0.25)
    params = {"weight": jnp.float32(1.0), "logit_scale": jnp.float32(4.0)}
    ema = jax.tree.map(jnp.copy, params)
    current = state.TrainState(jnp.int32(0), params, ema, optimizer.init(params))
    current = jax.device_put(current, sharding.replicated(mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, current)
    train_step = step.make_train_step(Toy(), optimizer, mesh, shardings, seed=0, ema_decay=0.5)
    record = np.arange(8, dtype=np.int32)
    seen, skipped = [], []
    for bad in (None, np.nan, np.inf, None):
        x = np.arange(8, dtype=np.float32)
        x[3] = x[3] if bad is None else bad
        current, metrics = train_step(
            current, sharding.global_batch({"x": x, "record": record}, mesh)
        )
        seen.append(jax.device_get((current.params, current.ema, current.opt_state)))
        skipped.append(float(metrics["skipped"]))
    assert skipped == [0, 1, 1, 0]
    assert jax.tree.all(jax.tree.map(np.array_equal, seen[0], seen[2]))
    assert seen[3][0]["weight"] != seen[0][0]["weight"]
    assert int(current.step) == 4


def test_what_is_random_in_a_step_depends_on_the_seed_and_the_step():
    noise = [[h["noise"] for h in run_toy(2, seed)[1]] for seed in (0, 0, 1)]
    assert noise[0] == noise[1]
    assert len({*noise[0], *noise[2]}) == 4
