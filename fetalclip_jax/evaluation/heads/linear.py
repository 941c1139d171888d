"""Many linear probes trained at once by AdamW: folds x seeds x support sets in one jitted `vmap`.

All runs share one feature matrix and differ in the rows they train and validate on. Rows are
padded to the longest run and masked, so a run computes exactly what it would compute alone.
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

_EXACT = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """How a probe is trained. The defaults are the published protocol.

    Attributes:
      learning_rates: of AdamW, constant; of several, each run keeps the one with the lowest
        validation loss.
      weight_decay: decoupled, on weight and bias.
      batch_size: rows per step. An incomplete last batch is dropped, unless it is the only one.
      epochs: passes over the training rows; the epoch with the lowest validation loss is kept.
      feature_scaling: "none" (the published protocol), or "standardise" by mean and deviation of
        the training rows of each run, for features whose scale does not suit the learning rate.
    """

    learning_rates: tuple[float, ...] = (3e-4,)
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: int = 50
    feature_scaling: str = "none"

    def __post_init__(self):
        if self.feature_scaling not in ("none", "standardise"):
            raise ValueError(
                f"feature_scaling must be 'none' or 'standardise', found {self.feature_scaling!r}"
            )
        if not self.learning_rates or self.batch_size < 1 or self.epochs < 1:
            raise ValueError(f"a probe needs a learning rate, a batch and an epoch: {self}")


@dataclasses.dataclass(frozen=True)
class LinearProbes:
    """Trained probes that read features as stored, whatever scaling they were trained with.

    Attributes:
      weight: [runs, d, classes].
      bias: [runs, classes].
      validation_loss: [runs], the lowest.
      best_epoch: [runs], from 1; None for probes without epochs.
      learning_rate: [runs], the one that was kept; None for probes without.
      penalty: [runs], the L2 penalty that was kept; None for probes without.
      folds: the probes of the folds that chose the penalty, one each; None where the runs are it.
    """

    weight: Float[np.ndarray, "runs d classes"]
    bias: Float[np.ndarray, "runs classes"]
    validation_loss: Float[np.ndarray, "runs"]
    best_epoch: Int[np.ndarray, "runs"] | None = None
    learning_rate: Float[np.ndarray, "runs"] | None = None
    penalty: Float[np.ndarray, "runs"] | None = None
    folds: "LinearProbes | None" = None

    def logits(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "runs n classes"]:
        """Logits of every run for every row."""
        return np.asarray(_logits(self.weight, self.bias, features))


def fit(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    train_rows: Sequence[Int[np.ndarray, "_"]],
    validation_rows: Sequence[Int[np.ndarray, "_"]],
    *,
    num_classes: int,
    config: ProbeConfig,
    seeds: Sequence[int] | np.ndarray | None = None,
    pad_to: tuple[int, int] = (0, 0),
    progress: bool = False,
) -> LinearProbes:
    """Train one probe per entry of `train_rows`.

    Args:
      features: all rows.
      labels: class of each row.
      train_rows: for every run, rows of `features` to train on.
      validation_rows: for every run, rows that choose the epoch and the learning rate.
      num_classes: number of classes.
      config: the protocol.
      seeds: for every run, seed of its initial weights and batch order; its position if None.
      pad_to: at least so many training and validation rows in the compiled program; calls that
        share it share one compilation. It changes no result.
      progress: show a progress bar over the epochs.

    Raises:
      ValueError: if some run has no row to train or validate on.
    """
    for name, parts in (("training", train_rows), ("validation", validation_rows)):
        empty = [run for run, rows in enumerate(parts) if len(rows) == 0]
        if empty:
            raise ValueError(f"run {empty[0]} has no {name} image with a label")
    assert len(train_rows) == len(validation_rows)
    seeds = range(len(train_rows)) if seeds is None else seeds
    features = jnp.asarray(features, jnp.float32)
    data = {
        "features": features,
        "labels": jnp.asarray(labels, jnp.int32),
        "train": _padded(train_rows, max(pad_to[0], config.batch_size)),
        "validation": _padded(validation_rows, pad_to[1]),
        "seeds": jnp.asarray(seeds, jnp.uint32),
        "rates": jnp.asarray(config.learning_rates, jnp.float32),
    }
    steps = max(1, max(len(rows) for rows in train_rows) // config.batch_size)
    data["steps"] = jnp.int32(steps)
    data["shift"], data["scale"] = _scaling(data, config.feature_scaling == "standardise")
    rates = len(config.learning_rates)
    state = _initial_state(seeds, rates, features.shape[1], num_classes)
    # The epochs run as a few calls of one program, so that a progress bar can move.
    block = max(k for k in range(1, 11) if config.epochs % k == 0)
    numbers = jnp.arange(config.epochs, dtype=jnp.int32).reshape(-1, block)
    with tqdm(total=config.epochs, desc="probe epochs", disable=not progress) as bar:
        for epochs in numbers:
            state = _train(state, epochs, data, config.batch_size, config.weight_decay)
            if progress:
                jax.block_until_ready(state)
            bar.update(block)
    return _best(state, data, config)


def _padded(rows, least):
    """Row indices [runs, max(longest, least)] and how many of them are real [runs]."""
    lengths = np.array([len(one) for one in rows], np.int32)
    padded = np.zeros((len(rows), max(lengths.max(), least)), np.int32)
    for run, one in enumerate(rows):
        padded[run, : len(one)] = one
    return jnp.asarray(padded), jnp.asarray(lengths)


@functools.partial(jax.jit, static_argnums=1)
def _scaling(data, standardise):
    """Mean and deviation [runs, d] of each run's training rows."""
    rows, lengths = data["train"]
    features = data["features"]
    runs, width = rows.shape[0], features.shape[1]
    if not standardise:
        return jnp.zeros((runs, width)), jnp.ones((runs, width))

    def one_run(indices, length):
        # Counts per row turn the gather of all training rows into one product with the features.
        real = jnp.arange(len(indices)) < length
        weight = jnp.zeros(len(features)).at[indices].add(real) / length
        shift = jnp.matmul(weight, features, precision=_EXACT)
        # The deviations are squared before they are summed: no cancellation of large means.
        variance = jnp.matmul(weight, (features - shift) ** 2, precision=_EXACT)
        return shift, jnp.sqrt(variance)

    shift, deviation = jax.lax.map(lambda run: one_run(*run), (rows, lengths))
    # A feature that never varies carries nothing; it becomes 0 instead of 0 / 0.
    return shift, jnp.where(deviation > 1e-6 * (1 + jnp.abs(shift)), deviation, jnp.inf)


def _initial_state(seeds, rates, width, num_classes):
    """Parameters [runs, rates, ...] as torch.nn.Linear draws them, optimiser and best so far."""
    bound = 1 / np.sqrt(width)
    drawn = np.stack(
        [
            np.random.default_rng(int(seed)).uniform(-bound, bound, (width + 1, num_classes))
            for seed in seeds
        ]
    ).astype(np.float32)
    # Every learning rate starts from the same weights.
    drawn = np.repeat(drawn[:, None], rates, axis=1)
    parameters = {"weight": drawn[:, :, :-1], "bias": drawn[:, :, -1]}
    runs = drawn.shape[:2]

    def zeros():
        return jax.tree.map(np.zeros_like, parameters)

    return {
        "parameters": parameters,
        "optimiser": optax.ScaleByAdamState(np.zeros(runs, np.int32), mu=zeros(), nu=zeros()),
        "best": zeros(),
        "best_loss": np.full(runs, np.inf, np.float32),
        "best_epoch": np.zeros(runs, np.int32),
    }


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def _train(state, epochs, data, batch_size, weight_decay):
    """Some epochs of every run: shuffle, step, validate, remember the best."""
    adam = optax.scale_by_adam()
    features, labels = data["features"], data["labels"]

    def update(parameters, optimiser, rate, batch, targets, weights):
        """One AdamW step of one learning rate."""
        gradients = jax.grad(_loss)(parameters, batch, targets, weights)
        direction, optimiser = adam.update(gradients, optimiser)
        parameters = jax.tree.map(
            lambda p, u: p - rate * (u + weight_decay * p), parameters, direction
        )
        return parameters, optimiser

    def one_run(state, seed, train, validation, shift, scale, epoch):
        rows, length = train
        # Padding sorts behind every real row, so the first `length` rows are a permutation.
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        order = jax.random.uniform(key, rows.shape)
        order = jnp.argsort(jnp.where(jnp.arange(len(rows)) < length, order, jnp.inf))
        shuffled = rows[order]

        def step(number, carry):
            start = number * batch_size
            indices = jax.lax.dynamic_slice(shuffled, (start,), (batch_size,))
            weights = (start + jnp.arange(batch_size) < length).astype(jnp.float32)
            batch = (features[indices] - shift) / scale
            new = jax.vmap(update, in_axes=(0, 0, 0, None, None, None))(
                *carry, data["rates"], batch, labels[indices], weights
            )
            # Shorter runs rest while longer ones finish their epoch.
            active = number < jnp.maximum(length // batch_size, 1)
            return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, carry)

        # The number of steps is data, not shape: studies of other sizes reuse the program.
        carry = state["parameters"], state["optimiser"]
        parameters, optimiser = jax.lax.fori_loop(0, data["steps"], step, carry)
        indices, count = validation
        weights = (jnp.arange(len(indices)) < count).astype(jnp.float32)
        clean = (features[indices] - shift) / scale
        loss = jax.vmap(_loss, in_axes=(0, None, None, None))(
            parameters, clean, labels[indices], weights
        )
        better = loss < state["best_loss"]
        return {
            "parameters": parameters,
            "optimiser": optimiser,
            "best": jax.tree.map(
                lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o),
                parameters,
                state["best"],
            ),
            "best_loss": jnp.where(better, loss, state["best_loss"]),
            "best_epoch": jnp.where(better, epoch + 1, state["best_epoch"]),
        }

    all_runs = jax.vmap(one_run, in_axes=(0, 0, 0, 0, 0, 0, None))

    def one_epoch(state, epoch):
        shift, scale = data["shift"], data["scale"]
        return all_runs(
            state, data["seeds"], data["train"], data["validation"], shift, scale, epoch
        ), None

    return jax.lax.scan(one_epoch, state, epochs)[0]


def _loss(parameters, batch, targets, weights):
    """Mean cross entropy of the rows of weight 1."""
    logits = jnp.matmul(batch, parameters["weight"], precision=_EXACT) + parameters["bias"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (losses * weights).sum() / weights.sum()


def _best(state, data, config):
    """The best epoch of the best learning rate of every run, in units of the stored features."""
    losses = np.asarray(state["best_loss"])
    if not np.isfinite(losses).all():
        raise ValueError("a probe never reached a finite validation loss: are the features finite?")
    chosen = losses.argmin(1)
    runs = np.arange(len(chosen))
    weight = np.asarray(state["best"]["weight"])[runs, chosen]
    bias = np.asarray(state["best"]["bias"])[runs, chosen]
    scaled = weight / np.asarray(data["scale"])[:, :, None]
    return LinearProbes(
        weight=scaled,
        bias=bias - np.einsum("rd,rdc->rc", np.asarray(data["shift"]), scaled),
        validation_loss=losses[runs, chosen],
        best_epoch=np.asarray(state["best_epoch"])[runs, chosen],
        learning_rate=np.asarray(config.learning_rates)[chosen],
    )


@jax.jit
def _logits(
    weight: Float[Array, "runs d classes"],
    bias: Float[Array, "runs classes"],
    features: Float[Array, "n d"],
) -> Float[Array, "runs n classes"]:
    return jnp.einsum("nd,rdc->rnc", features, weight, precision=_EXACT) + bias[:, None]
