"""One optimisation step and one evaluation step, each a pure jitted function."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fetalclip_jax.losses import softmax_contrastive
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.models.vision import PATCH_DROPOUT
from fetalclip_jax.parallel import sharding
from fetalclip_jax.training.state import TrainState

# The logit scale is kept in [1, 100] as CLIP does: a larger one makes training unstable.
_MAX_LOG_SCALE = math.log(100.0)


def contrastive_loss(model: CLIP, params, batch: dict[str, jax.Array], rngs=None):
    """Loss and metrics of a global batch of uint8 `image`, `tokens` and `caption_ids`.

    Args:
      rngs: random streams of the model by name; None for its evaluation.
    """
    image_features, text_features, logit_scale = model.apply(
        {"params": params}, normalise(batch["image"]), batch["tokens"], rngs=rngs
    )
    return softmax_contrastive(
        image_features, text_features, logit_scale, caption_ids=batch["caption_ids"]
    )


def make_train_step(
    model: CLIP, optimizer: optax.GradientTransformation, mesh: Mesh, shardings: TrainState
) -> Callable:
    """Builds `(state, batch) -> (state, metrics)`; the state is donated.

    Args:
      shardings: the state's, from `state.abstract_state`.
    """

    def step(state: TrainState, batch):
        # A function of the step alone: a run that was resumed drops the same patches.
        rngs = {PATCH_DROPOUT: jax.random.fold_in(jax.random.key(0), state.step)}
        (loss, metrics), grads = jax.value_and_grad(
            lambda params: contrastive_loss(model, params, batch, rngs), has_aux=True
        )(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params["logit_scale"] = jnp.clip(params["logit_scale"], 0.0, _MAX_LOG_SCALE)
        metrics |= {
            "loss": loss,
            "logit_scale": jnp.exp(params["logit_scale"]),
            "gradient_norm": optax.tree.norm(grads),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(model: CLIP, mesh: Mesh, shardings: TrainState) -> Callable:
    """Builds `(params, batch) -> loss` on a held-out batch."""
    return jax.jit(
        lambda params, batch: contrastive_loss(model, params, batch)[0],
        in_shardings=(shardings.params, sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )
