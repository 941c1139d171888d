"""What a run is seen by: clock, heartbeat, meter, metrics and progress, opened as one."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fetalclip_jax.config import images_per_example
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.run import Run, is_lead
from fetalclip_jax.training import goodput, hooks
from fetalclip_jax.training.checkpoint import Checkpointer
from fetalclip_jax.training.flight import Flight
from fetalclip_jax.training.heartbeat import Heartbeat
from fetalclip_jax.training.metrics import MetricsWriter
from fetalclip_jax.training.optimizer import learning_rate_schedule
from fetalclip_jax.training.progress import Progress
from fetalclip_jax.training.spikes import Spikes
from fetalclip_jax.training.telemetry import Meter
from fetalclip_jax.training.watch import SkippedExamples, Watch


@dataclasses.dataclass(frozen=True)
class Instruments:
    """Everything that looks at a run and changes nothing in it.

    Attributes:
      config: of the experiment.
      run: its folder.
      first: steps done before this process.
      clock, flight, meter, progress, writer: see their modules.
    """

    config: ConfigDict
    run: Run
    first: int
    clock: goodput.Clock
    flight: Flight
    meter: Meter
    progress: Progress
    writer: MetricsWriter

    def watch(
        self, last_checkpoint: Callable[[], int | None], dataset, done: Mapping[str, Any]
    ) -> Watch:
        """The hook that comes first; `done` is what the checkpoint says of the run so far."""
        settings = self.config.train
        examples = SkippedExamples(
            self.run.skipped,
            jax.process_index(),
            self.first,
            lambda: dataset.metadata()["example_id"],
        )
        return Watch(
            looks=(settings.log_every, settings.checkpoint_every),
            most=settings.max_skipped_steps,
            learning_rate=self.config.optimizer.learning_rate,
            examples=examples,
            last_checkpoint=last_checkpoint,
            say=self.say,
            skipped=done.get("skipped_steps", 0),
            spikes=Spikes(done.get("loss_spikes", 0)),
        )

    def log(self, counts: Callable[[], Mapping[str, int]]) -> hooks.Log:
        settings = self.config.train
        return hooks.Log(
            settings.log_every,
            self.writer,
            self.progress,
            self.clock,
            self.meter,
            learning_rate_schedule(self.config.optimizer, settings.steps),
            settings.steps,
            counts,
        )

    def evaluate(
        self, eval_step: Callable, batches: Sequence[Mapping[str, jax.Array]]
    ) -> hooks.Evaluate:
        every = self.config.train.checkpoint_every
        return hooks.Evaluate(every, self.writer, eval_step, batches, self.clock, self.say)

    def judges(self, measure: Callable | None) -> Iterator[hooks.Judge]:
        if measure is not None:
            every = self.config.train.study_every
            yield hooks.Judge(every, self.writer, measure, self.clock)

    def save(
        self,
        checkpointer: Checkpointer,
        counts: Callable[[], Mapping[str, int]],
        judged: Mapping[int, Mapping[str, float]],
    ) -> hooks.Save:
        settings = self.config.train
        return hooks.Save(
            settings.checkpoint_every,
            checkpointer,
            self.clock,
            counts,
            settings.global_batch_size,
            judged,
            self.writer.send,
        )

    def say(self, line: str) -> None:
        """Prints a line that is the same in every process, once."""
        if is_lead():
            self.progress.say(line)

    def summary(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """For `results/train.json`."""
        return {**counts, **self.meter.overall(), "goodput": goodput.summary(self.clock.by_phase())}


def open_all(
    stack: contextlib.ExitStack, config: ConfigDict, run: Run, clock: goodput.Clock, first: int
) -> Instruments:
    """Opens all of them; `stack` closes them.

    Raises:
      ValueError: Weights & Biases is asked for and not installed.
    """
    settings = config.train
    writer = MetricsWriter(
        run.workdir,
        first,
        wandb_project=settings.wandb_project,
        settings=config.to_dict(),
    )
    stack.enter_context(contextlib.closing(writer))
    progress = Progress(first, settings.steps, silent=not is_lead())
    stack.enter_context(contextlib.closing(progress))
    flight = Flight(first)
    stack.enter_context(contextlib.closing(flight))
    stack.enter_context(
        contextlib.closing(
            Heartbeat(
                run.heartbeats,
                clock,
                flight,
                process=jax.process_index(),
                processes=jax.process_count(),
                stall_seconds=settings.stall_seconds,
                say=progress.say,
            )
        )
    )
    model = CLIPConfig.from_dict(config.model.to_dict())
    meter = Meter(model, config.compute.dtype, images_per_example(config))
    return Instruments(config, run, first, clock, flight, meter, progress, writer)
