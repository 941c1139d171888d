"""Watches the numbers of a run: steps that were skipped, losses that jump."""

import csv
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.training.hooks import Moment
from fetalclip_jax.training.spikes import Spikes

# Examples that a line on the terminal names.
_FEW = 3


class SkippedExamples:
    """`<workdir>/skipped/<process>.csv`: the examples of skipped steps that this process supplied.

    Args:
      resume_step: rows of later steps belong to work that was lost with a process.
      example_ids: of all records of the data set, [n]; called when they are first needed.
    """

    def __init__(
        self,
        folder: storage.Path,
        process: int,
        resume_step: int,
        example_ids: Callable[[], Sequence[str]],
    ):
        self.path = folder / f"{process}.csv"
        self._example_ids = example_ids
        self._loaded: Sequence[str] | None = None
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit()]
            self._write("w", [row for row in rows if int(row[0]) <= resume_step])

    def add(self, records: dict[int, np.ndarray]) -> list[str]:
        """Appends the examples of steps -> record numbers; gives their ids."""
        if self._loaded is None:
            self._loaded = self._example_ids()
        rows = [
            (step, str(self._loaded[number]))
            for step, numbers in records.items()
            for number in numbers
        ]
        self._write("a", rows)
        return [name for _, name in rows]

    def _write(self, mode: str, rows) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = mode == "w" or not self.path.exists()
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("step", "example_id"), *rows] if new else rows)


@dataclasses.dataclass
class Watch:
    """Counts skipped steps and spikes of the loss, says them, and stops a run that learns nothing.

    It is called after each step and looks at the numbers, which are on the devices, only now and
    then: looking waits for the step.

    Attributes:
      looks: it looks at steps that one of these divides, and at the last.
      most: skipped steps in a row that a run stops after.
      learning_rate: `config.optimizer.learning_rate`, to say what to lower.
      examples: keeps the examples of skipped steps.
      last_checkpoint: step of the latest one, or None.
      say: prints a line.
      skipped: steps skipped so far.
      spikes: of the loss.
    """

    with_saves: ClassVar[bool] = True

    looks: tuple[int, ...]
    most: int
    learning_rate: float
    examples: SkippedExamples
    last_checkpoint: Callable[[], int | None]
    say: Callable[[str], None]
    skipped: int = 0
    spikes: Spikes = dataclasses.field(default_factory=Spikes)
    every: int = 1
    _unseen: list = dataclasses.field(default_factory=list)
    _row: list = dataclasses.field(default_factory=list)  # the steps in a row skipped until now

    def __call__(self, moment: Moment) -> None:
        """Raises ValueError where too many steps in a row were skipped."""
        numbers = [moment.metrics[name] for name in ("loss", "gradient_norm", "skipped")]
        self._unseen.append((moment.step, numbers, moment.records))
        if moment.last or any(moment.step % every == 0 for every in self.looks):
            self._look()

    def counts(self) -> dict[str, int]:
        """For the metrics, and for the checkpoint: a run that goes on counts on."""
        return {"skipped_steps": self.skipped, "loss_spikes": self.spikes.count}

    def _look(self) -> None:
        steps, numbers, records = zip(*self._unseen, strict=True)
        self._unseen.clear()
        numbers = jax.device_get(numbers)
        skipped = {}
        longest: list[int] = []
        for step, (loss, norm, skip), rows in zip(steps, numbers, records, strict=True):
            self._judge(step, float(loss))
            if skip:
                skipped[step] = (rows, float(loss), float(norm))
                self._row.append(step)
                longest = max(longest, list(self._row), key=len)
            else:
                self._row.clear()
        if not skipped:
            return
        self.skipped += len(skipped)
        names = self.examples.add({step: rows for step, (rows, *_) in skipped.items()})
        if len(longest) >= self.most:
            raise ValueError(self._stop(longest, names))
        loss, norm = next(iter(skipped.values()))[1:]
        self.say(
            f"skipped {_ranges(list(skipped))}: loss {loss:g}, gradient norm {norm:g}; of its "
            f"examples {_first(names)} (all: {self.examples.path}); {self.skipped} skipped so far"
        )

    def _judge(self, step: int, loss: float) -> None:
        usual = self.spikes.add(loss)
        if usual is not None:
            median, deviation = usual
            self.say(
                f"loss spike at step {step}: {loss:.3f}, before it {median:.3f} +- {deviation:.3f}"
            )

    def _stop(self, steps: list[int], names: list[str]) -> str:
        checkpoint = self.last_checkpoint()
        last, way_on = "no checkpoint was written before", "start again with a lower"
        if checkpoint is not None:
            last = f"the last good checkpoint is of step {checkpoint}"
            way_on = "go on from it, with --allow-config-change, with a lower"
        return (
            f"{len(steps)} steps in a row had a loss or gradient that is not finite and were "
            f"skipped ({_ranges(steps)}; config.train.max_skipped_steps={self.most}); {last}; the "
            f"examples of these batches are listed in {self.examples.path}, first "
            f"{_first(names)}: look at them, or {way_on} learning rate, such as "
            f"--config.optimizer.learning_rate={self.learning_rate / 2:g}"
        )


def _ranges(steps: list[int]) -> str:
    """ "steps 3 to 5, 9"."""
    found = []
    for _, group in itertools.groupby(enumerate(steps), lambda pair: pair[1] - pair[0]):
        run = [step for _, step in group]
        found.append(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]))
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(found)}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
