"""Configurations beside weights, and what the weights say of themselves."""

import json
import shutil

import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import export, files, params, safetensors_file
from tests.weights import drawn
from tests.weights.conftest import one_device


def quick_fields():
    return drawn.fields("plain") | {"quick_gelu": True}


@pytest.fixture
def export_quick(tmp_path, weight_file, read_model):
    """Writes a quick_gelu model as a folder of a style; gives the folder."""

    def write(style):
        config, weights = read_model(weight_file(), quick_fields())
        return export.export(tmp_path / "out", weights, config, style).parent

    return write


@pytest.mark.parametrize(
    ("style", "json_name"),
    [("open_clip", "open_clip_config.json"), ("transformers", "config.json")],
)
def test_a_file_is_what_the_json_beside_it_says(export_quick, style, json_name):
    folder = export_quick(style)
    (path,) = folder.glob("*.safetensors")
    file = files.open_weights(path)
    assert file.described_by == folder / json_name
    assert file.config == files.open_weights(folder).config
    assert file.config.quick_gelu
    with pytest.raises(ValueError, match=f"{json_name} describes .*quick_gelu: True there, False"):
        fetalclip_jax.load(path, drawn.fields("plain"))


@pytest.mark.parametrize(
    ("weights", "beside"),
    [
        ("lab", "lab.json"),
        ("lab_weights", "lab_weights.json"),
        ("FetalCLIP_weights", "FetalCLIP_config.json"),
    ],
)
def test_a_json_of_the_weights_name_describes_them(tmp_path, weight_file, weights, beside):
    path = tmp_path / f"{weights}.safetensors"
    shutil.copy(weight_file(), path)
    assert files.open_weights(path).config is None
    (tmp_path / beside).write_text(json.dumps(quick_fields()))
    assert files.open_weights(path).config == CLIPConfig.from_dict(quick_fields())


def test_a_config_json_of_something_else_is_passed_over(tmp_path, weight_file):
    path = weight_file()
    for other in ({"seed": 0, "model": {}}, {"model_type": "bert"}, {}):
        (path.parent / "config.json").write_text(json.dumps(other))
        assert files.open_weights(path).config is None
    (path.parent / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: cannot read it as JSON .* move it away"):
        files.open_weights(path)


def test_an_unsupported_model_beside_a_file_is_refused(weight_file):
    path = weight_file()
    fields = drawn.fields("plain") | {"multimodal_cfg": {"layers": 2}}
    (path.parent / "open_clip_config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"open_clip_config.json: .*multimodal_cfg="):
        files.open_weights(path)


def test_of_two_descriptions_that_of_the_weights_own_library_counts(export_quick):
    folder = export_quick("transformers")
    (folder / "open_clip_config.json").write_text(json.dumps(drawn.fields("plain")))
    assert files.open_weights(folder / "model.safetensors").config.quick_gelu


def test_openais_marks_mean_quick_gelu(weight_file):
    path = weight_file()
    tensors = {name: e.read() for name, e in safetensors_file.open_tensors(path).items()}
    for name, value in (("input_resolution", 24), ("context_length", 12), ("vocab_size", 64)):
        tensors[name] = np.array(value)
    safetensors_file.save(path, tensors)
    file = files.open_weights(path)
    with pytest.raises(ValueError, match=r"OpenAI's own.*quick_gelu=False: take the preset whose"):
        params.read_params(file, CLIPConfig.from_dict(drawn.fields("plain")), one_device())
    params.read_params(file, CLIPConfig.from_dict(quick_fields()), one_device())
