"""Many UNETR-style decoders trained by AdamW: folds x seeds x support sets.

Runs differ in the rows they train and validate on, never in a shape, so one compiled program
serves all of them; as many as the device holds take a step at once.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Float16, Int, UInt8
from tqdm import tqdm

from fetalclip_jax.losses.dice import dice_loss, dice_sums, loss_of_sums
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.models.unetr import UNETRDecoder


@dataclasses.dataclass(frozen=True)
class Dense:
    """Some images: what a decoder reads of them, and the truth.

    Attributes:
      pixels: as the tower takes them before normalisation, grey or RGB.
      tokens: outputs of four blocks, without the class token, the first block first.
      masks: of each structure.
    """

    pixels: UInt8[np.ndarray, "b S S"] | UInt8[np.ndarray, "b S S 3"]
    tokens: Float16[np.ndarray, "b 4 G G W"]
    masks: Bool[np.ndarray, "b S S classes"]


@runtime_checkable
class DenseData(Protocol):
    """Images by row, whether they lie in memory, on a disk or are encoded when asked for."""

    def batch(self, rows: Int[np.ndarray, "b"]) -> Dense:
        """The images of these rows, in this order. Called from another thread, one at a time."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """How a decoder is trained. The defaults are the published protocol.

    Attributes:
      learning_rate: of AdamW.
      schedule: of the learning rate: "constant", or "cosine", which ends at 0.
      weight_decay: decoupled, on all parameters.
      batch_size: images per step. An incomplete last batch of an epoch is dropped. Fewer images
        than a batch are repeated, one shuffle of all of them after the other, to fill it.
      epochs: after each the validation loss is measured; the epoch of the lowest is kept.
      steps_per_epoch: steps in an epoch however many images there are; None for one pass over
        the training rows.
      width: channels of the decoder at full resolution.
    """

    learning_rate: float = 3e-4
    schedule: str = "constant"
    weight_decay: float = 0.01
    batch_size: int = 8
    epochs: int = 100
    steps_per_epoch: int | None = None
    width: int = 32

    def __post_init__(self):
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule must be 'constant' or 'cosine', found {self.schedule!r}")
        counts = self.batch_size, self.epochs, self.steps_per_epoch or 1, self.width
        if min(counts) < 1 or self.steps_per_epoch == 0 or not self.learning_rate > 0:
            raise ValueError(
                f"a decoder needs a learning rate, a batch, an epoch, a step and a width: {self}"
            )


@dataclasses.dataclass(frozen=True)
class Decoders:
    """Trained decoders, as they were after their best epochs.

    Attributes:
      decoder: the module.
      variables: its `params` and `batch_stats`, each array with a leading axis of runs.
      validation_loss: [runs], the lowest: the Dice loss of all validation images at once.
      best_epoch: [runs], from 1.
      batch_size: images that are read at a time.
    """

    decoder: UNETRDecoder
    variables: dict[str, Any]
    validation_loss: Float[np.ndarray, "runs"]
    best_epoch: Int[np.ndarray, "runs"]
    batch_size: int

    def __len__(self) -> int:
        return len(self.best_epoch)

    def select(self, runs: slice) -> "Decoders":
        """Some of the runs."""
        return dataclasses.replace(
            self,
            variables=jax.tree.map(lambda one: one[runs], self.variables),
            validation_loss=self.validation_loss[runs],
            best_epoch=self.best_epoch[runs],
        )

    def probabilities(
        self, data: DenseData, rows: Int[np.ndarray, "n"], *, progress: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What every run makes of some images, a batch at a time.

        Yields:
          Row numbers [b], in the order asked for, and probabilities float32
          [runs, b, S, S, classes].
        """
        size = runs_together()
        parts = [self.select(slice(start, start + size)) for start in range(0, len(self), size)]
        groups = [jax.tree.map(jnp.asarray, part.variables) for part in parts]
        requests = list(_padded_batches(np.asarray(rows), self.batch_size))
        fetched = _fetched(data, ([request[0]] for request in requests))
        with tqdm(total=len(rows), desc="segmenting", unit=" images", disable=not progress) as bar:
            for (padded, count), batch in zip(requests, fetched, strict=True):
                inputs = batch["pixels"][0], batch["tokens"][0]
                found = [_probabilities(group, *inputs, decoder=self.decoder) for group in groups]
                bar.update(count)
                yield padded[:count], np.concatenate([one[:, :count] for one in found])


def fit(
    data: DenseData,
    train_rows: Sequence[Int[np.ndarray, "_"]],
    validation_rows: Sequence[Int[np.ndarray, "_"]],
    *,
    classes: int,
    config: DecoderConfig,
    seeds: Sequence[int] | np.ndarray | None = None,
    progress: bool = False,
) -> Decoders:
    """Train one decoder per entry of `train_rows`.

    Args:
      data: all images.
      train_rows: for every run, rows of `data` to train on.
      validation_rows: for every run, rows that choose the epoch.
      classes: structures in the masks of `data`.
      config: the protocol.
      seeds: for every run, seed of its initial weights and batch order; its position if None.
      progress: show a progress bar over the training images of all runs and epochs.

    Raises:
      ValueError: if some run has no row to train or validate on; if a loss is not finite.
    """
    for name, parts in (("training", train_rows), ("validation", validation_rows)):
        empty = [run for run, rows in enumerate(parts) if len(rows) == 0]
        if empty:
            raise ValueError(f"run {empty[0]} has no {name} image with a mask")
    seeds = range(len(train_rows)) if seeds is None else seeds
    decoder = UNETRDecoder(classes, config.width)
    size = min(runs_together(), len(train_rows))
    parts = []
    with tqdm(
        total=sum(_steps(rows, config) for rows in train_rows) * config.batch_size * config.epochs,
        desc=f"{len(train_rows)} decoders x {config.epochs} epochs",
        unit=" images",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        for start in range(0, len(train_rows), size):
            # The last group is filled with its first run, so that it has the shape of the others.
            numbers = [*range(start, min(start + size, len(train_rows)))]
            count = len(numbers)
            numbers += [start] * (size - count)
            runs = [(n, train_rows[n], validation_rows[n], int(seeds[n])) for n in numbers]
            parts.append(_trained(data, runs, decoder, config, bar).select(slice(count)))
    return Decoders(
        decoder,
        jax.tree.map(lambda *arrays: np.concatenate(arrays), *(one.variables for one in parts)),
        np.concatenate([one.validation_loss for one in parts]),
        np.concatenate([one.best_epoch for one in parts]),
        config.batch_size,
    )


def runs_together() -> int:
    """How many runs take a step at once."""
    return 1


def _trained(data, runs, decoder, config, bar) -> Decoders:
    """The runs of one group: (number, rows to train on, rows to validate on, seed) of each."""
    numbers, train_rows, validation_rows, seeds = zip(*runs, strict=True)
    steps = np.array([_steps(rows, config) for rows in train_rows])
    orders = [
        _order(rows, config, np.random.default_rng(seed))
        for rows, seed in zip(train_rows, seeds, strict=True)
    ]
    validation = [list(_padded_batches(rows, config.batch_size)) for rows in validation_rows]
    validation_steps = max(len(one) for one in validation)

    def requests():
        for _ in range(config.epochs):
            for step in range(steps.max()):
                # Shorter runs rest while longer ones finish their epoch.
                yield [
                    next(order) if step < count else rows[:1].repeat(config.batch_size)
                    for order, count, rows in zip(orders, steps, train_rows, strict=True)
                ]
            for step in range(validation_steps):
                yield [one[min(step, len(one) - 1)][0] for one in validation]

    batches = _fetched(data, requests())
    state = None
    best_epoch = np.zeros(len(runs), int)
    best_loss = np.full(len(runs), np.inf)
    for epoch in range(config.epochs):
        losses = []
        for step, batch in enumerate(itertools.islice(batches, int(steps.max()))):
            if state is None:
                state = _initial_state(seeds, batch, decoder)
            done = (epoch * steps + step) / (config.epochs * steps)
            rates = np.float32(config.learning_rate) * np.ones(len(runs), np.float32)
            if config.schedule == "cosine":
                rates *= 0.5 * (1 + np.cos(np.pi * done))
            active = step < steps
            state, loss = _train_step(
                state, batch, rates.astype(np.float32), active, config.weight_decay, decoder=decoder
            )
            losses.append(loss)
            bar.update(int(active[: len(set(numbers))].sum()) * config.batch_size)
        _check_finite(np.stack(losses), numbers, epoch, config)
        sums = None
        for step, batch in enumerate(itertools.islice(batches, validation_steps)):
            real = np.stack(
                [
                    np.arange(config.batch_size) < (one[step][1] if step < len(one) else 0)
                    for one in validation
                ]
            ).astype(np.float32)
            new = _validation_sums(state["variables"], batch, real, decoder=decoder)
            sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
        loss = np.asarray(loss_of_sums(sums))
        _check_finite(loss[None], numbers, epoch, config)
        better = loss < best_loss
        state = _keep_better(state, better)
        best_loss = np.where(better, loss, best_loss)
        best_epoch = np.where(better, epoch + 1, best_epoch)
    best = jax.tree.map(np.asarray, state["best"])
    return Decoders(decoder, best, best_loss, best_epoch, config.batch_size)


def _check_finite(losses, numbers, epoch, config):
    """Losses are [steps, runs]."""
    wrong = ~np.isfinite(losses).all(0)
    if wrong.any():
        raise ValueError(
            f"decoder run {numbers[int(wrong.argmax())]}: the loss of epoch {epoch + 1} is not "
            f"finite; are the tokens finite? If they are, lower learning_rate, now "
            f"{config.learning_rate:g}"
        )


def _steps(rows, config):
    """Steps in an epoch."""
    return config.steps_per_epoch or max(len(rows) // config.batch_size, 1)


def _order(rows, config, generator):
    """Batches without end: a new shuffle of all rows whenever one is used up."""
    rows = np.asarray(rows)
    # Few rows are repeated; of many, what is left of a shuffle is dropped.
    shuffles = -(-config.batch_size // len(rows))
    while True:
        order = np.concatenate([generator.permutation(rows) for _ in range(shuffles)])
        for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
            yield order[start : start + config.batch_size]


def _padded_batches(rows, size):
    """Batches of one size, the last filled with its last row, and how many of each are real."""
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        yield np.concatenate([batch, batch[-1:].repeat(size - len(batch))]), len(batch)


def _fetched(data: DenseData, requests: Iterable) -> Iterator[dict[str, jax.Array]]:
    """The images of each request (rows of every run), read while the last ones are computed."""

    def fetch(request):
        rows = np.stack(request)
        # Runs share images; each is read once.
        distinct, places = np.unique(rows, return_inverse=True)
        found = data.batch(distinct)
        places = places.reshape(rows.shape)
        return {name: jnp.asarray(getattr(found, name)[places]) for name in _NAMES}

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = []
        for request in requests:
            waiting.append(pool.submit(fetch, request))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        for one in waiting:
            yield one.result()


_NAMES = [field.name for field in dataclasses.fields(Dense)]


def _initial_state(seeds, batch, decoder):
    """Parameters, running statistics, optimiser, and the best so far, of every run."""

    def one(key):
        images = jnp.zeros((1, *batch["masks"].shape[2:4], 3))
        tokens = jnp.zeros((4, 1, *batch["tokens"].shape[3:]))
        return decoder.init(key, images, tuple(tokens))

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    variables = jax.jit(jax.vmap(one))(keys)
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
def _train_step(state, batch, rates, active, weight_decay, *, decoder):
    """One AdamW step of every active run; also returns the loss of each."""

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
def _validation_sums(variables, batch, real, *, decoder):
    """DiceSums [runs, classes] of a batch; `real` is 1 for images that count, else 0."""

    def one_run(variables, batch, real):
        inputs = _inputs(batch["pixels"], batch["tokens"], decoder)
        return dice_sums(decoder.apply(variables, *inputs), batch["masks"], real)

    return jax.vmap(one_run)(variables, batch, real)


@functools.partial(jax.jit, donate_argnames="state")
def _keep_better(state, better):
    def chosen(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return state | {"best": jax.tree.map(chosen, state["variables"], state["best"])}


@functools.partial(jax.jit, static_argnames="decoder")
def _probabilities(variables, pixels, tokens, *, decoder):
    """[runs, b, S, S, classes]."""
    inputs = _inputs(pixels, tokens, decoder)
    return jax.vmap(lambda one: jax.nn.sigmoid(decoder.apply(one, *inputs)))(variables)
