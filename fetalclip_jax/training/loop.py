"""The training loop: it moves data and calls hooks; the mathematics is in `step`."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fetalclip_jax import continuation, storage, tokenizers
from fetalclip_jax.config import flatten
from fetalclip_jax.parallel import distributed, sharding
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.run import Run, write_json
from fetalclip_jax.training import (
    checkpoint,
    feeding,
    goodput,
    heartbeat,
    hooks,
    inputs,
    instruments,
    metrics,
    origin,
    preemption,
    program,
    state,
)

# May differ between the hosts of a job.
_FIELDS_OF_A_HOST = ("data.root", "data.workers", "data.loader_workers")


def train(
    config: ConfigDict,
    workdir: str | storage.Path,
    *,
    allow_config_change: bool = False,
    notice: preemption.Notice | None = None,
    judge: Callable[..., Callable] | None = None,
    began: float | None = None,
) -> state.TrainState:
    """Trains to `config.train.steps`, going on from the latest checkpoint under `workdir`.

    The seconds it reports are those of work that was kept: what a kill threw away is not counted.

    A run that was killed anywhere and started again ends with bitwise the parameters of one that
    was not: every random choice is a function of seed, example and epoch, and state and data
    position are saved together.

    Args:
      allow_config_change: go on with other settings than the run's, where its parameters fit them.
      notice: asked after each step whether to stop there, saved.
      judge: `evaluation.validation.judge`, which runs `config.train.studies`. It is handed down,
        for evaluation builds upon training.
      began: `time.time()` when the program began: what it imported is part of what a run costs.

    Returns:
      The state at the end, or where a notice stopped it.

    Raises:
      ValueError: a field of `config` that cannot work; a `workdir` of another experiment or that
        another process works in; checkpoints that cannot be written; too many steps in a row that
        were not finite.
    """
    began, run = began or time.time(), Run(workdir)
    config = origin.with_its_model(config, run.workdir)
    notice = notice or preemption.Notice()
    if not run.steps():  # one that has started has its parameters: the origin may be gone
        origin.check(config)
    plan = _claim(run, config, allow_config_change)
    mesh = meshes.make_mesh(**config.mesh)
    _check_numbers(config, mesh)
    _check_studies(config, judge)
    parts, part = program.build(config, mesh), sharding.batch_part(mesh)
    dataset = inputs.examples(config, run.workdir, "train")
    tokenizer = inputs.open_tokenizer(config, run.workdir)
    measure = judge(config, run.workdir, tokenizer) if config.train.studies else None
    with (
        contextlib.ExitStack() as stack,  # closed last: the end waits for the last checkpoint
        contextlib.closing(_checkpointer(config, run, tokenizer)) as checkpointer,
        distributed.failing_together(),
    ):
        # A disk that hosts share may show one of them what was there before.
        distributed.agree(
            {
                "records": [len(dataset), dataset.fingerprint],
                "tokenizer": tokenizer.fingerprint,
                "the latest checkpoint": checkpointer.latest_step(),
            },
            "start again once all hosts see the same files",
        )
        if checkpointer.latest_step() is None:
            current, done = _first_state(config, parts.new_state(), mesh), {}
        else:
            current, done = checkpointer.restore(parts.abstract, newest=plan.newest)
            distributed.say(f"Continuing from step {int(current.step)} in {run.workdir}")
            run.accept(config, plan.changes, int(current.step))
        first, last = int(current.step), config.train.steps
        shards = sharding.batch_shards(mesh) * config.train.micro_batches
        held_out = [
            feeding.cut_texts(batch, mesh)
            for batch in inputs.validation_batches(
                config, run.workdir, tokenizer, shards, part=part
            )
        ]
        stream = inputs.train_batches(config, dataset, tokenizer, first_step=first, part=part)
        stack.enter_context(contextlib.closing(stream))
        # Preparing records and vocabulary is part of what a run costs; it happens once.
        clock = goodput.Clock(began, _spent(run, done, first))
        view = instruments.open_all(stack, config, run, clock, first)
        watch = view.watch(checkpointer.latest_step, dataset, done)
        evaluate = view.evaluate(parts.eval_step, held_out)
        save = view.save(checkpointer, watch.counts, evaluate.judged)
        actions = (watch, view.log(watch.counts), evaluate, *view.judges(measure), save)
        batches = feeding.placed(stream, mesh, view.flight.make_room)
        current = _steps(current, parts.train_step, batches, view, actions, notice)
        clock.enter("save")
        checkpointer.finish()
    if int(current.step) < last:
        distributed.say(
            f"Stopped at step {int(current.step)} of {last}, saved; run the same command to go on"
        )
        return current
    summary = run.results / "train.json"
    if first < last or not summary.exists():
        spent = clock.by_phase()
        distributed.say(f"{last} steps, goodput {goodput.in_words(spent)}")
        content = _summary(config, current, clock.kept) | view.summary(watch.counts())
        write_json(summary, content)
    return current


def check(config: ConfigDict, workdir: str | storage.Path) -> None:
    """Looks at all that can be known of a run without its data, and writes nothing.

    Raises:
      ValueError: a field of `config` that cannot work on the devices there are; an origin that
        `config.init_from` does not find, or of another model.
    """
    run = Run(workdir)
    config = origin.with_its_model(config, run.workdir)
    if not run.steps():
        origin.check(config)
    mesh = meshes.make_mesh(**config.mesh)
    _check_numbers(config, mesh)
    program.build(config, mesh)


def _steps(
    current: state.TrainState,
    train_step: Callable,
    batches: Iterator[tuple[dict[str, jax.Array], feeding.Batch]],
    view: instruments.Instruments,
    actions: Sequence[hooks.Hook],
    notice: preemption.Notice,
) -> state.TrainState:
    """Steps and hooks, from the next step to the last or to where a notice stops them."""
    last, lengths = view.config.train.steps, set()
    plateau_end = continuation.plateau_end(flatten(view.config))
    # What crosses between host and devices unasked waits for them: in a loop that is an error.
    with jax.transfer_guard("disallow"):
        for done in range(view.first + 1, last + 1):
            view.clock.enter("data_wait")
            batch, local = next(batches)
            view.clock.busy(view.flight.busy_until())
            view.clock.enter("step")
            view.flight.make_room()
            pairs, length = batch["tokens"].shape
            view.clock.enter("step" if length in lengths else "compile")
            lengths.add(length)
            current, values = train_step(current, batch)
            view.clock.enter("step")
            view.flight.started(done, values["loss"])
            view.meter.count(pairs, length)
            notice.started()
            stopping = notice.reached(done)
            moment = hooks.Moment(done, current, values, done == last, local["record"])
            # From the end of its plateau a run can be extended.
            hooks.call(actions, moment, saving=stopping or done == plateau_end)
            view.progress.step()
            if stopping:
                break
    return current


def _claim(run: Run, config: ConfigDict, allow_config_change: bool) -> continuation.Continuation:
    """Makes sure that all processes train the same in the same folder, and claims it once."""
    settings = {
        f"config.{name}": value
        for name, value in flatten(config).items()
        if name not in _FIELDS_OF_A_HOST
    }
    distributed.agree(settings, "start all with the same configuration")
    plan = distributed.on_lead(
        lambda: dataclasses.asdict(run.claim(config, allow_config_change=allow_config_change))
    )
    distributed.check_shared(run.workdir)
    return continuation.Continuation(**plan)


def _checkpointer(
    config: ConfigDict, run: Run, tokenizer: tokenizers.Tokenizer
) -> checkpoint.Checkpointer:
    settings = config.train
    plateau_end = continuation.plateau_end(flatten(config))
    return checkpoint.Checkpointer(
        run.workdir,
        settings.keep_checkpoints,
        keep_best=settings.keep_best,
        # From where the run can be extended.
        milestone=plateau_end if config.optimizer.cooldown_steps else None,
        tokenizer=tokenizer.fingerprint,
    )


def _check_studies(config: ConfigDict, judge: Callable | None) -> None:
    settings = config.train
    if bool(settings.studies) != bool(settings.study_every):
        raise ValueError(
            f"config.train.studies={tuple(settings.studies)} and config.train.study_every="
            f"{settings.study_every}: give both, or neither"
        )
    if settings.studies and judge is None:
        raise ValueError(
            "config.train.studies need evaluation: pass judge=fetalclip_jax.evaluation.validation"
            ".judge, as `fetalclip train` does"
        )


def _spent(run: Run, done: Mapping[str, Any], step: int) -> dict[str, float]:
    """Seconds by phase of the processes before this one."""
    # Checkpoints of earlier versions hold their sum alone.
    spent = done.get("seconds_by_phase") or {"step": done.get("seconds", 0.0)}
    return goodput.continued(spent, step, heartbeat.read(run.heartbeats).get(0))


def _check_numbers(config: ConfigDict, mesh: Mesh) -> None:
    settings = config.train
    for name in (
        *("steps", "log_every", "checkpoint_every", "keep_checkpoints"),
        *("global_batch_size", "micro_batches", "max_skipped_steps"),
    ):
        if settings[name] < 1:
            raise ValueError(f"config.train.{name}={settings[name]} must be at least 1")
    for name in ("stall_seconds", "study_every"):
        if settings[name] < 0:
            raise ValueError(f"config.train.{name}={settings[name]} must be 0 (never) or above")
    if not 0 <= settings.ema_decay < 1:
        raise ValueError(
            f"config.train.ema_decay={settings.ema_decay} is not from 0 (no average) to below 1"
        )
    inputs.mixed_in(config)
    validated = ("val_loss", "ema_val_loss") if settings.ema_decay else ("val_loss",)
    if settings.keep_best not in ("", *validated):
        raise ValueError(
            f"config.train.keep_best={settings.keep_best!r} is not measured in validation; use "
            f"{' or '.join(validated)}, or an empty text for none"
        )
    program.check_batch(config, mesh)


def _first_state(config: ConfigDict, new: state.TrainState, mesh: Mesh) -> state.TrainState:
    """`new`, with the parameters of `config.init_from` where it names an origin."""
    if not config.init_from:
        return new
    params = origin.read_params(config, new.params, mesh)
    if new.ema is None:
        return new.replace(params=params)
    return new.replace(params=params, ema=jax.tree.map(lambda leaf: leaf.copy(), params))


def _summary(config: ConfigDict, current: state.TrainState, seconds: float) -> dict:
    return {
        "seconds": seconds,
        "steps": config.train.steps,
        "images_seen": config.train.steps * config.train.global_batch_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(current.params)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "peak_rss_gib": metrics.peak_rss_gib(),
    }
