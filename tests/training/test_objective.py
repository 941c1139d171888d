"""Objectives by name, and what they hand to the losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.config import default_config
from fetalclip_jax.losses import sigmoid_contrastive, softmax_contrastive
from fetalclip_jax.models.clip import CLIP, unit_length
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import objective
from tests.tiny import TINY

WITH_BIAS = dataclasses.replace(TINY, init_logit_bias=-10.0)
CONFIG = {
    "kind": "softmax",
    "block_size": 0,
    "exchange": "gather",
    "consistency_weight": 0.0,
    "consistency": "cosine",
}


def compared(kind, **options):
    """Loss and metrics of fixed features, and what the losses themselves make of them."""
    model = CLIP(WITH_BIAS if kind == "sigmoid" else TINY)
    target = objective.create(CONFIG | {"kind": kind} | options, model, make_mesh())
    image, text = jax.random.normal(jax.random.key(0), (2, 16, 6))
    image, text, ids = unit_length(image), unit_length(text), jnp.arange(16) // 3
    params = {"logit_scale": jnp.float32(2.0), "logit_bias": jnp.float32(-4.0)}
    features = {"image": image, "text": text, "caption_ids": ids}
    found = jax.jit(target.compare)(params, target.frozen, features, 0)
    scale = jnp.exp(params["logit_scale"])
    if kind == "softmax":
        return found, softmax_contrastive(image, text, scale, caption_ids=ids)
    return found, sigmoid_contrastive(image, text, scale, jnp.float32(-4.0), caption_ids=ids)


@pytest.mark.parametrize("options", [{}, {"block_size": 3, "exchange": "ring"}])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_each_kind_is_its_loss_however_it_is_computed(kind, options):
    (loss, metrics), (expected, expected_metrics) = compared(kind, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics.items() >= expected_metrics.items()
    assert ("logit_bias" in metrics) == (kind == "sigmoid")


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_options_of_the_config_reach_the_loss(kind):
    model = CLIP(WITH_BIAS if kind == "sigmoid" else TINY)
    mesh = make_mesh()
    given = CONFIG | {"kind": kind, "block_size": 7, "exchange": "ring"}
    target = objective.create(given, model, mesh)
    assert target.options == {"block_size": 7, "exchange": "ring", "mesh": mesh}
    assert objective.create(default_config().loss, CLIP(TINY), mesh).options["block_size"] is None


@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        ({"kind": "hinge"}, TINY, r"config\.loss\.kind='hinge' is not one of softmax, sigmoid"),
        ({"exchange": "star"}, TINY, r"config\.loss\.exchange='star' is not one of gather, ring"),
        ({"block_size": -1}, TINY, r"config\.loss\.block_size=-1 is below 0"),
        ({"kind": "sigmoid"}, TINY, r"init_logit_bias is None; set it to -10\.0, .*2\.3026"),
        ({}, WITH_BIAS, r"'softmax' would leave the bias .*init_logit_bias=-10\.0 untrained"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, model, message):
    with pytest.raises(ValueError, match=message):
        objective.create(CONFIG | change, CLIP(model), make_mesh())
