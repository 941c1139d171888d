"""open_clip's models with random weights, and the same weights in this package."""

import pathlib
import tempfile

import jax
import open_clip
import torch

from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import files, params

# The published configuration, which is not among open_clip's own.
FETALCLIP = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
    "text_cfg": {
        "context_length": 117,
        "vocab_size": 49408,
        "width": 768,
        "heads": 12,
        "layers": 12,
    },
}


def fields(name: str) -> dict:
    """The model JSON of "FetalCLIP" or of one of open_clip's own names."""
    found = FETALCLIP if name == "FetalCLIP" else open_clip.get_model_config(name)
    if found is None:
        raise SystemExit(f"{name} is not FetalCLIP nor in {open_clip.list_models()}")
    return found


def model(model_fields: dict) -> torch.nn.Module:
    """open_clip's model, at its own random weights."""
    torch.manual_seed(0)
    made = open_clip.model.CLIP(**model_fields).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:  # biases are born zero and norms one: that hides mistakes
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def import_weights(reference: torch.nn.Module, config: CLIPConfig) -> dict:
    """The model's weights as parameters of this package, by way of a `.pt` file."""
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.pt"
        torch.save({"state_dict": reference.state_dict()}, path)
        return params.read_params(files.open_weights(path), config, where)
