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

from fetalclip_jax.config import build_model, flatten, load_config
from fetalclip_jax.parallel import distributed, sharding
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.run import Run, write_json
from fetalclip_jax.training import (
    checkpoint,
    feeding,
    hooks,
    inputs,
    metrics,
    objective,
    optimizer,
    state,
    step,
)

# May differ between the hosts of a job.
_FIELDS_OF_A_HOST = ("data.root", "data.workers")


def train(config: ConfigDict, workdir: str | pathlib.Path) -> state.TrainState:
    """Trains to `config.train.steps`, going on from the latest checkpoint under `workdir`.

    The seconds it reports are those of work that was kept: what a kill threw away is not counted.

    A run that was killed anywhere and started again ends with bitwise the parameters of one that
    was not: every random choice is a function of seed, example and epoch, and state and data
    position are saved together.

    Raises:
      ValueError: a field of `config` that cannot work; a `workdir` of another experiment or that
        another process works in.
    """
    start, run = time.time(), Run(workdir)
    _claim(run, config)
    mesh = meshes.make_mesh(**config.mesh)
    _check_numbers(config, mesh)
    parts, part = _build(config, mesh), sharding.batch_part(mesh)
    dataset = inputs.open_records(config, run.workdir, "train")
    tokenizer = inputs.open_tokenizer(config, run.workdir)
    with (
        contextlib.closing(checkpoint.Checkpointer(run.workdir)) as checkpointer,
        contextlib.ExitStack() as opened,
        distributed.failing_together(),
    ):
        if checkpointer.latest_step() is None:
            current, kept = _first_state(config, parts.new_state(), parts.abstract), 0.0
        else:
            current, progress = checkpointer.restore(parts.abstract)
            kept = progress["seconds"]
            print(f"Continuing from step {int(current.step)} in {run.workdir}", flush=True)
        first, last = int(current.step), config.train.steps
        iterator = opened.enter_context(
            contextlib.closing(
                inputs.train_batches(config, dataset, tokenizer, first_step=first, part=part)
            )
        )
        held_out = [
            feeding.cut_texts(batch, mesh)
            for batch in inputs.validation_batches(
                config, run.workdir, tokenizer, sharding.batch_shards(mesh), part=part
            )
        ]
        bar = tqdm(range(first, last), initial=first, total=last, desc="training", unit="step")
        # Preparing records and vocabulary is part of what a run costs; it happens once.
        clock = hooks.Clock(start, kept, first)
        with contextlib.closing(metrics.MetricsWriter(run.workdir, first)) as writer:
            evaluate = hooks.Evaluate(
                config.train.checkpoint_every, writer, parts.eval_step, held_out
            )
            save = hooks.Save(config.train.checkpoint_every, checkpointer, clock)
            actions = _in_order(config, _log(config, writer, bar, clock), evaluate, save)
            batches = feeding.placed(iterator, mesh)
            for index in bar:
                batch, _ = next(batches)
                current, values = parts.train_step(current, batch)
                done = index + 1
                hooks.call(actions, hooks.Moment(done, current, values, last=done == last))
    summary = run.results / "train.json"
    if first < last or not summary.exists():
        write_json(summary, _summary(config, current, clock.kept))
    return current


def _claim(run: Run, config: ConfigDict) -> None:
    """Makes sure that all processes train the same in the same folder, and claims it once."""
    settings = {
        f"config.{name}": value
        for name, value in flatten(config).items()
        if name not in _FIELDS_OF_A_HOST
    }
    distributed.agree(settings, "start all with the same configuration")
    distributed.on_lead(lambda: run.claim(config))
    distributed.check_shared(run.workdir)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a configuration describes, ready to run."""

    abstract: state.TrainState
    new_state: Callable[[], state.TrainState]
    train_step: Callable
    eval_step: Callable


def _build(config: ConfigDict, mesh: Mesh) -> _Parts:
    model = build_model(config)
    target = objective.create(config.loss, model, mesh)
    rule = optimizer.make_optimizer(config.optimizer, config.train.steps)
    born = {"seed": config.seed, "with_ema": config.train.ema_decay > 0}
    abstract, shardings = state.abstract_state(model, rule, mesh, **born)
    return _Parts(
        abstract=abstract,
        new_state=functools.partial(state.create_state, model, rule, mesh, **born),
        train_step=step.make_train_step(
            target,
            rule,
            mesh,
            shardings,
            seed=config.seed,
            ema_decay=config.train.ema_decay,
            micro_batches=config.train.micro_batches,
            trained=functools.partial(optimizer.trained, config.optimizer),
        ),
        eval_step=step.make_eval_step(target, mesh, shardings),
    )


def _log(
    config: ConfigDict, writer: metrics.MetricsWriter, bar: tqdm, clock: hooks.Clock
) -> hooks.Log:
    schedule = optimizer.learning_rate_schedule(config.optimizer, config.train.steps)
    settings = config.train
    return hooks.Log(settings.log_every, writer, bar, clock, schedule, settings.global_batch_size)


def _in_order(
    config: ConfigDict, log: hooks.Log, evaluate: hooks.Evaluate, save: hooks.Save
) -> tuple[hooks.Hook, ...]:
    """What is not finite is neither logged nor saved; what is saved has been logged."""
    rate = config.optimizer.learning_rate
    return (hooks.Watch(log.every, rate), log, hooks.Watch(save.every, rate), evaluate, save)


def _check_numbers(config: ConfigDict, mesh: Mesh) -> None:
    for name in ("steps", "log_every", "checkpoint_every", "global_batch_size", "micro_batches"):
        if config.train[name] < 1:
            raise ValueError(f"config.train.{name}={config.train[name]} must be at least 1")
    if not 0 <= config.train.ema_decay < 1:
        raise ValueError(
            f"config.train.ema_decay={config.train.ema_decay} is not from 0 (no average) to below 1"
        )
    size, parts = config.train.global_batch_size, config.train.micro_batches
    if size % (sharding.batch_shards(mesh) * parts):
        cut = f" times config.train.micro_batches={parts}" if parts > 1 else ""
        raise ValueError(
            f"config.train.global_batch_size={size} is not a multiple of the "
            f"{sharding.batch_shards(mesh)} devices it is split over{cut}"
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
