"""Reading weights: what fits, what does not, and how much is read."""

import dataclasses
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec

from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.parallel import sharding
from fetalclip_jax.training import state
from fetalclip_jax.weights import files, params, safetensors_file
from tests.weights import drawn
from tests.weights.conftest import one_device

CONFIG = CLIPConfig.from_dict(drawn.fields("plain"))


def change(path, **changes):
    """Writes the tensors of a file again with some replaced (None: left out)."""
    tensors = {name: entry.read() for name, entry in safetensors_file.open_tensors(path).items()}
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    safetensors_file.save(path, tensors)
    return files.open_weights(path)


def test_everything_that_does_not_fit_is_listed_at_once(weight_file):
    file = change(
        weight_file(),
        visual__proj=None,
        ln_final__bias=np.zeros(31, np.float32),
        visual__head=np.zeros((2, 3), np.float32),
    )
    with pytest.raises(ValueError, match="does not fit the model") as caught:
        params.read_params(file, CONFIG, one_device())
    message = str(caught.value)
    assert "3 tensors" in message
    assert "missing: visual.proj [64, 24]" in message
    assert "unexpected: visual.head [2, 3]" in message
    assert "another shape: ln_final.bias is [31], the model's is [32]" in message


def test_the_nearest_preset_is_named():
    config = files.resolve_config("ViT-B-32")
    shapes = {p.name: p.file_shape for p in files.pieces("open_clip", config)}
    shapes.pop("visual.proj")
    # Only shapes are looked at.
    entries = {
        name: files.ArrayEntry(np.broadcast_to(np.float32(0), shape))
        for name, shape in shapes.items()
    }
    file = files.WeightFile(pathlib.Path("some.pt"), entries, "open_clip", None)
    with pytest.raises(
        ValueError, match=r"preset is 'ViT-B-32' or 'ViT-B-32-quickgelu' .*\n.*missing: visual.proj"
    ):
        params.check(file, file.pieces(config))


def test_a_preset_that_shares_next_to_nothing_is_not_named(weight_file):
    file = change(weight_file(), visual__proj=None)
    with pytest.raises(ValueError, match="no preset is near it: config must be"):
        params.read_params(file, CONFIG, one_device())


def test_values_that_are_not_finite_are_refused_and_counted(weight_file):
    bias = np.zeros(32, np.float32)
    bias[:3] = np.nan, np.inf, -np.inf
    path = weight_file()
    file = change(path, ln_final__bias=bias)
    with pytest.raises(ValueError, match=r"3 values in 1 tensors are NaN.*first in ln_final.bias"):
        params.read_params(file, CONFIG, one_device())
    # Every device asks for all of it; it is counted once.
    with pytest.raises(ValueError, match=f"{path.name}: 3 values"):
        params.read_params(file, CONFIG, sharding.replicated(meshes.make_mesh()))


def test_a_value_that_a_narrow_type_has_no_room_for_is_refused(weight_file):
    file = change(weight_file(), ln_final__bias=np.full(32, 1e5, np.float32))
    with pytest.raises(
        ValueError, match=r"32 values .* infinite as float16, the first in ln_final"
    ):
        params.read_params(file, CONFIG, one_device(), dtype="float16")
    found = params.read_params(file, CONFIG, one_device(), dtype="bfloat16")
    assert found["text"]["ln_final"]["bias"][0] == np.float32(1e5).astype(ml_dtypes.bfloat16)


def test_the_logit_scale_is_cast_to_float32_alone(weight_file):
    file = change(weight_file(), logit_scale=np.array(4.6051702, np.float32))
    found = params.read_params(file, CONFIG, one_device(), dtype="bfloat16")
    assert found["logit_scale"] == np.float32(4.6051702)
    assert found["visual"]["projection"].dtype == ml_dtypes.bfloat16


def test_a_scale_of_shape_one_is_the_scale(weight_file):
    plain = weight_file()
    expected = params.read_params(files.open_weights(plain), CONFIG, one_device())
    file = change(plain, logit_scale=np.full(1, 2.0, np.float32))
    found = params.read_params(file, CONFIG, one_device())
    np.testing.assert_array_equal(found["logit_scale"], expected["logit_scale"])


def test_a_bias_is_read_as_the_scale_is(weight_file):
    config = dataclasses.replace(CONFIG, init_logit_bias=-10.0)
    file = change(weight_file("sigmoid"), logit_bias=np.full(1, -9.7654321, np.float32))
    found = params.read_params(file, config, one_device(), dtype="bfloat16")
    assert found["logit_bias"] == np.float32(-9.7654321)
    assert found["logit_bias"].shape == ()


def test_a_bias_that_only_file_or_model_has_is_told(weight_file):
    config = dataclasses.replace(CONFIG, init_logit_bias=-10.0)
    with pytest.raises(ValueError, match=r"add init_logit_bias=-10.0 to .*\n.*unexpected: logit_b"):
        params.read_params(files.open_weights(weight_file("sigmoid")), CONFIG, one_device())
    with pytest.raises(ValueError, match=r"take init_logit_bias out .*\n.*missing: logit_bias"):
        params.read_params(files.open_weights(weight_file()), config, one_device())


def test_whole_numbers_are_no_weights(weight_file):
    file = change(weight_file(), ln_final__bias=np.zeros(32, np.int32))
    with pytest.raises(ValueError, match="weights are int32, expected floating point"):
        params.read_params(file, CONFIG, one_device())


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32"])
def test_data_types_are_kept_or_cast(weight_file, dtype):
    file = files.open_weights(weight_file(dtype=dtype))
    kept = params.read_params(file, CONFIG, one_device())
    cast = params.read_params(file, CONFIG, one_device(), dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {np.dtype(dtype)}
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(cast), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), b)


def test_sharded_parameters_are_the_same_and_each_part_is_read_once(weight_file):
    file = files.open_weights(weight_file())
    read = []

    @dataclasses.dataclass(frozen=True)
    class Counting:
        entry: object
        name: str

        def __getattr__(self, attribute):
            return getattr(self.entry, attribute)

        def read_slice(self, index):
            part = self.entry.read_slice(index)
            read.append((self.name, part.nbytes))
            return part

    counted = dataclasses.replace(
        file, entries={name: Counting(entry, name) for name, entry in file.entries.items()}
    )
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    boxed = jax.eval_shape(lambda: state.initial_params(CLIP(CONFIG), jax.random.key(0)))
    shardings = sharding.tree_shardings(boxed, mesh)
    sharded = params.read_params(counted, CONFIG, shardings)
    whole = params.read_params(file, CONFIG, one_device())
    for (path, leaf), expected in zip(
        jax.tree_util.tree_leaves_with_path(sharded), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_array_equal(leaf, expected, err_msg=jax.tree_util.keystr(path))
    # The kernels of the MLP are split four ways over eight devices.
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    sizes = [nbytes for read_name, nbytes in read if read_name == name]
    assert sizes == [64 * 256 * 4 // 4] * 4


def test_any_cut_of_any_parameter_is_that_part_of_it(weight_file):
    file = files.open_weights(weight_file())
    whole = traverse_util.flatten_dict(
        jax.device_get(params.read_params(file, CONFIG, one_device()))
    )
    mesh = meshes.make_mesh()
    for path, leaf in whole.items():
        for axis, size in enumerate(leaf.shape):
            if size % 8:
                continue
            spec = PartitionSpec(*[None] * axis, "data")
            shardings = dict.fromkeys(whole, NamedSharding(mesh, PartitionSpec()))
            shardings[path] = NamedSharding(mesh, spec)
            pieces = [piece for piece in file.pieces(CONFIG) if piece.path == path]
            found = params._read_leaf(pieces, file.entries, shardings[path], None, {})
            np.testing.assert_array_equal(found, leaf, err_msg=f"{path} {axis}")


@pytest.mark.parametrize("order", [(1, 0), (2, 1, 0), (0, 2, 1), (1, 2, 0), (0, 1, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_transposes_are_filled_in_whole(order, dtype):
    shape = (33, 50, 41)[: len(order)]
    part = np.random.default_rng(0).random(shape).astype(dtype).transpose(order)
    out = np.zeros(part.shape, dtype)
    params.fill(out, part)
    np.testing.assert_array_equal(out, part)


def test_positions_are_resized_only_on_request(weight_file):
    file = files.open_weights(weight_file())
    fields = drawn.fields("plain")
    fields["vision_cfg"]["image_size"] = 48
    fields["text_cfg"]["context_length"] = 20
    config = CLIPConfig.from_dict(fields)
    with pytest.raises(ValueError, match=r"positional_embedding is \[12, 32\].*\[20, 32\]"):
        params.read_params(file, config, one_device())
    resized = params.with_resized_positions(file, config)
    found = params.read_params(resized, config, one_device())
    assert found["visual"]["positional_embedding"].shape == (37, 64)
    before = file.entries["visual.positional_embedding"].read()
    np.testing.assert_array_equal(found["visual"]["positional_embedding"][0], before[0])
    np.testing.assert_allclose(
        found["text"]["positional_embedding"][0], file.entries["positional_embedding"].read()[0]
    )
