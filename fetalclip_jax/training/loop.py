"""The training loop: it moves data and calls hooks; the mathematics is in `step`."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fetalclip_jax.config import build_model, flatten, load_config
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.parallel import sharding
from fetalclip_jax.run import Run, is_lead, write_json
from fetalclip_jax.training import (
    checkpoint,
    goodput,
    heartbeat,
    hooks,
    inputs,
    instruments,
    metrics,
    objective,
    state,
    step,
)
from fetalclip_jax.training.optimizer import make_optimizer


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    judge: Callable[..., Callable] | None = None,
    began: float | None = None,
) -> state.TrainState:
    """Trains to `config.train.steps`, going on from the latest checkpoint under `workdir`.

    The seconds it reports are those of work that was kept: what a kill threw away is not counted.

    A run that was killed anywhere and started again ends with bitwise the parameters of one that
    was not: every random choice is a function of seed, example and epoch, and state and data
    position are saved together.

    Args:
      judge: `evaluation.validation.judge`, which runs `config.train.studies`. It is handed down,
        for evaluation builds upon training.
      began: `time.time()` when the program began: what it imported is part of what a run costs.

    Raises:
      ValueError: a field of `config` that cannot work; a `workdir` of another experiment or that
        another process works in; too many steps in a row that were not finite.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"this job has {jax.process_count()} processes; training runs in one process with all "
            "its devices"
        )
    began, run = began or time.time(), Run(workdir)
    run.claim(config)
    mesh = meshes.make_mesh(**config.mesh)
    _check_numbers(config, mesh)
    _check_studies(config, judge)
    parts = _build(config, mesh)
    dataset = inputs.open_records(config, run.workdir, "train")
    tokenizer = inputs.open_tokenizer(config, run.workdir)
    measure = judge(config, run.workdir, tokenizer) if config.train.studies else None
    with (
        contextlib.ExitStack() as stack,  # closed last: the end waits for the last checkpoint
        contextlib.closing(inputs.train_batches(config, dataset, tokenizer)) as iterator,
        contextlib.closing(checkpoint.Checkpointer(run.workdir)) as checkpointer,
    ):
        if checkpointer.latest_step() is None:
            current, done = _first_state(config, parts.new_state(), parts.abstract), {}
        else:
            current, done = checkpointer.restore(parts.abstract, iterator)
            print(f"Continuing from step {int(current.step)} in {run.workdir}", flush=True)
        first, last = int(current.step), config.train.steps
        held_out = [
            sharding.global_batch(batch, mesh)
            for batch in inputs.validation_batches(config, run.workdir, tokenizer, _shards(mesh))
        ]
        # Preparing records and vocabulary is part of what a run costs; it happens once.
        clock = goodput.Clock(began, _spent(run, done, first))
        view = instruments.open_all(stack, config, run, clock, first)
        watch = view.watch(checkpointer.latest_step, dataset, done)
        actions = (
            watch,
            view.log(watch.counts),
            view.evaluate(parts.eval_step, held_out),
            *view.judges(measure),
            hooks.Save(config.train.checkpoint_every, checkpointer, iterator, clock, watch.counts),
        )
        current = _steps(current, parts.train_step, iterator, mesh, view, actions)
        clock.enter("save")
    summary = run.results / "train.json"
    if first < last or not summary.exists():
        if is_lead():
            print(f"{last} steps, goodput {goodput.in_words(clock.by_phase())}", flush=True)
        content = _summary(config, current, clock.kept) | view.summary(watch.counts())
        write_json(summary, content)
    return current


def _steps(
    current: state.TrainState,
    train_step: Callable,
    iterator: Iterator[dict[str, np.ndarray]],
    mesh: Mesh,
    view: instruments.Instruments,
    actions: Sequence[hooks.Hook],
) -> state.TrainState:
    """Steps and hooks, from the next step to the last."""
    last, lengths = view.config.train.steps, set()
    # What crosses between host and devices unasked waits for them: in a loop that is an error.
    with jax.transfer_guard("disallow"):
        for done in range(view.first + 1, last + 1):
            view.clock.enter("data_wait")
            local = next(iterator)
            view.clock.busy(view.flight.busy_until())
            view.clock.enter("step")
            batch = sharding.global_batch(local, mesh)
            pairs, length = batch["tokens"].shape
            view.flight.make_room()
            if length not in lengths:
                view.clock.enter("compile")
                lengths.add(length)
            current, values = train_step(current, batch)
            view.clock.enter("step")
            view.flight.started(done, values["loss"])
            view.meter.count(pairs, length)
            hooks.call(actions, hooks.Moment(done, current, values, done == last, local["record"]))
            view.progress.step()
    return current


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a configuration describes, ready to run."""

    abstract: state.TrainState
    new_state: Callable[[], state.TrainState]
    train_step: Callable
    eval_step: Callable


def _build(config: ConfigDict, mesh: Mesh) -> _Parts:
    model = build_model(config)
    target = objective.create(config.loss.kind, model)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    born = {"seed": config.seed, "with_ema": config.train.ema_decay > 0}
    abstract, shardings = state.abstract_state(model, optimizer, mesh, **born)
    return _Parts(
        abstract=abstract,
        new_state=functools.partial(state.create_state, model, optimizer, mesh, **born),
        train_step=step.make_train_step(
            target,
            optimizer,
            mesh,
            shardings,
            seed=config.seed,
            ema_decay=config.train.ema_decay,
        ),
        eval_step=step.make_eval_step(target, mesh, shardings),
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


def _shards(mesh: Mesh) -> int:
    """How many parts a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _check_numbers(config: ConfigDict, mesh: Mesh) -> None:
    for name in ("steps", "log_every", "checkpoint_every", "global_batch_size"):
        if config.train[name] < 1:
            raise ValueError(f"config.train.{name}={config.train[name]} must be at least 1")
    if config.train.max_skipped_steps < 1:
        raise ValueError(
            f"config.train.max_skipped_steps={config.train.max_skipped_steps} must be at least 1"
        )
    for name in ("stall_seconds", "study_every"):
        if config.train[name] < 0:
            raise ValueError(f"config.train.{name}={config.train[name]} must be 0 (never) or above")
    if not 0 <= config.train.ema_decay < 1:
        raise ValueError(
            f"config.train.ema_decay={config.train.ema_decay} is not from 0 (no average) to below 1"
        )
    if config.train.global_batch_size % _shards(mesh):
        raise ValueError(
            f"config.train.global_batch_size={config.train.global_batch_size} is not a multiple of "
            f"the {_shards(mesh)} devices it is split over"
        )


def _first_state(
    config: ConfigDict, new: state.TrainState, abstract: state.TrainState
) -> state.TrainState:
    """`new`, with the parameters of `config.init_from` where it names a run."""
    if not config.init_from:
        return new
    origin = Run(config.init_from)
    there, here = flatten(load_config(origin.config).model), flatten(config.model)
    if there != here:
        raise ValueError(
            f"config.init_from={origin.workdir} has another model: "
            + "; ".join(
                f"{name}: {there[name]!r} there, {here[name]!r} here"
                for name in sorted(there)
                if there[name] != here[name]
            )
        )
    params = checkpoint.restore_params(origin.workdir, abstract.params)
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
