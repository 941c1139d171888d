"""Leaving for other libraries and coming back."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fetalclip_jax.models import presets
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import export, files, params, safetensors_file, transformers_clip
from tests.weights import drawn
from tests.weights.conftest import one_device


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("style", "name"),
    [
        *(("open_clip", name) for name in drawn.MODELS),
        *(("transformers", name) for name in ("plain", "quick_gelu", "wide_heads")),
    ],
)
def test_what_is_exported_comes_back_bitwise(tmp_path, weight_file, read_model, style, name, dtype):
    config, weights = read_model(weight_file(name), drawn.fields(name))
    weights = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    for number in weights.keys() & {"logit_scale", "logit_bias"}:
        weights[number] = weights[number].astype("float32")
    export.export(tmp_path / "out", weights, config, style)
    file = files.open_weights(tmp_path / "out")
    assert file.style == style
    assert file.config == config
    back = params.read_params(file, config, one_device())
    assert jax.tree.structure(back) == jax.tree.structure(weights)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(weights), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("style", ["open_clip", "transformers"])
def test_what_is_not_finite_is_not_exported(tmp_path, weight_file, read_model, style):
    config, weights = read_model(weight_file(), drawn.fields("plain"))
    bias = weights["text"]["ln_final"]["bias"]
    weights["text"]["ln_final"]["bias"] = bias.at[3].set(1e5).astype("float16")
    with pytest.raises(
        ValueError, match=r"1 values in 1 tensors .* as float16, the first in .*final"
    ):
        export.export(tmp_path / "out", weights, config, style)
    assert not (tmp_path / "out").exists()


def test_the_logit_scale_and_bias_are_exported_as_float32(tmp_path, weight_file, read_model):
    config, weights = read_model(weight_file("sigmoid"), drawn.fields("sigmoid"))
    weights = jax.tree.map(lambda leaf: leaf.astype("float16"), weights)
    path = export.export(tmp_path / "out", weights, config)
    kinds = {name: str(e.dtype) for name, e in safetensors_file.open_tensors(path).items()}
    assert kinds.pop("logit_scale") == kinds.pop("logit_bias") == "float32"
    assert set(kinds.values()) == {"float16"}


def test_open_clip_gets_the_tensors_it_came_with(tmp_path, weight_file, read_model):
    path = weight_file()
    config, weights = read_model(path, drawn.fields("plain"))
    exported = export.export(tmp_path / "out", weights, config)
    before, after = (safetensors_file.open_tensors(p) for p in (path, exported))
    assert set(before) == set(after)
    for name, entry in before.items():
        np.testing.assert_array_equal(after[name].read(), entry.read(), err_msg=name)


@pytest.mark.parametrize(
    ("vision", "style", "named"),
    [
        ({"stem": "conv", "patch_size": 16, "image_size": 32}, "open_clip", "stem='conv'"),
        ({"pool_type": "grid"}, "open_clip", "pool_type='grid'"),
        ({"global_average_pool": True}, "open_clip", "global_average_pool=True"),
        ({"pool_type": "avg"}, "transformers", "pool_type='avg'"),
        ({"ls_init_value": 0.1}, "transformers", "ls_init_value=0.1"),
    ],
)
def test_a_model_without_counterpart_is_refused_and_nothing_written(tmp_path, vision, style, named):
    fields = drawn.fields("plain")
    fields["vision_cfg"] |= vision
    with pytest.raises(ValueError, match=named):
        export.export(tmp_path / "out", {}, CLIPConfig.from_dict(fields), style)
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_are_kept(tmp_path, weight_file, read_model):
    config, weights = read_model(weight_file(), drawn.fields("plain"))
    (tmp_path / "open_clip_config.json").write_text("mine")
    with pytest.raises(ValueError, match=r"open_clip_config\.json is there already"):
        export.export(tmp_path, weights, config)
    assert (tmp_path / "open_clip_config.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "siglip"}, "model_type is 'siglip'"),
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act='relu'"),
        ({"text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps=1e-06"),
        ({"text_config": {"hidden_act": "gelu"}}, "different values of hidden_act"),
        ({"text_config": {"eos_token_id": 5}}, "eos_token_id=5 is not the largest id, 49407"),
        ({"text_config_dict": {"hidden_size": 1024}}, "text_config_dict overrides"),
    ],
)
def test_a_clip_model_of_another_function_is_refused(change, named):
    fields = transformers_clip.config_json(presets.get("ViT-B-32-quickgelu"), "float32")
    for name, value in change.items():
        fields[name] = fields.get(name, {}) | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=named):
        transformers_clip.model_config(fields)


def test_transformers_defaults_are_those_of_its_format():
    # What CLIP ViT-B/32's own config.json leaves out.
    expected = dataclasses.replace(presets.get("ViT-B-32-quickgelu"), init_logit_scale=2.6592)
    assert transformers_clip.model_config({"model_type": "clip"}) == expected


@pytest.mark.parametrize(("width", "hidden"), [(352, 1568), (608, 1696), (1664, 8192)])
def test_hidden_widths_survive_as_ratios(width, hidden):
    fields = transformers_clip.config_json(presets.get("ViT-B-32"), "float32")
    fields["vision_config"] |= {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_attention_heads": width // 32,
    }
    vision = transformers_clip.model_config(fields).vision_cfg
    assert int(vision.width * vision.mlp_ratio) == hidden


def test_other_preprocessing_is_refused(tmp_path, weight_file, read_model):
    config, weights = read_model(weight_file(), drawn.fields("plain"))
    export.export(tmp_path, weights, config, "transformers")
    fields = json.loads((tmp_path / "preprocessor_config.json").read_text())
    fields["image_mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"preprocessor_config.json: image_mean=\[0.5, 0.5, 0.5\]"):
        files.open_weights(tmp_path)


def test_folders_that_hold_no_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither the checkpoints of a run .* nor weights"):
        files.open_weights(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps([1]))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds list, expected a mapping"):
        files.open_weights(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}})
    )
    with pytest.raises(ValueError, match=r"open_clip_config.json: mean=\[0.5, 0.5, 0.5\]"):
        files.open_weights(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(ValueError, match="embed_dim, vision_cfg and text_cfg are not all in it"):
        files.open_weights(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(drawn.fields("plain")))
    with pytest.raises(ValueError, match=r"open_clip_model.safetensors: not a readable"):
        files.open_weights(tmp_path)
