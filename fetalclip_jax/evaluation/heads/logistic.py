"""Linear probes as L2-penalised logistic regression, fitted to the end by L-BFGS.

This is CLIP's own linear probe (Radford et al. 2021, appendix A.3): no epochs, seeds or learning
rates; a sweep over the penalty, chosen on patients that were not trained on.

    loss = mean cross entropy + penalty / 2 x |weight|^2, the bias free
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from fetalclip_jax.evaluation.heads.linear import LinearProbes

# Strongest first: each starts from the weights of the one before, which is close by.
PENALTIES = tuple(float(f"{10**exponent:.2g}") for exponent in np.arange(-1, -6.1, -0.5))

_EXACT = jax.lax.Precision.HIGHEST
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-4  # of the gradient, where the loss is about 1


def fit_chosen(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    train_rows: Sequence[Int[np.ndarray, "_"]],
    validation_rows: Sequence[Int[np.ndarray, "_"]],
    *,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    pad_to: int = 0,
    progress: bool = False,
) -> LinearProbes:
    """One probe per entry of `train_rows`, each with the penalty of its lowest validation loss.

    Args:
      features: all rows.
      labels: class of each row.
      train_rows: for every run, rows to train on.
      validation_rows: for every run, rows that choose the penalty.
      num_classes: number of classes.
      penalties: that are tried; of equal losses the first is kept.
      pad_to: at least so many training rows in the compiled program; calls that share it share one
        compilation. It changes no result.
      progress: show a progress bar over the runs.

    Raises:
      ValueError: if some run has no row to train or validate on.
    """
    path = _path(features, labels, train_rows, num_classes, penalties, pad_to, progress)
    losses = _validation_losses(path, features, labels, validation_rows)
    return _kept(path, losses, losses.argmin(1), penalties)


def fit_cross_validated(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    train_rows: Sequence[Int[np.ndarray, "_"]],
    validation_rows: Sequence[Int[np.ndarray, "_"]],
    *,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    final_rows: Int[np.ndarray, "_"] | None = None,
    progress: bool = False,
) -> LinearProbes:
    """One probe of the rows of all folds, its penalty chosen over the folds.

    The loss of a penalty is the mean over the validation rows of all folds. As CLIP's protocol
    does, the rows that chose are trained on in the end.

    Args: see `fit_chosen`; a run is a fold. `final_rows` are those of the final probe; None for all
      that the folds name.

    Raises:
      ValueError: if some fold has no row to train or validate on.
    """
    # One program for the folds and for all their rows: only the rows differ.
    if final_rows is None:
        final_rows = np.unique(np.concatenate([*train_rows, *validation_rows]))
    runs = [*train_rows, final_rows]
    weight, bias = _path(features, labels, runs, num_classes, penalties, 0, progress)
    folds = weight[:-1], bias[:-1]
    counts = np.array([len(rows) for rows in validation_rows])
    losses = _validation_losses(folds, features, labels, validation_rows)
    mean = (losses * counts[:, None]).sum(0, keepdims=True) / counts.sum()
    chosen = mean.argmin(1)
    final = _kept((weight[-1:], bias[-1:]), mean, chosen, penalties)
    of_folds = _kept(folds, losses, np.repeat(chosen, len(losses)), penalties)
    return dataclasses.replace(final, folds=of_folds)


def _path(features, labels, train_rows, num_classes, penalties, pad_to, progress=False):
    """Weights [runs, penalties, d, c] and biases [runs, penalties, c]."""
    for run, rows in enumerate(train_rows):
        if len(rows) == 0:
            raise ValueError(f"run {run} has no training image with a label")
    width = max(pad_to, *(len(rows) for rows in train_rows))
    found = []
    for rows in tqdm(train_rows, desc="probes", disable=not progress):
        inputs = np.zeros((width, features.shape[1]), np.float32)
        targets = np.zeros(width, np.int32)
        inputs[: len(rows)], targets[: len(rows)] = features[rows], labels[rows]
        # A free bias takes up any shift of the features; without their mean L-BFGS is faster.
        mean = features[rows].mean(0, dtype=np.float64).astype(np.float32)
        inputs[: len(rows)] -= mean
        weight, bias = _solve(
            inputs, targets, len(rows), np.asarray(penalties, np.float32), num_classes
        )
        weight = np.asarray(weight)
        found.append((weight, np.asarray(bias) - np.einsum("d,pdc->pc", mean, weight)))
    return tuple(np.stack(parts) for parts in zip(*found, strict=True))


@functools.partial(jax.jit, static_argnums=4)
def _solve(
    features: Float[Array, "n d"],
    labels: Int[Array, "n"],
    count: Int[Array, ""],
    penalties: Float[Array, "p"],
    num_classes: int,
) -> tuple[Float[Array, "p d c"], Float[Array, "p c"]]:
    """Rows from `count` on are padding."""
    weights = (jnp.arange(len(labels)) < count) / count
    optimiser = optax.lbfgs()

    def one(start, penalty):
        def loss(parameters):
            logits = jnp.matmul(features, parameters["weight"], precision=_EXACT)
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits + parameters["bias"], labels
            )
            return losses @ weights + penalty / 2 * jnp.sum(parameters["weight"] ** 2)

        value_and_grad = optax.value_and_grad_from_state(loss)

        def unfinished(carry):
            _, _, steps, norm = carry
            return (steps < _MAX_ITERATIONS) & (norm > _TOLERANCE)

        def step(carry):
            parameters, state, steps, _ = carry
            value, gradient = value_and_grad(parameters, state=state)
            updates, state = optimiser.update(
                gradient, state, parameters, value=value, grad=gradient, value_fn=loss
            )
            squares = jax.tree.map(lambda leaf: jnp.sum(leaf**2), gradient)
            norm = jnp.sqrt(sum(jax.tree.leaves(squares)))
            return optax.apply_updates(parameters, updates), state, steps + 1, norm

        carry = start, optimiser.init(start), 0, jnp.inf
        found = jax.lax.while_loop(unfinished, step, carry)[0]
        return found, found

    start = {
        "weight": jnp.zeros((features.shape[1], num_classes)),
        "bias": jnp.zeros(num_classes),
    }
    parameters = jax.lax.scan(one, start, penalties)[1]
    return parameters["weight"], parameters["bias"]


def _validation_losses(path, features, labels, validation_rows):
    """Mean cross entropy [runs, penalties]."""
    losses = []
    for run, rows in enumerate(validation_rows):
        if len(rows) == 0:
            raise ValueError(f"run {run} has no validation image with a label")
        logits = np.einsum("nd,pdc->pnc", features[rows], path[0][run]) + path[1][run][:, None]
        highest = logits.max(-1, keepdims=True)
        log_sum = highest[..., 0] + np.log(np.exp(logits - highest).sum(-1))
        losses.append((log_sum - logits[:, np.arange(len(rows)), labels[rows]]).mean(-1))
    losses = np.stack(losses)
    if not np.isfinite(losses).all():
        raise ValueError("a probe never reached a finite validation loss: are the features finite?")
    return losses


def _kept(path, losses, chosen, penalties):
    runs = np.arange(len(chosen))
    return LinearProbes(
        weight=path[0][runs, chosen],
        bias=path[1][runs, chosen],
        validation_loss=losses[runs, chosen],
        penalty=np.asarray(penalties)[chosen],
    )
