"""What a step will need, roughly and at once: to leave out what is hopeless before compiling."""

import copy
import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fetalclip_jax.config import build_model
from fetalclip_jax.models import flops
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.models.transformer import REMAT_POLICIES
from fetalclip_jax.planning.chips import Chip
from fetalclip_jax.training import state

# Forward passes beyond the first that a policy computes again: all of them, or attention's two
# products, whose share of a block's arithmetic is small.
_AGAIN = {"none": 0.0, "dots": 0.05, "full": 1.0}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes that a model's training takes, by what they grow with.

    Attributes:
      params: of all float32 parameters.
      per_example: kept from the forward to the backward pass of one example, by policy.
      of_block: of one example in one block, nothing left out.
    """

    params: int
    per_example: dict[str, int]
    of_block: int


def sizes(config: ConfigDict) -> Sizes:
    """Traces both towers, for one example and for two: the difference is what an example adds."""
    model = build_model(config)
    params = nn.meta.unbox(jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0))))
    per_example = {}
    for policy in REMAT_POLICIES:
        tried = copy.deepcopy(config).unlock()
        tried.compute.remat = policy
        one, two = (_kept(tried, params, batch) for batch in (1, 2))
        per_example[policy] = two - one
    total = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    layers = config.model.vision_cfg.layers
    return Sizes(total, per_example, per_example["none"] // layers)


def _kept(config: ConfigDict, params: Any, batch: int) -> int:
    """Bytes between the forward and the backward pass."""
    model, side = build_model(config), config.model.vision_cfg.image_size
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((batch, config.model.text_cfg.context_length), jnp.int32)

    def backward(params, images, tokens):
        encode = functools.partial(_features, model, images=images, tokens=tokens)
        return jax.vjp(encode, params)[1]

    kept = jax.eval_shape(backward, params, images, tokens)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def _features(model, params, images, tokens):
    return model.apply({"params": params}, images, tokens)[:2]


def memory(config: ConfigDict, found: Sizes, devices: int) -> int:
    """Bytes of each device, at the least: a step that needs more than it has is hopeless."""
    shards = config.mesh.fsdp * config.mesh.tensor
    parts = config.train.micro_batches
    local = config.train.global_batch_size * config.mesh.tensor // devices
    state_copies = 3 + (config.train.ema_decay > 0)
    # Gradients, and with parts of the batch their sum so far.
    copies = state_copies + 1 + (parts > 1)
    activations = found.per_example[config.compute.remat] + found.of_block
    side = config.model.vision_cfg.image_size
    return (
        copies * found.params // shards
        + activations * math.ceil(local / parts) // config.mesh.tensor
        + local * side**2 * 3
    )


def seconds(config: ConfigDict, chip: Chip, found: Sizes, devices: int) -> float:
    """Least time of a step: arithmetic, what is computed again included, or what is sent."""
    parts, batch = config.train.micro_batches, config.train.global_batch_size
    model = CLIPConfig.from_dict(config.model.to_dict())
    pair = flops.of_training_pair(model, model.text_cfg.context_length)
    forwards = 3 + (parts > 1) + _AGAIN[config.compute.remat]
    compute = batch / devices * pair / 3 * forwards / (chip.tflops * 1e12)
    # bfloat16 gradients are summed for each part; split parameters are gathered in each pass.
    half = found.params / 2 / config.mesh.tensor
    sent = parts * half * (2 if config.mesh.fsdp == 1 else 1 + forwards - 1)
    links = sent / (chip.link_gbs * 1e9) if chip.link_gbs and devices > 1 else 0.0
    return max(compute, links)
