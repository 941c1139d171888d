"""What happens between steps: numbers are logged, the model is judged, the state saved.

The loop forbids implicit transfers between host and devices: what a hook reads of the devices it
asks for with `jax.device_get`, once, and what it gives them with `jax.device_put`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from fetalclip_jax.training.checkpoint import Checkpointer
from fetalclip_jax.training.goodput import Clock, data_wait_share
from fetalclip_jax.training.metrics import MetricsWriter
from fetalclip_jax.training.progress import Progress
from fetalclip_jax.training.state import TrainState
from fetalclip_jax.training.telemetry import Meter, device_memory_gib


@dataclasses.dataclass(frozen=True)
class Moment:
    """The time after a step.

    Attributes:
      step: updates done.
      state: after them.
      metrics: of the last one, still on the devices.
      last: no step follows.
      records: numbers of the records in the data set that this process supplied to the step.
    """

    step: int
    state: TrainState
    metrics: Mapping[str, jax.Array]
    last: bool
    records: Int[np.ndarray, "b"]


@runtime_checkable
class Hook(Protocol):
    """Something done every so many steps.

    Attributes:
      every: steps between two calls; the last step calls it too.

    One with an attribute `with_saves` that is true is called whenever the state is saved.
    """

    every: int

    def __call__(self, moment: Moment) -> None: ...


def call(hooks: Iterable[Hook], moment: Moment, *, saving: bool = False) -> None:
    """Calls the hooks whose turn it is, in their order.

    Args:
      saving: the state is watched and saved as at the end, whoever's turn it is.
    """
    for hook in hooks:
        if saving and getattr(hook, "with_saves", False):
            hook(dataclasses.replace(moment, last=True))
        elif moment.last or moment.step % hook.every == 0:
            hook(moment)


@dataclasses.dataclass
class Log:
    """Writes the metrics of the step, with speed, learning rate and seconds so far.

    Speeds are those of the steps since the last call, without compiling, judging and saving.
    """

    every: int
    writer: MetricsWriter
    progress: Progress
    clock: Clock
    meter: Meter
    schedule: Callable[[jax.Array], jax.Array]
    steps: int
    counts: Callable[[], Mapping[str, int]]

    def __post_init__(self):
        # Compiled, for its constants would be copied to a device at every call.
        self.schedule = jax.jit(self.schedule)

    def __call__(self, moment: Moment) -> None:
        rate = self.schedule(jax.device_put(np.int32(moment.step - 1)))
        metrics, rate = jax.device_get((dict(moment.metrics), rate))
        metrics.pop("skipped")  # the steps between are counted, not sampled
        values = {name: float(value) for name, value in metrics.items()}
        spent = self.clock.since_mark()
        training = spent["step"] + spent["data_wait"]
        values |= self.meter.take(training)
        values |= {
            "learning_rate": float(rate),
            "seconds": self.clock.seconds(),
            "data_wait_share": data_wait_share(spent),
            "compile_seconds": self.clock.by_phase()["compile"],
            **self.counts(),
            **device_memory_gib(),
        }
        self.clock.mark()
        self.writer.write(moment.step, values)
        left = (self.steps - moment.step) * self._seconds_per_step(moment.step)
        self.progress.numbers(moment.step, _finite(values), left)

    def _seconds_per_step(self, step: int) -> float:
        """Of this run so far, with what comes back: judging and saving."""
        spent = self.clock.by_phase()
        return sum(spent[name] for name in ("step", "data_wait", "evaluate", "save")) / step


@dataclasses.dataclass
class Evaluate:
    """Writes the mean loss of fixed batches of patients that are not trained on.

    Attributes:
      judged: step -> what was written last.
    """

    every: int
    writer: MetricsWriter
    eval_step: Callable
    batches: Sequence[Mapping[str, jax.Array]]
    clock: Clock
    say: Callable[[str], None]
    judged: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)

    def __call__(self, moment: Moment) -> None:
        state = moment.state
        with self.clock.during("evaluate"):
            values = {"val_loss": self._mean_loss(state.params, state.step)}
            if state.ema is not None:
                values["ema_val_loss"] = self._mean_loss(state.ema, state.step)
        for name, value in values.items():
            if not np.isfinite(value):  # the metrics leave it out
                self.say(f"{name} is {value} at step {moment.step}")
        self.writer.write(moment.step, values)
        self.judged.clear()
        self.judged[moment.step] = _finite(values)

    def _mean_loss(self, params, step) -> float:
        # One at a time: programs of many devices on one CPU share its threads, see `flight`.
        losses = [jax.device_get(self.eval_step(params, step, batch)) for batch in self.batches]
        return float(np.mean(losses))


@dataclasses.dataclass
class Judge:
    """Writes what studies find of the model: of its averaged parameters, where it keeps them."""

    every: int
    writer: MetricsWriter
    measure: Callable[[Any], Mapping[str, float]]
    clock: Clock

    def __call__(self, moment: Moment) -> None:
        state = moment.state
        params = state.params if state.ema is None else state.ema
        # Studies are programs of their own, with transfers of their own.
        with self.clock.during("evaluate"), jax.transfer_guard("allow"):
            values = self.measure(params)
        self.writer.write(moment.step, values)


@dataclasses.dataclass
class Save:
    """Saves state and data position.

    It comes after what writes metrics: a checkpoint implies that the lines of its step are there.

    Attributes:
      send: brings these lines to where the checkpoint goes.
      judged: step -> validation metrics, of which the best checkpoint is chosen.
    """

    with_saves: ClassVar[bool] = True

    every: int
    checkpointer: Checkpointer
    clock: Clock
    counts: Callable[[], Mapping[str, int]]
    global_batch_size: int
    judged: Mapping[int, Mapping[str, float]]
    send: Callable[[], None]

    def __post_init__(self):
        self._all_finite = jax.jit(all_finite)

    def __call__(self, moment: Moment) -> None:
        """Raises ValueError for a state that is not finite: no run goes on from such a one."""
        if not jax.device_get(self._all_finite(moment.state)):
            raise ValueError(
                f"parameters or optimiser state are not finite after step {moment.step} and are "
                f"not saved; the last good checkpoint is of step {self.checkpointer.latest_step()}"
                "; lower config.optimizer.learning_rate"
            )
        with self.clock.during("save"):
            self.send()
        self.clock.kept = self.clock.seconds()
        progress = {
            "seconds": self.clock.kept,
            "seconds_by_phase": self.clock.by_phase(),
            **self.counts(),
        }
        # Orbax copies the arrays to the host in ways of its own.
        with self.clock.during("save"), jax.transfer_guard("allow"):
            self.checkpointer.save(
                moment.state,
                data={"step": moment.step, "examples": moment.step * self.global_batch_size},
                progress=progress,
                metrics=self.judged.get(moment.step),
            )


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no number of a tree is NaN or infinite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}
