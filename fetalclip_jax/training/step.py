"""One optimisation step and one evaluation step of any objective, each a pure jitted function."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from fetalclip_jax.parallel import sharding
from fetalclip_jax.training import grad_cache
from fetalclip_jax.training.objective import Objective
from fetalclip_jax.training.state import TrainState

# The logit scale is kept in [1, 100] as CLIP does: a larger one makes training unstable.
_MAX_LOG_SCALE = math.log(100.0)


@dataclasses.dataclass(frozen=True)
class Step:
    """A jitted `(state, fixed, batch) -> (state, metrics)` with what stays the same at every step.

    Attributes:
      compiled: the function under `jax.jit`.
      frozen: the objective's frozen parameters: an argument of it, not constants in it.
      key: the run's random key as raw numbers, likewise: runs of any seed are one program.
      where: sharding of the key.
    """

    compiled: Callable
    frozen: Any
    key: np.ndarray
    where: jax.sharding.Sharding

    def __call__(self, state: TrainState, batch: Mapping[str, jax.Array]):
        return self.compiled(state, (self._placed_key, self.frozen), batch)

    def lower(
        self, state: TrainState, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
    ) -> jax.stages.Lowered:
        """The program for arguments of these shapes, to be compiled or looked at."""
        key = jax.ShapeDtypeStruct(self.key.shape, self.key.dtype, sharding=self.where)
        return self.compiled.lower(state, (key, self.frozen), batch)

    @functools.cached_property
    def _placed_key(self) -> jax.Array:
        # When it is first needed: a program can be compiled for devices that are not there.
        with jax.transfer_guard("allow"):
            return jax.make_array_from_callback(self.key.shape, self.where, lambda at: self.key[at])


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shardings: TrainState,
    *,
    seed: int,
    ema_decay: float = 0.0,
    micro_batches: int = 1,
    trained: Callable[[Any], Any] | None = None,
) -> "Step":
    """Builds `(state, batch) -> (state, metrics)`; the state is donated.

    A loss or a gradient that is not finite changes nothing but the number of the step; the metric
    `skipped` is then 1.

    Args:
      shardings: the state's, from `state.abstract_state`.
      seed: of the run; with the step and an example's `record` it decides what is random.
      ema_decay: of the averaged parameters, for a state that has them.
      micro_batches: see `grad_cache.encoder`.
      trained: from parameters to booleans, whether each is trained; None trains all. What is not
        costs no backward pass.
    """
    encode = grad_cache.encoder(objective, micro_batches, mesh)

    @sharding.within(mesh)
    def step(state: TrainState, frozen, batch):
        key, frozen = frozen
        keys = example_keys(jax.random.wrap_key_data(key), state.step, batch["record"])

        def loss_and_metrics(params):
            if trained is not None:
                params = jax.tree.map(_held, params, trained(params))
            features = encode(params, frozen, batch, keys)
            return objective.compare(params, frozen, features, state.step)

        (loss, metrics), grads = jax.value_and_grad(loss_and_metrics, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if trained is None or trained(params)["logit_scale"]:
            params["logit_scale"] = jnp.clip(params["logit_scale"], 0.0, _MAX_LOG_SCALE)
        ema = state.ema
        if ema is not None:
            ema = _averaged(ema, params, ema_decay, state.step)
        new, old = (params, ema, opt_state), (state.params, state.ema, state.opt_state)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        metrics |= {
            "loss": loss,
            "logit_scale": jnp.exp(kept[0]["logit_scale"]),
            "gradient_norm": norm,
            "skipped": 1.0 - finite.astype(jnp.float32),
        }
        return TrainState(state.step + 1, *kept), metrics

    compiled = jax.jit(
        step,
        in_shardings=(shardings, None, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    return Step(compiled, objective.frozen, key, sharding.replicated(mesh))


def make_eval_step(
    objective: Objective, mesh: Mesh, shardings: TrainState, *, micro_batches: int = 1
) -> Callable:
    """Builds `(params, step, batch) -> loss` on a held-out batch."""
    encode = grad_cache.encoder(objective, micro_batches, mesh)

    @sharding.within(mesh)
    def loss(params, step, frozen, batch):
        features = encode(params, frozen, batch, None)
        return objective.compare(params, frozen, features, step)[0]

    compiled = jax.jit(
        loss,
        in_shardings=(shardings.params, shardings.step, None, sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )
    return lambda params, step, batch: compiled(params, step, objective.frozen, batch)


def example_keys(
    key: Key[Array, ""], step: Int[Array, ""], record: Int[Array, "B"]
) -> Key[Array, "B"]:
    """A random key for each example of a step.

    A function of the run's key, step and example alone: neither a resumed run, nor another order
    of the batch, nor its division among devices and micro-batches draws another.
    """
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(record)


def _held(leaf: Array, is_trained: bool) -> Array:
    return leaf if is_trained else jax.lax.stop_gradient(leaf)


def _averaged(ema: Any, params: Any, decay: float, step: Int[Array, ""]) -> Any:
    """The exponential moving average after one more step.

    The first steps average over what there is, as TensorFlow's ExponentialMovingAverage does:
    with the full decay a short run's average would be mostly its random start.
    """
    count = step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), ema, params)
