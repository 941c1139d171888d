"""The training loop: it moves data and keeps records; the mathematics is in `step`."""

import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fetalclip_jax import run
from fetalclip_jax.config import build_model, flatten, load_config
from fetalclip_jax.data import pipeline
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.parallel import sharding
from fetalclip_jax.run import write_json
from fetalclip_jax.training import checkpoint, inputs, metrics, state, step
from fetalclip_jax.training.optimizer import learning_rate_schedule, make_optimizer

# Held-out batches whose loss is logged with every checkpoint.
_EVAL_BATCHES = 4


def train(config: ConfigDict, workdir: str | pathlib.Path) -> state.TrainState:
    """Trains to `config.train.steps`, going on from the latest checkpoint under `workdir`.

    The seconds it reports are those of work that was kept: what a kill threw away is not counted.

    A run that was killed anywhere and started again ends with bitwise the parameters of one that
    was not: every random choice is a function of seed, example and epoch, and state and data
    position are saved together.

    Raises:
      ValueError: a field of `config` that cannot work; a `workdir` of another experiment.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"this job has {jax.process_count()} processes; training runs in one process with all "
            "its devices"
        )
    workdir = pathlib.Path(workdir)
    process_start = time.time()
    run.claim_workdir(config, workdir)
    mesh = meshes.make_mesh(**config.mesh)
    model = build_model(config)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    schedule = learning_rate_schedule(config.optimizer, config.train.steps)
    _check_numbers(config, mesh)
    dataset = inputs.open_records(config, workdir, "train")
    tokenizer = inputs.open_tokenizer(config, workdir)
    iterator = make_iterator(config, dataset, tokenizer)

    abstract, shardings = state.abstract_state(model, optimizer, mesh, config.seed)
    checkpointer = checkpoint.Checkpointer(workdir)
    if checkpointer.latest_step() is None:
        current, progress = _first_state(config, model, optimizer, mesh, abstract), {"seconds": 0.0}
    else:
        current, progress = checkpointer.restore(abstract, iterator)
        print(f"Continuing from step {int(current.step)} in {workdir}", flush=True)
    first = int(current.step)
    train_step = step.make_train_step(model, optimizer, mesh, shardings)
    held_out = _held_out_loss(config, workdir, tokenizer, model, mesh, shardings)

    writer = metrics.MetricsWriter(workdir, resume_step=first)
    # Preparing records and vocabulary is part of what a run costs; it happens once.
    start = time.time() - progress["seconds"] - (time.time() - process_start)
    window, window_step = time.time(), first
    bar = tqdm(
        range(first, config.train.steps),
        initial=first,
        total=config.train.steps,
        desc="training",
        unit="step",
    )
    for index in bar:
        batch = sharding.global_batch(next(iterator), mesh)
        current, values = train_step(current, batch)
        done = index + 1
        saves = done % config.train.checkpoint_every == 0 or done == config.train.steps
        logs = done % config.train.log_every == 0 or done == config.train.steps
        if logs or saves:
            values = {name: float(value) for name, value in values.items()}
            if not np.isfinite([values["loss"], values["gradient_norm"]]).all():
                raise ValueError(
                    f"the loss is {values['loss']} and the gradient norm {values['gradient_norm']} "
                    f"at step {done}; lower config.optimizer.learning_rate="
                    f"{config.optimizer.learning_rate} and use a new --workdir"
                )
        if logs:
            now = time.time()
            images = (done - window_step) * config.train.global_batch_size
            values["images_per_second"] = images / (now - window)
            values["learning_rate"] = float(schedule(index))
            values["seconds"] = now - start
            window, window_step = now, done
            writer.write(done, values)
            bar.set_postfix(
                loss=f"{values['loss']:.3f}", images_s=f"{values['images_per_second']:.0f}"
            )
        if saves:
            # Logged first: a checkpoint implies that its line is there.
            writer.write(done, {"val_loss": held_out(current.params)})
            progress = {"seconds": time.time() - start}
            checkpointer.save(current, iterator, progress)
            window, window_step = time.time(), done
    checkpointer.close()
    writer.close()
    iterator.close()
    if first < config.train.steps or not (workdir / "results" / "train.json").exists():
        _write_summary(config, workdir, current, progress["seconds"])
    return current


def make_iterator(config: ConfigDict, dataset, tokenizer):
    """Endless batches of this process's share of `config.train.global_batch_size`."""
    return pipeline.train_iterator(
        dataset,
        tokenizer,
        global_batch_size=config.train.global_batch_size,
        seed=config.seed,
        augment=config.augment,
        caption_variants=config.captions.variants,
        caption_seed=config.captions.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _check_numbers(config: ConfigDict, mesh) -> None:
    for name in ("steps", "log_every", "checkpoint_every"):
        if config.train[name] < 1:
            raise ValueError(f"config.train.{name}={config.train[name]} must be at least 1")
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.train.global_batch_size % shards:
        raise ValueError(
            f"config.train.global_batch_size={config.train.global_batch_size} is not a multiple of "
            f"the {shards} devices it is split over"
        )


def _first_state(config, model, optimizer, mesh, abstract) -> state.TrainState:
    current = state.create_state(model, optimizer, mesh, config.seed)
    if config.init_from:
        origin = pathlib.Path(config.init_from)
        there, here = flatten(load_config(origin / "config.json").model), flatten(config.model)
        if there != here:
            raise ValueError(
                f"config.init_from={origin} has another model: "
                + "; ".join(
                    f"{name}: {there[name]!r} there, {here[name]!r} here"
                    for name in sorted(there)
                    if there[name] != here[name]
                )
            )
        params = checkpoint.restore_params(origin, abstract.params)
        current = current.replace(params=params)
    return current


def _held_out_loss(config, workdir, tokenizer, model, mesh, shardings):
    """A function of parameters: the mean loss of a few fixed batches of patients not trained on.

    The test patients are not looked at while training.
    """
    split = inputs.validation_split(config)
    dataset = inputs.open_records(config, workdir, split)
    size = min(config.train.global_batch_size, len(dataset))
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    size -= size % shards
    if not size:
        raise ValueError(
            f"the {split} split has {len(dataset)} examples, fewer than the {shards} devices a "
            "batch is split over; make it larger"
        )
    fixed = pipeline.train_iterator(
        dataset,
        tokenizer,
        global_batch_size=size,
        seed=config.seed,
        augment=None,
        caption_variants=1,
        caption_seed=config.captions.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    batches = [
        sharding.global_batch(next(fixed), mesh)
        for _ in range(min(_EVAL_BATCHES, len(dataset) // size))
    ]
    fixed.close()
    eval_step = step.make_eval_step(model, mesh, shardings)

    def mean_loss(params) -> float:
        return float(np.mean([float(eval_step(params, batch)) for batch in batches]))

    return mean_loss


def _write_summary(config, workdir, current, seconds) -> None:
    summary = {
        "seconds": seconds,
        "steps": config.train.steps,
        "images_seen": config.train.steps * config.train.global_batch_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(current.params)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "peak_rss_gib": metrics.peak_rss_gib(),
    }
    write_json(workdir / "results" / "train.json", summary)
