"""One step of many decoders, as one program: `heads.unetr` calls it again and again."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float16, UInt8

from fetalclip_jax.losses.dice import DiceSums, dice_loss, dice_sums
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.models.unetr import UNETRDecoder

# `pixels`, `tokens` and `masks` as `heads.unetr.Dense` has them, after an axis of runs.
Batch = dict[str, Array]


def initial_state(variables: Sequence[dict]) -> dict[str, Any]:
    """Parameters, running statistics, optimiser, and the best so far, of every run."""
    variables = jax.tree.map(lambda *arrays: jnp.stack(arrays), *variables)
    return {
        "variables": variables,
        "optimiser": jax.vmap(optax.scale_by_adam().init)(variables["params"]),
        "best": jax.tree.map(jnp.zeros_like, variables),
    }


def _inputs(pixels, tokens, decoder):
    """Images as the tower takes them, and the tokens of each block: [b, 4, G, G, W] -> four."""
    tokens = jnp.moveaxis(tokens, 1, 0).astype(decoder.dtype)
    return normalise(pixels), tuple(tokens)


@functools.partial(jax.jit, static_argnames="decoder", donate_argnames="state")
def train_step(
    state: dict[str, Any],
    batch: Batch,
    rates: Float[Array | np.ndarray, "runs"],
    active: Bool[Array | np.ndarray, "runs"],
    weight_decay: Float[Array, ""] | float,
    *,
    decoder: UNETRDecoder,
) -> tuple[dict[str, Any], Float[Array, "runs"]]:
    """One AdamW step of every run that is active.

    Returns:
      The state, and the loss of each run before the step, 0 where it rests.
    """

    def one_run(variables, optimiser, batch, rate, active):
        def loss_of(params):
            logits, updates = decoder.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                *_inputs(batch["pixels"], batch["tokens"], decoder),
                train=True,
                mutable="batch_stats",
            )
            return dice_loss(logits, batch["masks"]), updates

        (loss, updates), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        directions, moments = optax.scale_by_adam().update(gradients, optimiser)
        params = jax.tree.map(
            lambda parameter, direction: parameter - rate * (direction + weight_decay * parameter),
            variables["params"],
            directions,
        )
        new = {"params": params, **updates}, moments
        kept = jax.tree.map(lambda n, o: jnp.where(active, n, o), new, (variables, optimiser))
        return *kept, jnp.where(active, loss, 0)

    variables, optimiser, loss = jax.vmap(one_run)(
        state["variables"], state["optimiser"], batch, rates, active
    )
    return state | {"variables": variables, "optimiser": optimiser}, loss


@functools.partial(jax.jit, static_argnames="decoder")
def validation_sums(
    variables: dict[str, Any],
    batch: Batch,
    real: Float[Array | np.ndarray, "runs b"],
    *,
    decoder: UNETRDecoder,
) -> DiceSums:
    """Sums [runs, classes] of a batch; `real` is 1 for images that count, else 0."""

    def one_run(variables, batch, real):
        inputs = _inputs(batch["pixels"], batch["tokens"], decoder)
        return dice_sums(decoder.apply(variables, *inputs), batch["masks"], real)

    return jax.vmap(one_run)(variables, batch, real)


@functools.partial(jax.jit, donate_argnames="state")
def keep_better(state: dict[str, Any], better: Bool[Array | np.ndarray, "runs"]) -> dict[str, Any]:
    """What runs that got better have now becomes their best."""

    def chosen(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return state | {"best": jax.tree.map(chosen, state["variables"], state["best"])}


@functools.partial(jax.jit, static_argnames="decoder")
def probabilities(
    variables: dict[str, Any],
    pixels: UInt8[Array, "b S S"] | UInt8[Array, "b S S 3"],
    tokens: Float16[Array, "b 4 G G W"],
    *,
    decoder: UNETRDecoder,
) -> Float[Array, "runs b S S classes"]:
    """What every run makes of the same images."""
    inputs = _inputs(pixels, tokens, decoder)
    return jax.vmap(lambda one: jax.nn.sigmoid(decoder.apply(one, *inputs)))(variables)
