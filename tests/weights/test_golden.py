"""The same numbers as open_clip, from files that `benchmarks/parity.py --golden` wrote."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.losses import sigmoid_contrastive, softmax_contrastive
from fetalclip_jax.models.clip import CLIP, unit_length
from fetalclip_jax.weights import export
from fetalclip_jax.weights.positions import resize_image_positions, resize_text_positions
from tests.weights import drawn

GOLDEN = pathlib.Path(__file__).parent / "golden"


def off_by(ours, theirs) -> float:
    """Norm of the difference over the norm."""
    theirs = np.asarray(theirs, np.float64)
    return np.linalg.norm(np.asarray(ours, np.float64) - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("name", drawn.MODELS)
def test_features_and_gradients_are_those_of_open_clip(name, weight_file, read_model):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    fields = drawn.fields(name)
    config, weights = read_model(weight_file(name), fields)
    images, tokens = drawn.inputs(fields)
    model = CLIP(config)

    def loss(weights):
        image = model.apply({"params": weights}, images, method=CLIP.encode_image)
        text = model.apply(
            {"params": weights}, jnp.asarray(tokens, jnp.int32), method=CLIP.encode_text
        )
        unit, scale = (unit_length(image), unit_length(text)), jnp.exp(weights["logit_scale"])
        if "logit_bias" in weights:
            value, _ = sigmoid_contrastive(*unit, scale, weights["logit_bias"])
        else:
            value, _ = softmax_contrastive(*unit, scale)
        return value, (image, text)

    (_, (image, text)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights)
    assert off_by(image, golden["image_features"]) < 1e-5
    assert off_by(text, golden["text_features"]) < 1e-5
    tensors = export.to_tensors(jax.device_get(gradients), config, "open_clip")
    assert set(tensors) == set(golden["gradient_norms"])
    for tensor, gradient in tensors.items():
        norm = golden["gradient_norms"][tensor]
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=1e-4), tensor
        along = (gradient * drawn.probe_direction(tensor, gradient.shape)).sum()
        expected = golden["gradients_along_directions"][tensor]
        assert along == pytest.approx(expected, abs=3e-4 * norm), tensor


@pytest.mark.parametrize("key", ["image_smaller", "image_larger"])
def test_image_positions_are_resized_as_open_clip_does(key):
    golden = json.loads((GOLDEN / "positions.json").read_text())[key]
    resized = resize_image_positions(np.array(golden["table"], np.float32), len(golden["resized"]))
    assert off_by(resized, golden["resized"]) < 1e-6


def test_text_positions_are_resized_as_open_clip_does():
    golden = json.loads((GOLDEN / "positions.json").read_text())["text"]
    resized = resize_text_positions(np.array(golden["table"], np.float32), len(golden["resized"]))
    assert off_by(resized, golden["resized"]) < 1e-6
