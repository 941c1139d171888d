"""Many UNETR-style decoders trained by AdamW: folds x seeds x support sets.

Runs differ in the rows they train and validate on, never in a shape, so one compiled program
serves all of them; as many as the device holds take a step at once.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from fetalclip_jax.evaluation.heads import dense, unetr_step
from fetalclip_jax.evaluation.heads.dense import Dense, DenseData
from fetalclip_jax.evaluation.units import counted
from fetalclip_jax.losses.dice import loss_of_sums
from fetalclip_jax.models.unetr import UNETRDecoder, initial_variables

# What a step keeps in memory, with room to spare: XLA says 220 on a CPU at 96 and at 224 pixels.
_BYTES_PER_PIXEL_AND_CHANNEL = 400


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
        for name in ("batch_size", "epochs", "steps_per_epoch", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate={self.learning_rate:g} must be a number above 0")


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
        requests = list(dense.padded_batches(np.asarray(rows), self.batch_size))
        size = runs_together(self.decoder, data.batch(requests[0][0][:1]), self.batch_size)
        parts = [self.select(slice(start, start + size)) for start in range(0, len(self), size)]
        groups = [jax.tree.map(jnp.asarray, part.variables) for part in parts]
        fetched = dense.fetched(data, ([request[0]] for request in requests))
        with tqdm(total=len(rows), desc="segmenting", unit=" images", disable=not progress) as bar:
            for (padded, count), batch in zip(requests, fetched, strict=True):
                inputs = batch["pixels"][0], batch["tokens"][0]
                found = [
                    unetr_step.probabilities(group, *inputs, decoder=self.decoder)
                    for group in groups
                ]
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
    runs = list(enumerate(zip(train_rows, validation_rows, seeds, strict=True)))
    decoder = UNETRDecoder(classes, config.width)
    example = data.batch(np.asarray(train_rows[0][:1]))
    size = min(runs_together(decoder, example, config.batch_size), len(runs))
    images = [_steps(rows, config) * config.batch_size for rows in train_rows]
    found = []
    with tqdm(
        total=sum(images) * config.epochs,
        desc=f"{counted(len(runs), 'decoders')} x {counted(config.epochs, 'epochs')}",
        unit=" images",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        for start in range(0, len(runs), size):
            some = runs[start : start + size]
            # The last group is filled up, so that it has the shape of the others.
            filled = some + some[:1] * (size - len(some))
            group = _Group(data, filled, decoder, example, config)
            for _ in range(config.epochs):
                group.train_epoch()
                group.validate()
                bar.update(sum(images[start : start + size]))
            found.append(group.best().select(slice(len(some))))
    return Decoders(
        decoder,
        jax.tree.map(lambda *arrays: np.concatenate(arrays), *(one.variables for one in found)),
        np.concatenate([one.validation_loss for one in found]),
        np.concatenate([one.best_epoch for one in found]),
        config.batch_size,
    )


def runs_together(decoder: UNETRDecoder, example: Dense, batch_size: int) -> int:
    """How many runs take a step at once: as many as fit in the memory of an accelerator.

    On a CPU one step occupies all cores, and the maps of one run are more than its caches hold.
    """
    if jax.default_backend() == "cpu":
        return 1
    stats = jax.local_devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    pixels = batch_size * example.pixels.shape[1] ** 2
    return max(1, int(free // (_BYTES_PER_PIXEL_AND_CHANNEL * pixels * decoder.width)))


class _Group:
    """Runs that take their steps together."""

    def __init__(self, data, runs, decoder, example, config):
        """Each run: its number, and its rows to train on, rows to validate on, and seed."""
        self._numbers, parts = zip(*runs, strict=True)
        self._train_rows, validation_rows, seeds = zip(*parts, strict=True)
        self._decoder, self._config = decoder, config
        self._steps = np.array([_steps(rows, config) for rows in self._train_rows])
        self._validation = [
            list(dense.padded_batches(rows, config.batch_size)) for rows in validation_rows
        ]
        self._validation_steps = max(len(batches) for batches in self._validation)
        self._batches = dense.fetched(data, self._requests(seeds))
        shapes = example.pixels.shape[1], example.tokens.shape[2:]
        self._state = unetr_step.initial_state(
            [initial_variables(decoder, *shapes, int(seed)) for seed in seeds]
        )
        self._epoch = 0
        self._best_epoch = np.zeros(len(runs), int)
        self._best_loss = np.full(len(runs), np.inf)

    def train_epoch(self) -> None:
        config, losses = self._config, []
        for step, batch in enumerate(itertools.islice(self._batches, self._steps.max())):
            rates = np.full(len(self._steps), config.learning_rate)
            if config.schedule == "cosine":
                done = (self._epoch + step / self._steps) / config.epochs
                rates *= 0.5 * (1 + np.cos(np.pi * done))
            # Shorter runs rest while longer ones finish their epoch.
            active = step < self._steps
            self._state, loss = unetr_step.train_step(
                self._state,
                batch,
                rates.astype(np.float32),
                active,
                config.weight_decay,
                decoder=self._decoder,
            )
            losses.append(loss)
        self._epoch += 1
        self._check(np.stack(losses).sum(0))

    def validate(self) -> None:
        """Keeps what is better than anything before."""
        sums = None
        for step, batch in enumerate(itertools.islice(self._batches, self._validation_steps)):
            counts = [b[step][1] if step < len(b) else 0 for b in self._validation]
            real = np.arange(self._config.batch_size) < np.array(counts)[:, None]
            new = unetr_step.validation_sums(
                self._state["variables"], batch, real.astype(np.float32), decoder=self._decoder
            )
            sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
        loss = np.asarray(loss_of_sums(sums))
        self._check(loss)
        better = loss < self._best_loss
        self._state = unetr_step.keep_better(self._state, better)
        self._best_loss = np.where(better, loss, self._best_loss)
        self._best_epoch = np.where(better, self._epoch, self._best_epoch)

    def best(self) -> Decoders:
        variables = jax.tree.map(np.asarray, self._state["best"])
        batch_size = self._config.batch_size
        return Decoders(self._decoder, variables, self._best_loss, self._best_epoch, batch_size)

    def _requests(self, seeds):
        """Rows [runs, b] of all steps of all epochs, of training and validation."""
        size = self._config.batch_size
        orders = [
            dense.batches_without_end(np.asarray(rows), size, np.random.default_rng(int(seed)))
            for rows, seed in zip(self._train_rows, seeds, strict=True)
        ]
        resting = [np.repeat(rows[:1], size) for rows in self._train_rows]
        for _ in range(self._config.epochs):
            for step in range(self._steps.max()):
                yield [
                    next(order) if step < steps else rest
                    for order, steps, rest in zip(orders, self._steps, resting, strict=True)
                ]
            for step in range(self._validation_steps):
                yield [batches[min(step, len(batches) - 1)][0] for batches in self._validation]

    def _check(self, loss):
        """Losses of the epoch, [runs]."""
        if not np.isfinite(loss).all():
            run = self._numbers[int(np.argmin(np.isfinite(loss)))]
            raise ValueError(
                f"run {run}: the loss of epoch {self._epoch} is not finite; are the tokens finite? "
                f"If they are, lower learning_rate, now {self._config.learning_rate:g}"
            )


def _steps(rows, config):
    """Steps in an epoch."""
    return config.steps_per_epoch or max(len(rows) // config.batch_size, 1)
