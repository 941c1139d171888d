"""The training loop: it moves data and calls hooks; the mathematics is in `step`."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from fetalclip_jax import continuation
from fetalclip_jax.config import build_model, flatten, load_config
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.parallel import sharding
from fetalclip_jax.run import Run, write_json
from fetalclip_jax.training import (
    agreement,
    checkpoint,
    hooks,
    inputs,
    metrics,
    objective,
    preemption,
    state,
    step,
)
from fetalclip_jax.training.optimizer import learning_rate_schedule, make_optimizer


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    allow_config_change: bool = False,
    notice: preemption.Notice | None = None,
) -> state.TrainState:
    """Trains to `config.train.steps`, going on from the latest checkpoint under `workdir`.

    The seconds it reports are those of work that was kept: what a kill threw away is not counted.

    A run that was killed anywhere and started again ends with bitwise the parameters of one that
    was not: every random choice is a function of seed, example and epoch, and state and data
    position are saved together.

    Args:
      allow_config_change: go on with other settings than the run's, where its parameters fit them.
      notice: asked after each step whether to stop there, saved.

    Returns:
      The state at the end, or where a notice stopped it.

    Raises:
      ValueError: a field of `config` that cannot work; a `workdir` of another experiment or that
        another process works in; checkpoints that cannot be written.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"this job has {jax.process_count()} processes; training runs in one process with all "
            "its devices"
        )
    start, run = time.time(), Run(workdir)
    notice = notice or preemption.Notice()
    plan = run.claim(config, allow_config_change=allow_config_change)
    mesh = meshes.make_mesh(**config.mesh)
    _check_numbers(config, mesh)
    parts = _build(config, mesh)
    dataset = inputs.open_records(config, run.workdir, "train")
    tokenizer = inputs.open_tokenizer(config, run.workdir)
    with contextlib.closing(_checkpointer(config, run, tokenizer)) as checkpointer:
        if checkpointer.latest_step() is None:
            current, kept = _first_state(config, parts.new_state(), parts.abstract), 0.0
        else:
            current, progress = checkpointer.restore(parts.abstract, newest=plan.newest)
            kept = progress["seconds"]
            agreement.say(f"Continuing from step {int(current.step)} in {run.workdir}")
            run.accept(config, plan.changes, int(current.step))
        first, last = int(current.step), config.train.steps
        held_out = [
            sharding.global_batch(batch, mesh)
            for batch in inputs.validation_batches(config, run.workdir, tokenizer, _shards(mesh))
        ]
        bar = tqdm(range(first, last), initial=first, total=last, desc="training", unit="step")
        # Preparing records and vocabulary is part of what a run costs; it happens once.
        clock = hooks.Clock(start, kept, first)
        with (
            contextlib.closing(
                inputs.train_batches(config, dataset, tokenizer, first_step=first)
            ) as iterator,
            contextlib.closing(metrics.MetricsWriter(run.workdir, first)) as writer,
        ):
            evaluate = hooks.Evaluate(
                config.train.checkpoint_every, writer, parts.eval_step, held_out
            )
            save = hooks.Save(
                config.train.checkpoint_every,
                checkpointer,
                clock,
                config.train.global_batch_size,
                evaluate.judged,
            )
            actions = _in_order(config, _log(config, writer, bar, clock), evaluate, save)
            at_once = (hooks.Watch(1, config.optimizer.learning_rate), save)
            plateau_end = continuation.plateau_end(flatten(config))
            for index in bar:
                batch = sharding.global_batch(next(iterator), mesh)
                current, values = parts.train_step(current, batch)
                done = index + 1
                notice.started()
                moment = hooks.Moment(done, current, values, last=done == last)
                hooks.call(actions, moment)
                stopping = notice.reached(done)
                if stopping or done == plateau_end:
                    hooks.call(at_once, dataclasses.replace(moment, last=True))
                if stopping:
                    break
        checkpointer.finish()
        bar.close()
    if int(current.step) < last:
        agreement.say(
            f"Stopped at step {int(current.step)} of {last}, saved; run the same command to go on"
        )
        return current
    summary = run.results / "train.json"
    if first < last or not summary.exists():
        write_json(summary, _summary(config, current, clock.kept))
    return current


def _checkpointer(config, run: Run, tokenizer) -> checkpoint.Checkpointer:
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


def _log(
    config: ConfigDict, writer: metrics.MetricsWriter, bar: tqdm, clock: hooks.Clock
) -> hooks.Log:
    schedule = learning_rate_schedule(config.optimizer, config.train.steps)
    settings = config.train
    return hooks.Log(settings.log_every, writer, bar, clock, schedule, settings.global_batch_size)


def _in_order(
    config: ConfigDict, log: hooks.Log, evaluate: hooks.Evaluate, save: hooks.Save
) -> tuple[hooks.Hook, ...]:
    """What is not finite is neither logged nor saved; what is saved has been logged."""
    rate = config.optimizer.learning_rate
    return (hooks.Watch(log.every, rate), log, hooks.Watch(save.every, rate), evaluate, save)


def _shards(mesh: Mesh) -> int:
    """How many parts a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _check_numbers(config: ConfigDict, mesh: Mesh) -> None:
    positive = ("steps", "log_every", "checkpoint_every", "keep_checkpoints", "global_batch_size")
    for name in positive:
        if config.train[name] < 1:
            raise ValueError(f"config.train.{name}={config.train[name]} must be at least 1")
    if not 0 <= config.train.ema_decay < 1:
        raise ValueError(
            f"config.train.ema_decay={config.train.ema_decay} is not from 0 (no average) to below 1"
        )
    validated = ("val_loss", "ema_val_loss") if config.train.ema_decay else ("val_loss",)
    if config.train.keep_best not in ("", *validated):
        raise ValueError(
            f"config.train.keep_best={config.train.keep_best!r} is not measured in validation; use "
            f"{' or '.join(validated)}, or an empty text for none"
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
