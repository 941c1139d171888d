"""Linear probes as L2-penalised logistic regression, fitted to the end by L-BFGS.

This is CLIP's own linear probe (Radford et al. 2021, appendix A.3): no epochs, seeds or learning
rates; a sweep over the penalty, chosen on patients that were not trained on.

    loss = mean cross entropy + penalty / 2 x |weight|^2, the bias free
"""

import concurrent.futures
import dataclasses
import itertools
import os
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
      progress: show a progress bar over the images of all runs and penalties.

    Raises:
      ValueError: if some run has no row to train or validate on.
    """
    path = _path(features, labels, train_rows, num_classes, penalties, progress)
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
    weight, bias = _path(features, labels, runs, num_classes, penalties, progress)
    folds = weight[:-1], bias[:-1]
    counts = np.array([len(rows) for rows in validation_rows])
    losses = _validation_losses(folds, features, labels, validation_rows)
    mean = (losses * counts[:, None]).sum(0, keepdims=True) / counts.sum()
    chosen = mean.argmin(1)
    final = _kept((weight[-1:], bias[-1:]), mean, chosen, penalties)
    of_folds = _kept(folds, losses, np.repeat(chosen, len(losses)), penalties)
    return dataclasses.replace(final, folds=of_folds)


def _path(features, labels, train_rows, num_classes, penalties, progress):
    """Weights [runs, penalties, d, c] and biases [runs, penalties, c]."""
    for run, rows in enumerate(train_rows):
        if len(rows) == 0:
            raise ValueError(f"run {run} has no training image with a label")
    data = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32)
    inputs = [
        (padded, np.float32(len(rows)), _mean(features, rows))
        for padded, rows in zip(_padded(train_rows), train_rows, strict=True)
    ]
    start = (
        np.zeros((num_classes, features.shape[1]), np.float32),
        np.zeros(num_classes, np.float32),
    )
    path = [[start] * len(train_rows)]
    total = len(penalties) * sum(len(rows) for rows in train_rows)
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            total=total,
            desc=f"{len(train_rows)} probes x {len(penalties)} penalties",
            unit=" images",
            unit_scale=True,
            disable=not progress,
        ) as bar,
    ):

        def solve(one, before, penalty):
            return jax.block_until_ready(_solve(*data, *one, *before, penalty))

        for penalty in np.asarray(penalties, np.float32):
            # The first round runs in turn: threads that miss one program would each compile it.
            share_out = pool.map if len(path) > 1 else map
            path.append([])
            solved = share_out(solve, inputs, path[-2], itertools.repeat(penalty))
            for rows, found in zip(train_rows, solved, strict=True):
                path[-1].append(found)
                bar.update(len(rows))
    weight = np.stack([[np.asarray(one) for one, _ in part] for part in path[1:]], 1)
    bias = np.stack([[np.asarray(one) for _, one in part] for part in path[1:]], 1)
    means = np.stack([mean for _, _, mean in inputs])
    return weight.swapaxes(2, 3), bias - np.einsum("rd,rpcd->rpc", means, weight)


def _padded(train_rows):
    """For every run its rows, filled up to a width that runs of about its length share.

    Each width is a program of its own: few-shot runs need few of them, and none computes for the
    smallest support set what the largest needs.
    """
    lengths = np.array([len(rows) for rows in train_rows])
    bands = np.log2(lengths).astype(int) // 2  # of a factor of 4
    for rows, band in zip(train_rows, bands, strict=True):
        padded = np.zeros(lengths[bands == band].max(), np.int32)
        padded[: len(rows)] = rows
        yield padded


def _mean(features, rows):
    """A free bias takes up any shift of the features; without their mean L-BFGS is faster."""
    return features[rows].mean(0, dtype=np.float64).astype(np.float32)


@jax.jit
def _solve(
    features: Float[Array, "n d"],
    labels: Int[Array, "n"],
    rows: Int[Array, "m"],
    count: Float[Array, ""],
    mean: Float[Array, "d"],
    weight: Float[Array, "c d"],
    bias: Float[Array, "c"],
    penalty: Float[Array, ""],
) -> tuple[Float[Array, "c d"], Float[Array, "c"]]:
    """The optimum for the first `count` rows, searched from some weight and bias."""
    inputs, targets = features[rows] - mean, labels[rows]
    weights = (jnp.arange(len(rows)) < count) / count
    optimiser = optax.lbfgs()

    def loss(parameters):
        # Products along d are the fast ones on a CPU.
        logits = jnp.einsum("nd,cd->nc", inputs, parameters["weight"], precision=_EXACT)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits + parameters["bias"], targets
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

    start = {"weight": weight, "bias": bias}
    carry = start, optimiser.init(start), 0, jnp.inf
    found = jax.lax.while_loop(unfinished, step, carry)[0]
    return found["weight"], found["bias"]


def _validation_losses(path, features, labels, validation_rows):
    """Mean cross entropy [runs, penalties]."""
    losses = []
    for run, rows in enumerate(validation_rows):
        if len(rows) == 0:
            raise ValueError(f"run {run} has no validation image with a label")
        logits = features[rows] @ path[0][run] + path[1][run][:, None]
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
