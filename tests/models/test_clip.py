import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.models import presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.vision import Convolution, drop_patches
from fetalclip_jax.training import state
from tests.tiny import TINY


def initial_params(config):
    # Compiled as a whole: operation by operation it takes many times as long.
    init = jax.jit(lambda key: state.initial_params(CLIP(config), key))
    return nn.meta.unbox(init(jax.random.key(0)))


def apply(model, params, *inputs, method=None):
    """`model.apply`, compiled as a whole."""
    return jax.jit(lambda p, *x: model.apply({"params": p}, *x, method=method))(params, *inputs)


@pytest.fixture(scope="module")
def params():
    params = initial_params(TINY)
    # At initialisation biases are zero and norms are one, which would hide a misplaced one.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def inputs():
    images = jax.random.normal(jax.random.key(2), (4, 16, 16, 3))
    tokens = jnp.array(
        [[1, 5, 49, 0, 0, 0, 0, 0, 0, 0], [1, 5, 7, 9, 49, 0, 0, 0, 0, 0]] * 2, jnp.int32
    )
    return images, tokens


def test_fetalclip_has_the_published_number_of_parameters():
    model = CLIP(presets.get("FetalCLIP"))
    abstract = nn.meta.unbox(jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0))))
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract))
    visual = sum(leaf.size for leaf in jax.tree.leaves(abstract["visual"]))
    assert count == 427_647_233
    assert visual == 303_966_208


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_presets_survive_a_round_trip_through_their_fields(name):
    config = presets.get(name)
    assert presets.CLIPConfig.from_dict(config.to_dict()) == config


def test_scanned_and_unrolled_layers_share_parameters_and_results(params, inputs):
    outputs = [apply(CLIP(TINY, scan_layers=scan), params, *inputs) for scan in (True, False)]
    for scanned, unrolled in zip(*outputs, strict=True):
        np.testing.assert_allclose(scanned, unrolled, atol=2e-6)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_no_gradient(params, inputs, remat):
    def loss(params, policy):
        image, text, scale = apply(CLIP(TINY, remat=policy), params, *inputs)
        return jnp.sum(scale * image @ text.T * jnp.arange(16.0).reshape(4, 4))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain = gradient(params, "none")
    again = gradient(params, remat)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_unknown_remat_policy_is_named(params, inputs):
    with pytest.raises(ValueError, match="'everything' is not one of none, dots, full"):
        apply(CLIP(TINY, remat="everything"), params, *inputs)


def test_text_after_the_end_changes_nothing(params, inputs):
    model, tokens = CLIP(TINY), inputs[1]
    whole = apply(model, params, tokens, method=CLIP.encode_text)
    cut = apply(model, params, tokens[:, :6], method=CLIP.encode_text)
    np.testing.assert_allclose(whole, cut, atol=1e-6)
    noisy = tokens.at[:, 7:].set(3)
    np.testing.assert_allclose(
        whole, apply(model, params, noisy, method=CLIP.encode_text), atol=1e-6
    )


def test_text_before_the_end_matters(params, inputs):
    model, tokens = CLIP(TINY), inputs[1]
    whole = apply(model, params, tokens, method=CLIP.encode_text)
    other = apply(model, params, tokens.at[:, 1].set(6), method=CLIP.encode_text)
    assert np.abs(whole - other).max() > 1e-3


def test_taps_leave_the_feature_alone(params, inputs):
    model, images = CLIP(TINY), inputs[0]
    features = apply(model, params, images, method=CLIP.encode_image)

    def tapped(params, images):
        return model.apply({"params": params}, images, taps=(1, 3), method=CLIP.encode_image)

    found, (early, last) = jax.jit(tapped)(params, images)
    np.testing.assert_allclose(found, features, atol=1e-5)
    assert early.shape == last.shape == (4, 5, 32)
    # The feature is read from the class token of the last block.
    norm, projection = params["visual"]["ln_post"], params["visual"]["projection"]
    token = jax.nn.standardize(last[:, 0], epsilon=1e-5) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(token @ projection, features, atol=1e-5)
    assert np.abs(early - last).max() > 0.1


def test_patch_order_matters(params, inputs):
    model, images = CLIP(TINY), inputs[0]
    features = apply(model, params, images, method=CLIP.encode_image)
    swapped = jnp.concatenate([images[:, 8:], images[:, :8]], axis=1)
    moved = apply(model, params, swapped, method=CLIP.encode_image)
    assert np.abs(features - moved).max() > 1e-3


def test_bfloat16_computes_close_to_float32_with_float32_outputs(params, inputs):
    exact = apply(CLIP(TINY), params, *inputs)
    rough = apply(CLIP(TINY, dtype=jnp.bfloat16), params, *inputs)
    for a, b in zip(exact[:2], rough[:2], strict=True):
        assert b.dtype == jnp.float32
        assert (a * b).sum(axis=-1).min() > 0.99


def test_quick_gelu_is_another_function(params, inputs):
    quick = dataclasses.replace(TINY, quick_gelu=True)
    exact = apply(CLIP(TINY), params, *inputs)[0]
    assert np.abs(exact - apply(CLIP(quick), params, *inputs)[0]).max() > 1e-4


def test_wrong_input_shapes_are_named(params):
    model = CLIP(TINY)
    with pytest.raises(ValueError, match=r"takes \[n, 16, 16, 3\]"):
        apply(model, params, jnp.zeros((1, 8, 8, 3)), method=CLIP.encode_image)
    with pytest.raises(ValueError, match="context_length is 10"):
        apply(model, params, jnp.zeros((1, 11), jnp.int32), method=CLIP.encode_text)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"vision_cfg": {"attentional_pool": True}}, "vision_cfg.attentional_pool=True"),
        ({"vision_cfg": {"no_ln_pre": True}}, "vision_cfg.no_ln_pre=True"),
        ({"vision_cfg": {"timm_model_name": "vit"}}, "vision_cfg.timm_model_name='vit'"),
        ({"text_cfg": {"pool_type": "last"}}, "text_cfg.pool_type='last'"),
        ({"text_cfg": {"qk_norm": True}}, "text_cfg.qk_norm=True"),
        ({"text_cfg": {"hf_model_name": "bert"}}, "text_cfg.hf_model_name='bert'"),
        ({"vision_cfg": {"layerz": 3}}, "vision_cfg.layerz=3"),
    ],
)
def test_unsupported_model_fields_are_errors_not_ignored(fields, named):
    with pytest.raises(ValueError, match=f"field {named} is not supported"):
        presets.CLIPConfig.from_dict(fields)


def test_fields_of_other_towers_are_accepted_where_they_are_off():
    fields = {
        "embed_dim": 512,
        "custom_text": True,
        "vision_cfg": {"patch_size": 32, "attentional_pool": False, "attn_pooler_heads": 8},
        "text_cfg": {"pool_type": "argmax", "pad_id": 0, "norm_kwargs": None},
    }
    assert presets.CLIPConfig.from_dict(fields) == presets.get("ViT-B-32")


def test_bad_model_numbers_are_named():
    with pytest.raises(ValueError, match=r"vision_cfg.patch_dropout=1.0"):
        presets.CLIPConfig.from_dict({"vision_cfg": {"patch_dropout": 1.0}})
    with pytest.raises(ValueError, match=r"vision_cfg=3 is not a mapping"):
        presets.CLIPConfig.from_dict({"vision_cfg": 3})
    # A ResNet of open_clip, and an oblong image.
    for vision in ({"layers": [3, 4, 6, 3]}, {"patch_size": None}, {"image_size": [224, 160]}):
        with pytest.raises(ValueError, match=f"vision_cfg.{next(iter(vision))}=.* not a positive"):
            presets.CLIPConfig.from_dict({"vision_cfg": vision})
    square = presets.CLIPConfig.from_dict({"vision_cfg": {"image_size": [224, 224]}})
    assert square == presets.CLIPConfig()
    with pytest.raises(ValueError, match=r"image_size=100 is not a multiple of patch_size=16"):
        presets.CLIPConfig.from_dict({"vision_cfg": {"image_size": 100}})
    for name, value in (("bias", "low"), ("bias", float("inf")), ("scale", None)):
        with pytest.raises(ValueError, match=f"init_logit_{name}={value!r} is not a finite number"):
            presets.CLIPConfig.from_dict({f"init_logit_{name}": value})
    with pytest.raises(ValueError, match="unknown model preset 'ViT-X'"):
        presets.get("ViT-X")


def with_vision(**changes):
    return dataclasses.replace(TINY, vision_cfg=dataclasses.replace(TINY.vision_cfg, **changes))


def test_patches_are_dropped_in_training_only(params, inputs):
    model = CLIP(with_vision(patch_dropout=0.5))
    whole = apply(CLIP(TINY), params, inputs[0], method=CLIP.encode_image)
    np.testing.assert_array_equal(whole, apply(model, params, inputs[0], method=CLIP.encode_image))
    dropped = [
        model.apply(
            {"params": params},
            inputs[0],
            keys=jax.random.split(jax.random.key(seed), len(inputs[0])),
            method=CLIP.encode_image,
        )
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert np.abs(dropped[0] - dropped[2]).max() > 1e-3
    assert np.abs(dropped[0] - whole).max() > 1e-3


def test_dropped_patches_leave_the_class_token_and_distinct_others():
    x = jnp.broadcast_to(jnp.arange(11.0)[None, :, None], (64, 11, 2))
    kept = np.asarray(drop_patches(x, jax.random.split(jax.random.key(0), 64), 0.7))[..., 0]
    assert kept.shape == (64, 4)
    assert (kept[:, 0] == 0).all()
    assert all(len(set(row)) == 4 for row in kept)
    # Every patch is as likely as any other, in each row anew.
    counts = np.bincount(kept[:, 1:].astype(int).ravel(), minlength=11)[1:]
    assert counts.min() > 8


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pool_type": "tok"}, lambda x, norm: norm(x[:, 0])),
        ({"pool_type": "avg"}, lambda x, norm: norm(x)[:, 1:].mean(axis=1)),
        ({"global_average_pool": True}, lambda x, norm: norm(x.mean(axis=1))),
    ],
)
def test_pooling_is_what_it_says(params, inputs, pooling, expected):
    model = CLIP(with_vision(**pooling))
    found, seen = model.apply(
        {"params": params},
        inputs[0],
        method=CLIP.encode_image,
        capture_intermediates=lambda module, _: module.name == "transformer",
    )
    (tokens,) = seen["intermediates"]["visual"]["transformer"]["__call__"]
    scale, bias = (params["visual"]["ln_post"][name] for name in ("scale", "bias"))

    def norm(x):
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return (x - x.mean(axis=-1, keepdims=True)) / deviation * scale + bias

    pooled = expected(np.asarray(tokens, np.float64), norm)
    np.testing.assert_allclose(found, pooled @ params["visual"]["projection"], atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_stems_convolution_is_a_convolution(stride):
    module = Convolution(5, stride, jnp.float32)
    images = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    params = nn.meta.unbox(module.init(jax.random.key(1), images))["params"]["taps"]
    params["bias"] = jnp.arange(5.0)
    expected = jax.lax.conv_general_dilated(
        images,
        params["kernel"].reshape(3, 3, 3, 5),
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    found = module.apply({"params": {"taps": params}}, images)
    np.testing.assert_allclose(found, expected + jnp.arange(5.0), atol=1e-5)


@pytest.mark.parametrize(("pool_type", "placed"), [("grid", True), ("avg", False)])
def test_only_the_grid_feature_tells_where_a_patch_lies(pool_type, placed):
    vision = dataclasses.replace(TINY.vision_cfg, pool_type=pool_type)
    model = CLIP(dataclasses.replace(TINY, vision_cfg=vision))
    params = initial_params(model.config)
    # Without positions, attention does not know the order of the patches either.
    params["visual"]["positional_embedding"] *= 0
    images = jax.random.normal(jax.random.key(2), (1, 16, 16, 3))
    swapped = jnp.concatenate([images[:, 8:], images[:, :8]], axis=1)
    features, moved = (apply(model, params, x, method=CLIP.encode_image) for x in (images, swapped))
    assert (np.abs(features - moved).max() > 1e-2) == placed


def test_embeddings_of_near_numbers_start_out_alike():
    text = dataclasses.replace(
        TINY.text_cfg, vocab_size=300, width=64, number_ids=((3, 90), (93, 90))
    )
    model = CLIP(dataclasses.replace(TINY, text_cfg=text))
    params = initial_params(model.config)
    table = params["text"]["token_embedding"]
    table /= jnp.linalg.norm(table, axis=1, keepdims=True)
    assert jnp.sum(table[13] * table[14]) > 0.8
    assert jnp.sum(table[13] * table[83]) < 0.5
    assert abs(jnp.sum(table[13] * table[103])) < 0.5  # the same number of the other run
    assert jnp.std(params["text"]["token_embedding"][:3]) == pytest.approx(0.02, rel=0.2)


def test_number_ids_outside_the_vocabulary_are_named():
    text = dataclasses.replace(TINY.text_cfg, number_ids=((3, 90),))
    model = CLIP(dataclasses.replace(TINY, text_cfg=text))
    with pytest.raises(ValueError, match=r"number_ids has \(3, 90\), text_cfg.vocab_size is 50"):
        state.initial_params(model, jax.random.key(0))


def test_a_logit_bias_is_a_parameter_where_the_model_has_one():
    with_bias = dataclasses.replace(TINY, init_logit_bias=-10)
    plain, other = (
        set(
            jax.eval_shape(functools.partial(state.initial_params, CLIP(config)), jax.random.key(0))
        )
        for config in (TINY, with_bias)
    )
    assert other - plain == {"logit_bias"}
    assert presets.CLIPConfig.from_dict(with_bias.to_dict()) == with_bias
