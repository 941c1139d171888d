"""Many linear probes trained at once by AdamW: folds x seeds x support sets.

All runs share one feature matrix and differ in the rows they train and validate on. Rows are
padded to the longest run and masked, so a run computes exactly what it would compute alone.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from fetalclip_jax.evaluation.heads.epoch import VALIDATION_BATCH, initial_state, train_epoch

_EXACT = jax.lax.Precision.HIGHEST
# On a CPU, XLA computes such small products on one core: groups of runs keep the others busy, and
# their batches and weights stay in its cache.
_RUNS_TOGETHER_ON_CPU = 5


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
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.learning_rates or not all(0 < rate < np.inf for rate in self.learning_rates):
            raise ValueError(f"learning_rates={self.learning_rates} must be numbers above 0")


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

    def select(self, runs: slice) -> "LinearProbes":
        """Some of the runs."""
        return LinearProbes(**{name: values[runs] for name, values in self.arrays().items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """What there is of each run, by field."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: v for name, v in fields.items() if isinstance(v, np.ndarray)}


def fit(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    train_rows: Sequence[Int[np.ndarray, "_"]],
    validation_rows: Sequence[Int[np.ndarray, "_"]],
    *,
    num_classes: int,
    config: ProbeConfig,
    seeds: Sequence[int] | np.ndarray | None = None,
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
      progress: show a progress bar over the images of all runs and epochs.

    Raises:
      ValueError: if some run has no row to train or validate on.
    """
    for name, parts in (("training", train_rows), ("validation", validation_rows)):
        empty = [run for run, rows in enumerate(parts) if len(rows) == 0]
        if empty:
            raise ValueError(f"run {empty[0]} has no {name} image with a label")
    seeds = range(len(train_rows)) if seeds is None else seeds
    features = np.asarray(features, np.float32)
    scalings = [None] * len(train_rows)
    if config.feature_scaling == "standardise":
        scalings = _scalings(features, train_rows)
    runs = list(zip(train_rows, validation_rows, seeds, scalings, strict=True))
    # All groups are padded alike, so that one program serves them.
    train_width = max(config.batch_size, *(len(rows) for rows in train_rows))
    validation_width = max(len(rows) for rows in validation_rows)
    widths = train_width, -(-validation_width // VALIDATION_BATCH) * VALIDATION_BATCH
    data = {
        "features": jnp.asarray(features),
        "labels": jnp.asarray(labels, jnp.int32),
        "rates": jnp.asarray(config.learning_rates, jnp.float32),
        "weight_decay": jnp.float32(config.weight_decay),
    }
    size = _RUNS_TOGETHER_ON_CPU if jax.default_backend() == "cpu" else len(runs)
    groups = [
        _Group(runs[start : start + size], data, widths, num_classes, config)
        for start in range(0, len(runs), size)
    ]
    with (
        concurrent.futures.ThreadPoolExecutor(min(len(groups), os.cpu_count() or 1)) as pool,
        tqdm(
            total=config.epochs * sum(len(rows) for rows in train_rows),
            desc=f"{len(runs)} probes x {config.epochs} epochs",
            unit=" images",
            unit_scale=True,
            disable=not progress,
        ) as bar,
    ):
        for epoch in range(config.epochs):
            # The first round runs in turn: threads that miss one program would each compile it.
            share_out = pool.map if epoch else map
            for images in share_out(_Group.train_epoch, groups):
                bar.update(images)
    return joined([group.best() for group in groups])


class _Group:
    """Runs that are trained by one call of the program."""

    def __init__(self, runs, data, widths, num_classes, config):
        self._rows, validation_rows, seeds, scalings = zip(*runs, strict=True)
        self._width, self._config = widths[0], config
        self._data = data | {
            "validation": jax.tree.map(jnp.asarray, _padded(validation_rows, widths[1])),
            # [runs, d] of shifts and of scales; None where features are taken as they are.
            "scaling": jax.tree.map(lambda *parts: jnp.stack(parts), *scalings),
        }
        self._generators = [np.random.default_rng(int(seed)) for seed in seeds]
        # As torch.nn.Linear draws them.
        shape = data["features"].shape[1] + 1, num_classes
        bound = 1 / np.sqrt(data["features"].shape[1])
        drawn = np.stack([one.uniform(-bound, bound, shape) for one in self._generators])
        self._state = initial_state(drawn, len(config.learning_rates))
        self._order, self._epoch = self._shuffled(), 0

    def train_epoch(self) -> int:
        """Returns once the epoch has been computed: the number of images of its runs."""
        self._epoch += 1
        self._state, loss = train_epoch(
            self._state, self._order, self._epoch, self._data, batch_size=self._config.batch_size
        )
        self._order = self._shuffled()  # of the next epoch, while this one is computed
        jax.block_until_ready(loss)
        return sum(len(rows) for rows in self._rows)

    def best(self) -> LinearProbes:
        """The best epoch of the best learning rate of every run, in units of stored features."""
        losses = np.asarray(self._state["best_loss"])
        if not np.isfinite(losses).all():
            raise ValueError(
                "a probe never reached a finite validation loss: are the features finite?"
            )
        chosen, runs = losses.argmin(1), np.arange(len(losses))
        weight = np.asarray(self._state["best"]["weight"])[runs, chosen].swapaxes(1, 2)
        bias = np.asarray(self._state["best"]["bias"])[runs, chosen]
        if self._data["scaling"] is not None:
            shift, scale = (np.asarray(one) for one in self._data["scaling"])
            weight = weight / scale[:, :, None]
            bias = bias - np.einsum("rd,rdc->rc", shift, weight)
        return LinearProbes(
            weight=weight,
            bias=bias,
            validation_loss=losses[runs, chosen],
            best_epoch=np.asarray(self._state["best_epoch"])[runs, chosen],
            learning_rate=np.asarray(self._config.learning_rates)[chosen],
        )

    def _shuffled(self):
        pairs = zip(self._generators, self._rows, strict=True)
        return _padded([generator.permutation(rows) for generator, rows in pairs], self._width)


def _padded(rows, width):
    """Row indices [runs, width] and how many of them are real [runs]."""
    padded = np.zeros((len(rows), width), np.int32)
    for run, one in enumerate(rows):
        padded[run, : len(one)] = one
    return padded, np.array([len(one) for one in rows], np.int32)


def joined(groups: Sequence[LinearProbes]) -> LinearProbes:
    """The probes of all groups, in their order."""
    parts = [one.arrays() for one in groups]
    return LinearProbes(**{k: np.concatenate([part[k] for part in parts]) for k in parts[0]})


def _scalings(features, train_rows):
    """Mean and deviation [d] of the training rows of every run; runs of one split share theirs."""
    distinct = {id(rows): rows for rows in train_rows}
    found = {key: _scaling(features[rows]) for key, rows in distinct.items()}
    return [found[id(rows)] for rows in train_rows]


def _scaling(features):
    shift = features.mean(0, dtype=np.float64).astype(np.float32)
    # The deviations are squared before they are summed: no cancellation of large means.
    deviation = np.sqrt(((features - shift) ** 2).mean(0, dtype=np.float64)).astype(np.float32)
    # A feature that never varies carries nothing; it becomes 0 instead of 0 / 0.
    return shift, np.where(deviation > 1e-6 * (1 + np.abs(shift)), deviation, np.inf)


@jax.jit
def _logits(
    weight: Float[Array, "runs d classes"],
    bias: Float[Array, "runs classes"],
    features: Float[Array, "n d"],
) -> Float[Array, "runs n classes"]:
    return jnp.einsum("nd,rdc->rnc", features, weight, precision=_EXACT) + bias[:, None]
