"""Against the numbers of the published model and against what XLA counts in the program itself."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from fetalclip_jax.models import flops, presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.training.state import initial_params

FETALCLIP = presets.get("FetalCLIP")


def test_a_pair_of_fetalclip_costs_what_is_published_of_it():
    image = flops.of_image(FETALCLIP.vision_cfg, FETALCLIP.embed_dim)
    text = flops.of_text(FETALCLIP.text_cfg, FETALCLIP.embed_dim, 117)
    assert image == pytest.approx(162.0e9, rel=2e-3)
    assert text == pytest.approx(20.4e9, rel=5e-3)
    assert flops.of_training_pair(FETALCLIP, 117) == pytest.approx(547.2e9, rel=2e-3)
    two_images = flops.of_training_pair(FETALCLIP, 117, images=2)
    assert two_images - flops.of_training_pair(FETALCLIP, 117) == 3 * image
    half = dataclasses.replace(FETALCLIP.vision_cfg, patch_dropout=0.5)
    assert flops.of_image(half, 768) == image
    assert 0.48 * image < flops.of_image(half, 768, training=True) < 0.52 * image


def counted(config, method, *shapes):
    """What XLA counts in one forward pass; the model is described, never made."""
    model = CLIP(config, scan_layers=False)  # of a loop it counts one turn
    params = nn.meta.unbox(jax.eval_shape(lambda: initial_params(model, jax.random.key(0))))
    run = jax.jit(lambda p, x: model.apply({"params": p}, x, method=method))
    return run.lower(params, *shapes).cost_analysis()["flops"]


@pytest.mark.parametrize("name", ["ViT-Mi-16-96-conv", "ViT-B-32"])
def test_xla_counts_as_much_in_the_image_tower(name):
    config = presets.get(name)
    # All tokens are read in the end, or the last block would leave most of its work out.
    config = dataclasses.replace(
        config, vision_cfg=dataclasses.replace(config.vision_cfg, pool_type="avg")
    )
    size = config.vision_cfg.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    found = counted(config, CLIP.encode_image, images)
    # XLA counts additions, activations and norms as well.
    assert 0.95 < flops.of_image(config.vision_cfg, config.embed_dim) / found < 1.0
