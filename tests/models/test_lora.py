"""Low-rank adapters: what they are of, what they compute, and that merging them is the same."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fetalclip_jax.models import lora
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.lora import LoRA
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import state
from tests.tiny import TINY

# Two of three matrices in one, one block of three, and a projection outside of the blocks.
SETTINGS = LoRA(
    ("(visual|text)/.*/(query|value)", "visual/.*/2/mlp_out", "visual/patch_embedding"), 3, 6.0
)
ADAPTED = CLIP(TINY, lora=SETTINGS)
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
TOKENS = np.array([[1, 2, 3, 49, 0, 0, 0, 0, 0, 0], [4, 49, 0, 0, 0, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def fresh():
    init = jax.jit(lambda key: nn.meta.unbox(state.initial_params(ADAPTED, key)))
    return init(jax.random.key(0))


@pytest.fixture(scope="module")
def trained(fresh):
    """Adapters that do something: B is no longer zero."""
    noise = np.random.default_rng(1)
    changed = {
        path: jnp.asarray(noise.normal(size=leaf.shape), jnp.float32) if path[-1] == "b" else leaf
        for path, leaf in traverse_util.flatten_dict(fresh["lora"]).items()
    }
    return fresh | {"lora": traverse_util.unflatten_dict(changed)}


def features(model, params):
    apply = jax.jit(functools.partial(model.apply, lora.collections(model, params)))
    return apply(IMAGES, TOKENS)[:2]


def base(params):
    return {name: leaf for name, leaf in params.items() if name != "lora"}


@pytest.mark.parametrize("scan_layers", [True, False])
def test_the_first_step_has_the_features_of_the_base(fresh, scan_layers):
    plain = features(CLIP(TINY, scan_layers=scan_layers), base(fresh))
    adapted = features(ADAPTED.clone(scan_layers=scan_layers), fresh)
    jax.tree.map(np.testing.assert_array_equal, plain, adapted)


@pytest.mark.parametrize("options", [{}, {"scan_layers": False, "remat": "full"}])
def test_merged_they_are_the_same_model(trained, options):
    adapted = ADAPTED.clone(**options)
    model, params = lora.alone(adapted, trained)
    assert (model.lora, params.keys()) == (None, base(trained).keys())
    merged, unmerged = features(model, params), features(adapted, trained)
    for there, here, before in zip(merged, unmerged, features(model, base(trained)), strict=True):
        np.testing.assert_allclose(there, here, atol=1e-5)
        assert np.abs(np.asarray(here) - before).max() > 0.05


def test_merging_changes_the_targets_and_nothing_else(trained):
    _, params = lora.alone(ADAPTED, trained)
    before = traverse_util.flatten_dict(base(trained), sep="/")
    after = traverse_util.flatten_dict(params, sep="/")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    blocks = "visual/transformer/blocks"
    qkv = {f"{tower}/transformer/blocks/attention/qkv/kernel" for tower in ("visual", "text")}
    assert changed == qkv | {f"{blocks}/mlp_out/kernel", "visual/patch_embedding/kernel"}
    moved = [after[name] != before[name] for name in (min(qkv), f"{blocks}/mlp_out/kernel")]
    np.testing.assert_array_equal(moved[0].any(axis=(0, 1, 3, 4)), [True, False, True])
    np.testing.assert_array_equal(moved[1].any(axis=(1, 2)), [False, False, True])
    pair = trained["lora"]["visual"]["patch_embedding"]["kernel"]
    change = 6.0 / 3 * np.einsum("ijkr,ro->ijko", pair["a"], pair["b"])
    kernel = before["visual/patch_embedding/kernel"] + change
    np.testing.assert_allclose(after["visual/patch_embedding/kernel"], kernel, atol=1e-5)


def test_layers_that_are_no_target_have_no_gradient(trained):
    def total(adapters):
        variables = lora.collections(ADAPTED, trained | {"lora": adapters})
        return ADAPTED.apply(variables, IMAGES, TOKENS)[0][:, 0].sum()

    gradient = jax.jit(jax.grad(total))(trained["lora"])["visual"]["transformer"]["blocks"]
    for factor in gradient["mlp_out"]["kernel"].values():
        np.testing.assert_array_equal(np.abs(factor).max(axis=(1, 2)) > 0, [False, False, True])
    assert all(
        np.abs(leaf).min(axis=0).max() > 0 for leaf in jax.tree.leaves(gradient["attention"])
    )


def test_adapters_lie_on_the_mesh_as_their_projection_does():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    model = CLIP(TINY, lora=LoRA(("visual/.*",), 2, 2.0))
    boxed = jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0)))
    where = sharding.tree_shardings(boxed, mesh)["lora"]["visual"]["transformer"]["blocks"]
    specs = jax.tree.map(lambda one: tuple(one.spec), where)
    assert specs["attention"]["qkv"]["key"] == {
        "a": (None, "fsdp", None),
        "b": (None, None, "tensor", None),
    }
    assert specs["attention"]["out"]["kernel"]["a"] == (None, "tensor", None, None)
    assert specs["mlp_out"]["kernel"] == {"a": (None, "tensor", None), "b": (None, None, "fsdp")}


def test_another_target_does_not_change_what_the_first_starts_from(fresh):
    model = CLIP(TINY, lora=LoRA(("visual/.*/value", ".*/mlp_in"), 3, 6.0))
    init = jax.jit(lambda key: nn.meta.unbox(state.initial_params(model, key)))
    value, before = (
        params["lora"]["visual"]["transformer"]["blocks"]["attention"]["qkv"]["value"]["a"]
        for params in (init(jax.random.key(5)), fresh)
    )
    np.testing.assert_array_equal(value, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            (("visual/.*/quary",), 2),
            r"'visual/\.\*/quary' matches no projection; there are visual/",
        ),
        ((("visual/projection",), 2), "matches no projection"),
        (((".*", "text/.*/5/mlp_in"), 2), r"5/mlp_in' .*text/transformer/blocks/N/mlp_in"),
        (((".*/ln_1/scale",), 2), "matches no projection"),
        (((".*/value",), 17), "rank=17 is above the sizes of text/.*0/attention/value, 16 x 16;"),
    ],
)
def test_adapters_without_a_place_are_refused(settings, message):
    model = CLIP(TINY, lora=LoRA(*settings, alpha=1.0))
    with pytest.raises(ValueError, match=message) as error:
        jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((".*",), 0, 1.0), r"config\.lora\.rank=0 must be at least 1"),
        (((".*",), 2, 0.0), r"config\.lora\.alpha=0\.0 is not a number above 0"),
        (((".*",), 2, float("inf")), "alpha=inf"),
        ((("visual/(",), 2, 1.0), r"'visual/\(' is no regular expression"),
        (((3,), 2, 1.0), r"targets=\(3,\) is no tuple of patterns"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message, unchecked):
    with pytest.raises(ValueError, match=message):
        LoRA(*settings)
