"""A weight file of every kind of tower, and the models read from it."""

import jax
import pytest

from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import files, params, safetensors_file
from tests.weights import drawn


def one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture
def weight_file(tmp_path):
    """Writes the drawn weights of a model under open_clip's names; gives the path."""

    def write(name: str = "plain", dtype="float32", vocab_size: int = 64):
        fields = drawn.fields(name)
        fields["text_cfg"]["vocab_size"] = vocab_size
        config = CLIPConfig.from_dict(fields)
        shapes = {p.name: p.file_shape for p in files.pieces("open_clip", config)}
        tensors = {k: v.astype(dtype) for k, v in drawn.weights(shapes).items()}
        path = tmp_path / f"{name}.safetensors"
        safetensors_file.save(path, tensors)
        return path

    return write


@pytest.fixture
def read_model():
    """Configuration and parameters of a weight file, on one device."""

    def read(path, fields):
        config = files.resolve_config(fields)
        return config, params.read_params(files.open_weights(path), config, one_device())

    return read
