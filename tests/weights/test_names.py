"""What trainers put before the names of tensors."""

import numpy as np
import pytest

from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import export, files, params, safetensors_file
from fetalclip_jax.weights.names import without_prefixes
from tests.weights import drawn, torch_files
from tests.weights.conftest import one_device

NAMES = ("logit_scale", "visual.proj", "transformer.resblocks.0.ln_1.weight")


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "model.", "clip.", "state_dict.", "net."),
        *("module._orig_mod.", "_orig_mod.module.", "state_dict.module.", "model.clip._orig_mod."),
    ],
)
def test_what_all_names_begin_with_is_cut(prefix):
    found = without_prefixes({prefix + name: number for number, name in enumerate(NAMES)})
    assert found == {name: number for number, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    "name",
    [
        "visual._orig_mod.proj",
        "visual.module.proj",
        "model.visual._fsdp_wrapped_module._checkpoint_wrapped_module.proj",
    ],
)
def test_what_wraps_a_part_is_cut_within_a_name(name):
    scale = "model.logit_scale" if name.startswith("model.") else "logit_scale"
    assert without_prefixes({name: 1, scale: 2}) == {"visual.proj": 1, "logit_scale": 2}


@pytest.mark.parametrize(
    "names",
    [
        ("visual.proj", "visual.class_embedding"),  # a tower alone
        ("teacher.logit_scale", "student.logit_scale"),
        ("module.logit_scale", "logit_scale"),  # two would become one
    ],
)
def test_other_names_stay(names):
    entries = {name: number for number, name in enumerate(names)}
    assert without_prefixes(entries) == entries


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("style", ["open_clip", "transformers"])
def test_prefixed_weights_are_the_same_weights(tmp_path, weight_file, read_model, suffix, style):
    fields = drawn.fields("plain")
    config, weights = read_model(weight_file(), fields)
    tensors = export.to_tensors(weights, config, style)
    prefixed = {f"model._orig_mod.module.{name}": array for name, array in tensors.items()}
    path = tmp_path / f"prefixed{suffix}"
    if suffix == ".pt":
        content, storages = torch_files.state(prefixed)
        torch_files.save(path, {"state_dict": content, "global_step": 7}, storages)
    else:
        safetensors_file.save(path, prefixed)
    file = files.open_weights(path)
    assert file.style == style
    found = params.read_params(file, CLIPConfig.from_dict(fields), one_device())
    np.testing.assert_array_equal(found["visual"]["projection"], weights["visual"]["projection"])
