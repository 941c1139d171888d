"""One optimisation step and one evaluation step of any objective, each a pure jitted function."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from fetalclip_jax.models.vision import PATCH_DROPOUT
from fetalclip_jax.parallel import sharding
from fetalclip_jax.training.objective import Objective
from fetalclip_jax.training.state import TrainState

# The logit scale is kept in [1, 100] as CLIP does: a larger one makes training unstable.
_MAX_LOG_SCALE = math.log(100.0)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shardings: TrainState,
    *,
    seed: int,
    ema_decay: float = 0.0,
) -> Callable:
    """Builds `(state, batch) -> (state, metrics)`; the state is donated.

    Args:
      shardings: the state's, from `state.abstract_state`.
      seed: of the run; with the step it decides what is random in a step.
      ema_decay: of the averaged parameters, for a state that has them.
    """

    def step(state: TrainState, frozen, batch):
        # A function of seed and step alone: a run that was resumed drops the same patches.
        rngs = {PATCH_DROPOUT: jax.random.fold_in(jax.random.key(seed), state.step)}

        def loss_and_metrics(params):
            features = objective.encode(params, frozen, batch, rngs)
            return objective.compare(params, frozen, features, state.step)

        (loss, metrics), grads = jax.value_and_grad(loss_and_metrics, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params["logit_scale"] = jnp.clip(params["logit_scale"], 0.0, _MAX_LOG_SCALE)
        norm = optax.tree.norm(grads)
        fine = jnp.isfinite(loss) & jnp.isfinite(norm)
        metrics |= {
            "loss": loss,
            "logit_scale": jnp.exp(params["logit_scale"]),
            "gradient_norm": norm,
            "skipped": 1.0 - fine.astype(jnp.float32),
        }
        ema = state.ema
        if ema is not None:
            ema = _averaged(ema, params, ema_decay, state.step)
        new = (params, ema, opt_state)
        old = (state.params, state.ema, state.opt_state)
        params, ema, opt_state = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    compiled = jax.jit(
        step,
        in_shardings=(shardings, None, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    return lambda state, batch: compiled(state, objective.frozen, batch)


def make_eval_step(objective: Objective, mesh: Mesh, shardings: TrainState) -> Callable:
    """Builds `(params, step, batch) -> loss` on a held-out batch."""

    def loss(params, step, frozen, batch):
        features = objective.encode(params, frozen, batch, None)
        return objective.compare(params, frozen, features, step)[0]

    compiled = jax.jit(
        loss,
        in_shardings=(shardings.params, shardings.step, None, sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )
    return lambda params, step, batch: compiled(params, step, objective.frozen, batch)


def _averaged(ema: Any, params: Any, decay: float, step: Int[Array, ""]) -> Any:
    """The exponential moving average after one more step.

    The first steps average over what there is, as TensorFlow's ExponentialMovingAverage does:
    with the full decay a short run's average would be mostly its random start.
    """
    count = step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), ema, params)
