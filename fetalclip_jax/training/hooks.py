"""What happens between steps: numbers are watched and logged, the model judged, the state saved."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
import optax
from tqdm import tqdm

from fetalclip_jax.training.checkpoint import Checkpointer
from fetalclip_jax.training.metrics import MetricsWriter
from fetalclip_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Moment:
    """The time after a step.

    Attributes:
      step: updates done.
      state: after them.
      metrics: of the last one, still on the devices.
      last: no step follows.
    """

    step: int
    state: TrainState
    metrics: Mapping[str, jax.Array]
    last: bool


@runtime_checkable
class Hook(Protocol):
    """Something done every so many steps.

    Attributes:
      every: steps between two calls; the last step calls it too.
    """

    every: int

    def __call__(self, moment: Moment) -> None: ...


def call(hooks: Iterable[Hook], moment: Moment) -> None:
    """Calls the hooks whose turn it is, in their order."""
    for hook in hooks:
        if moment.last or moment.step % hook.every == 0:
            hook(moment)


class Clock:
    """Seconds a run took without what kills threw away, and its speed since the last `mark`.

    Attributes:
      kept: seconds that the latest checkpoint holds.
    """

    def __init__(self, start: float, kept: float, step: int):
        """`start` is when this process began, `kept` what it continues."""
        self._start = start - kept
        self.kept = kept
        self.mark(step)

    def mark(self, step: int) -> None:
        self._marked, self._marked_step = time.time(), step

    def seconds(self) -> float:
        return time.time() - self._start

    def steps_per_second(self, step: int) -> float:
        return (step - self._marked_step) / (time.time() - self._marked)


@dataclasses.dataclass
class Watch:
    """Stops a run whose numbers are no longer finite: nothing is learned from there on."""

    every: int
    learning_rate: float

    def __call__(self, moment: Moment) -> None:
        """Raises ValueError where loss or gradient are not finite."""
        loss, norm = (float(moment.metrics[name]) for name in ("loss", "gradient_norm"))
        if not np.isfinite([loss, norm]).all():
            raise ValueError(
                f"the loss is {loss} and the gradient norm {norm} at step {moment.step}; lower "
                f"config.optimizer.learning_rate={self.learning_rate} and use a new --workdir"
            )


@dataclasses.dataclass
class Log:
    """Writes the metrics of the step, with speed, learning rate and seconds so far."""

    every: int
    writer: MetricsWriter
    bar: tqdm
    clock: Clock
    schedule: optax.Schedule
    global_batch_size: int

    def __call__(self, moment: Moment) -> None:
        values = {name: float(value) for name, value in moment.metrics.items()}
        values["images_per_second"] = (
            self.clock.steps_per_second(moment.step) * self.global_batch_size
        )
        values["learning_rate"] = float(self.schedule(moment.step - 1))
        values["seconds"] = self.clock.seconds()
        self.clock.mark(moment.step)
        self.writer.write(moment.step, values)
        self.bar.set_postfix(
            loss=f"{values['loss']:.3f}", images_s=f"{values['images_per_second']:.0f}"
        )


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
    judged: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)

    def __call__(self, moment: Moment) -> None:
        state = moment.state
        values = {"val_loss": self._mean_loss(state.params, state.step)}
        if state.ema is not None:
            values["ema_val_loss"] = self._mean_loss(state.ema, state.step)
        self.writer.write(moment.step, values)
        self.judged.clear()
        self.judged[moment.step] = values

    def _mean_loss(self, params, step) -> float:
        return float(np.mean([float(self.eval_step(params, step, b)) for b in self.batches]))


@dataclasses.dataclass
class Save:
    """Saves state and data position.

    It comes after what writes metrics: a checkpoint implies that the lines of its step are there.

    Attributes:
      judged: step -> validation metrics, of which the best checkpoint is chosen.
    """

    every: int
    checkpointer: Checkpointer
    clock: Clock
    global_batch_size: int
    judged: Mapping[int, Mapping[str, float]]

    def __call__(self, moment: Moment) -> None:
        self.clock.kept = self.clock.seconds()
        self.checkpointer.save(
            moment.state,
            data={"step": moment.step, "examples": moment.step * self.global_batch_size},
            progress={"seconds": self.clock.kept},
            metrics=self.judged.get(moment.step),
        )
        self.clock.mark(moment.step)  # neither judging nor saving is training
