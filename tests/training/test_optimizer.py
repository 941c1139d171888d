import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from fetalclip_jax.config import default_config
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import objective, optimizer, state, step
from fetalclip_jax.training.parameter_table import layer_wise_decay
from tests.tiny import TINY

TOWERS = {
    name: dataclasses.replace(getattr(TINY, name), ls_init_value=0.1)
    for name in ("vision_cfg", "text_cfg")
}
MODEL = CLIP(dataclasses.replace(TINY, **TOWERS))


def settings(**changes) -> ConfigDict:
    config = default_config().optimizer
    with config.unlocked():
        config.update({"warmup_steps": 1, "learning_rate": 1.0, **changes})
    return config


@pytest.fixture(scope="module")
def params():
    init = jax.jit(lambda key: nn.meta.unbox(state.initial_params(MODEL, key)))
    return init(jax.random.key(0))


def updates(params, gradient=1.0, **changes):
    """The second update, the first with a learning rate, from gradients of one size."""
    rule = optimizer.make_optimizer(settings(clip_norm=np.inf, **changes), 10)
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)

    @jax.jit
    def both(params):
        _, opt_state = rule.update(grads, rule.init(params), params)
        return rule.update(grads, opt_state, params)

    return both(params)


def moved(change):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(np.abs(leaf).max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(change)
    }


def test_by_default_decay_spares_whatever_has_one_axis(params):
    # Adam's part is the same with and without decay; what differs is the decay.
    with_decay, _ = updates(params, weight_decay=0.1)
    without, _ = updates(params, weight_decay=0.0)
    moves = moved(jax.tree.map(jnp.subtract, with_decay, without))
    names = {name.rsplit("/", 1)[-1]: [] for name in moves}
    for name, size in moves.items():
        if "bias" in name or size > 0:
            names[name.rsplit("/", 1)[-1]].append(size)
    assert {n for n, sizes in names.items() if any(sizes)} == {
        *("kernel", "projection", "positional_embedding", "token_embedding")
    }
    assert {n for n, sizes in names.items() if not any(sizes)} == {
        *("bias", "scale", "ls_1", "ls_2", "class_embedding", "logit_scale")
    }


def test_it_is_adamw(params):
    adamw = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            optimizer.learning_rate_schedule(settings(), 10), b2=0.98, eps=1e-6, weight_decay=0.1
        ),
    )
    kernels = {"kernel": params["visual"]["patch_embedding"]["kernel"], "bias": jnp.zeros(3)}
    ours = optimizer.make_optimizer(settings(weight_decay_factors=()), 10)
    states = [rule.init(kernels) for rule in (adamw, ours)]
    for scale in (1.0, 0.3):
        grads = jax.tree.map(lambda leaf, s=scale: s * jnp.cos(leaf), kernels)
        found = [
            rule.update(grads, s, kernels) for rule, s in zip((adamw, ours), states, strict=True)
        ]
        jax.tree.map(np.testing.assert_array_equal, found[0][0], found[1][0])
        states = [s for _, s in found]


def test_a_locked_tower_does_not_move_and_has_no_moments(params):
    change, opt_state = updates(params, learning_rate_factors=(("visual/.*", 0.0),))
    moves = moved(change)
    assert all((size == 0) == name.startswith("visual/") for name, size in moves.items())
    sizes = [leaf.size for leaf in jax.tree.leaves(optax.tree.get(opt_state, "mu"))]
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(params | {"visual": {}}))


def test_layer_wise_decay_slows_each_block_by_the_factor(params):
    table = layer_wise_decay("visual", 3, 0.5)
    change, _ = updates(params, weight_decay=0.0, learning_rate_factors=table)
    visual = change["visual"]
    kernel = np.abs(visual["transformer"]["blocks"]["mlp_in"]["kernel"]).max(axis=(1, 2))
    whole = np.abs(change["text"]["projection"]).max()
    np.testing.assert_allclose(kernel / whole, [0.125, 0.25, 0.5], rtol=1e-5)
    shares = {name: size / float(whole) for name, size in moved(visual).items()}
    for name in ("projection", "ln_post/scale", "ln_post/bias"):
        assert shares[name] == pytest.approx(1.0)
    for name in ("class_embedding", "positional_embedding", "ln_pre/scale"):
        assert shares[name] == pytest.approx(0.0625)


def test_the_first_row_that_matches_decides(params):
    table = (("visual/transformer/blocks/2/.*", 1.0), ("(visual|text)/.*", 0.0))
    change, _ = updates(params, learning_rate_factors=table)
    kernel = np.abs(change["visual"]["transformer"]["blocks"]["mlp_in"]["kernel"])
    np.testing.assert_array_equal(kernel.max(axis=(1, 2)) > 0, [False, False, True])
    assert moved(change)["text/projection"] == 0
    assert moved(change)["logit_scale"] > 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((("visuals/.*", 0.0),), r"'visuals/\.\*' matches no parameter .* such as logit_scale"),
        ((("visual", 0.0),), "'visual' matches no parameter"),
        (((".*", 1.0), ("text/.*", 0.0)), r"'text/\.\*' matches no parameter that no earlier"),
        ((("visual/(", 0.0),), "'visual/\\(' is no regular expression"),
        ((("visual/.*", -1.0),), r"factor of 'visual/\.\*' is -1\.0; use 0 or above"),
        ((("visual/.*", float("nan")),), "is nan; use 0"),
        (("visual/.*", 0.0), "'visual/\\.\\*' is not a pair"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(params, table, message):
    with pytest.raises(ValueError, match=message):
        optimizer.make_optimizer(settings(learning_rate_factors=table), 10).init(params)
    with pytest.raises(ValueError, match=message):
        optimizer.make_optimizer(settings(weight_decay_factors=table), 10).init(params)


def test_a_locked_tower_costs_no_backward_pass():
    mesh = make_mesh()
    target = objective.create(default_config().loss, MODEL, mesh)
    image = np.zeros((8, 16, 16), np.uint8)
    tokens, ids = np.ones((8, 10), np.int32), np.arange(8, dtype=np.int32)
    batch = {"image": image, "tokens": tokens, "caption_ids": ids, "record": ids}

    def flops(table):
        config = settings(learning_rate_factors=table)
        rule = optimizer.make_optimizer(config, 10)
        abstract, shardings = state.abstract_state(MODEL, rule, mesh, seed=0)
        train_step = step.make_train_step(
            target,
            rule,
            mesh,
            shardings,
            seed=0,
            trained=lambda params: optimizer.trained(config, params),
        )
        lowered = train_step.lower(abstract, sharding.global_batch(batch, mesh))
        return lowered.cost_analysis()["flops"]

    assert flops((("visual/.*", 0.0),)) < 0.6 * flops(())


@pytest.mark.parametrize(("clip_norm", "norm"), [(1.0, 1.0), (float("inf"), 200.0)])
def test_gradients_are_clipped(clip_norm, norm):
    rule = optimizer.make_optimizer(settings(clip_norm=clip_norm), 10)
    params = {"kernel": jnp.zeros(4), "bias": jnp.zeros(0)}
    # AdamW's first update does not depend on the gradient's size, so look at its moments.
    _, after = rule.update(
        {"kernel": jnp.full(4, 100.0), "bias": jnp.zeros(0)}, rule.init(params), params
    )
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
        optimizer.make_optimizer(settings(**{name: value}), 10)
