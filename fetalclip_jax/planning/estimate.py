"""What a step will need, roughly and at once: to leave out what is hopeless before compiling."""

import copy
import dataclasses
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fetalclip_jax.config import build_model, images_per_example
from fetalclip_jax.models import flops, lora
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.models.transformer import REMAT_POLICIES
from fetalclip_jax.planning.chips import Chip
from fetalclip_jax.training import optimizer, state

# Forward passes beyond the first that a policy computes again: all of them, or attention's two
# products, whose share of a block's arithmetic is small.
_AGAIN = {"none": 0.0, "dots": 0.05, "full": 1.0}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes that a model's training takes, by what they grow with.

    Attributes:
      params: of all float32 parameters.
      trained: of those that are trained: all, or adapters.
      per_example: kept from the forward to the backward pass of one example, by policy.
    """

    params: int
    trained: int
    per_example: dict[str, int]


def sizes(config: ConfigDict) -> Sizes:
    """Traces both towers, for one example and for two: the difference is what an example adds."""
    model = build_model(config)
    params = nn.meta.unbox(jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0))))
    held = optimizer.left_as_it_is(model)
    leaves, structure = jax.tree.flatten(params)
    trained = jax.tree.leaves(optimizer.trained(config.optimizer, params, held))
    per_example = {}
    for policy in REMAT_POLICIES:
        tried = copy.deepcopy(config).unlock()
        tried.compute.remat = policy
        one, two = (_kept(tried, leaves, structure, trained, batch) for batch in (1, 2))
        per_example[policy] = two - one
    sizes = [leaf.size * 4 for leaf in leaves]
    total = sum(sizes), sum(itertools.compress(sizes, trained))
    return Sizes(*total, per_example)


def _kept(config: ConfigDict, leaves: list, structure: Any, trained: list[bool], batch: int) -> int:
    """Bytes between the forward and the backward pass."""
    model, side = build_model(config), config.model.vision_cfg.image_size
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((batch, config.model.text_cfg.context_length), jnp.int32)

    def backward(leaves, images, tokens):
        def encode(changing):
            of_trained = iter(changing)
            pairs = zip(leaves, trained, strict=True)
            params = structure.unflatten(
                next(of_trained) if is_trained else leaf for leaf, is_trained in pairs
            )
            return model.apply(lora.collections(model, params), images, tokens)[:2]

        return jax.vjp(encode, list(itertools.compress(leaves, trained)))[1]

    kept = jax.eval_shape(backward, leaves, images, tokens)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def memory(config: ConfigDict, found: Sizes, devices: int) -> int:
    """Bytes of each device, at the least: a step that needs more than it has is hopeless."""
    shards = config.mesh.fsdp * config.mesh.tensor
    parts = config.train.micro_batches
    local = config.train.global_batch_size * config.mesh.tensor // devices
    copies = 1 + (config.train.ema_decay > 0)
    # Two moments, gradients, and with parts of the batch their sum so far.
    of_trained = 2 + 1 + (parts > 1)
    activations = found.per_example[config.compute.remat]
    side = config.model.vision_cfg.image_size
    return (
        (copies * found.params + of_trained * found.trained) // shards
        + activations * math.ceil(local / parts) // config.mesh.tensor
        + local * side**2 * 3
    )


def seconds(config: ConfigDict, chip: Chip, found: Sizes, devices: int) -> float:
    """Least time of a step: arithmetic, what is computed again included, or what is sent."""
    parts, batch = config.train.micro_batches, config.train.global_batch_size
    model = CLIPConfig.from_dict(config.model.to_dict())
    images = images_per_example(config)
    pair = flops.of_training_pair(model, model.text_cfg.context_length, images)
    forwards = 3 + (parts > 1) + _AGAIN[config.compute.remat]
    compute = batch / devices * pair / 3 * forwards / (chip.tflops * 1e12)
    # bfloat16 gradients are summed for each part; split parameters are gathered in each pass.
    gradients, params = (size / 2 / config.mesh.tensor for size in (found.trained, found.params))
    whole = config.mesh.fsdp == 1
    sent = parts * (2 * gradients if whole else gradients + (forwards - 1) * params)
    links = sent / (chip.link_gbs * 1e9) if chip.link_gbs and devices > 1 else 0.0
    return max(compute, links)
