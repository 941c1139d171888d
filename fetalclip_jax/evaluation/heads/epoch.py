"""One epoch of many linear probes, as one program: `heads.linear` calls it again and again.

The weights of a run are [rates, classes, d]. Both products of a step then read a batch along d,
which XLA computes ten times as fast on a CPU as it does the transposed ones.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

# Row indices of every run, padded to one width, and how many of them are real.
Rows = tuple[Int[Array, "runs width"], Int[Array, "runs"]]

VALIDATION_BATCH = 128  # validation rows that are read at a time; it changes no result

_EXACT = jax.lax.Precision.HIGHEST


def initial_state(drawn: Float[np.ndarray, "runs width classes"], num_rates: int) -> dict[str, Any]:
    """Parameters, optimiser, and the best so far, of every run and learning rate.

    Args:
      drawn: initial weights, and the bias as their last row.
      num_rates: learning rates, all of which start from the same weights.
    """
    start = np.repeat(drawn.astype(np.float32).swapaxes(1, 2)[:, None], num_rates, axis=1)
    parameters = {"weight": start[..., :-1], "bias": start[..., -1]}
    runs = len(drawn)

    def zeros():
        return jax.tree.map(np.zeros_like, parameters)

    return {
        "parameters": parameters,
        "optimiser": optax.ScaleByAdamState(np.zeros(runs, np.int32), mu=zeros(), nu=zeros()),
        "best": zeros(),
        "best_loss": np.full((runs, num_rates), np.inf, np.float32),
        "best_epoch": np.zeros((runs, num_rates), np.int32),
    }


@functools.partial(jax.jit, static_argnames="batch_size", donate_argnames="state")
def train_epoch(
    state: dict[str, Any],
    order: Rows,
    epoch: Int[Array, ""] | int,
    data: dict[str, Any],
    *,
    batch_size: int,
) -> tuple[dict[str, Any], Float[Array, "runs rates"]]:
    """Steps through the rows of every run, validates, remembers the best.

    Args:
      state: see `initial_state`.
      order: rows to train on, in the order of this epoch.
      epoch: its number, from 1.
      data: `features` [n, d], `labels` [n], `validation` (Rows, of a width that is a multiple of
        VALIDATION_BATCH), `scaling` (shift and scale, [runs, d], or None), `rates` [rates] and
        `weight_decay`.
      batch_size: rows per step.

    Returns:
      The state, and the validation loss.
    """
    steps = _steps(order[1].max(), batch_size)
    validation_steps = -(-data["validation"][1].max() // VALIDATION_BATCH)

    def one_run(state, rows, length, validation, count, scaling):
        def step(number, carry):
            new = _step(*carry, _batch(data, scaling, rows, length, number, batch_size), data)
            # Shorter runs rest while longer ones finish their epoch.
            active = number < _steps(length, batch_size)
            return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, carry)

        def add_losses(number, total):
            batch = _batch(data, scaling, validation, count, number, VALIDATION_BATCH)
            return total + _losses(parameters, *batch)

        # The numbers of steps are data, not shape: studies of other sizes reuse the program.
        start = state["parameters"], state["optimiser"]
        parameters, optimiser = jax.lax.fori_loop(0, steps, step, start)
        loss = jnp.zeros_like(state["best_loss"])
        loss = jax.lax.fori_loop(0, validation_steps, add_losses, loss) / count
        better = loss < state["best_loss"]
        best = jax.tree.map(
            lambda new, old: jnp.where(_over_first(better, new), new, old),
            parameters,
            state["best"],
        )
        return {
            "parameters": parameters,
            "optimiser": optimiser,
            "best": best,
            "best_loss": jnp.where(better, loss, state["best_loss"]),
            "best_epoch": jnp.where(better, epoch, state["best_epoch"]),
        }, loss

    return jax.vmap(one_run)(state, *order, *data["validation"], data["scaling"])


def _steps(length, batch_size):
    """An incomplete last batch is dropped, unless it is the only one."""
    return jnp.maximum(length // batch_size, 1)


def _batch(data, scaling, rows, length, number, size):
    """Features [size, d] and labels [size] of some rows, and 0 for those that are padding."""
    start = number * size
    indices = jax.lax.dynamic_slice(rows, (start,), (size,))
    features = data["features"][indices]
    if scaling is not None:
        features = (features - scaling[0]) / scaling[1]
    real = (start + jnp.arange(size) < length).astype(jnp.float32)
    return features, data["labels"][indices], real


def _logits(parameters, features):
    product = jnp.einsum("bd,kcd->bkc", features, parameters["weight"], precision=_EXACT)
    return product + parameters["bias"]


def _step(parameters, optimiser, batch, data):
    """One AdamW step of every learning rate."""
    features, labels, real = batch
    logits = _logits(parameters, features)
    # The gradient of the mean cross entropy.
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])[:, None]
    error *= (real / real.sum())[:, None, None]
    gradients = {
        "weight": jnp.einsum("bkc,bd->kcd", error, features, precision=_EXACT),
        "bias": error.sum(0),
    }
    directions, optimiser = optax.scale_by_adam().update(gradients, optimiser)

    def moved(parameter, direction):
        rate = _over_first(data["rates"], parameter)
        return parameter - rate * (direction + data["weight_decay"] * parameter)

    return jax.tree.map(moved, parameters, directions), optimiser


def _losses(parameters, features, labels, real):
    """Cross entropies of a batch, added up, for every learning rate."""
    logits = _logits(parameters, features)
    targets = jax.nn.one_hot(labels, logits.shape[-1])[:, None]
    return real @ optax.softmax_cross_entropy(logits, targets)


def _over_first(vector, array):
    """A vector over the first axis of an array, ready to be multiplied with it."""
    return vector.reshape(-1, *[1] * (array.ndim - 1))
