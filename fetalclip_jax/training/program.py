"""The compiled heart of a run: what a configuration and a mesh make of state, batch and steps.

The loop runs it, and a plan compiles the same for devices that need not be there.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fetalclip_jax.config import build_model, class_names, images_per_example
from fetalclip_jax.parallel import sharding
from fetalclip_jax.training import objective, optimizer, state, step


@dataclasses.dataclass(frozen=True)
class Program:
    """What a configuration describes, ready to run.

    Attributes:
      abstract: shapes of the state, with their shardings.
      new_state: makes the first state.
      train_step: (state, batch) -> (state, metrics).
      eval_step: (params, step, batch) -> loss.
    """

    abstract: state.TrainState
    new_state: Callable[[], state.TrainState]
    train_step: step.Step
    eval_step: Callable


def build(config: ConfigDict, mesh: Mesh) -> Program:
    """The program that trains `config` on the devices of `mesh`. Nothing is compiled yet.

    Raises:
      ValueError: a field of `config` that cannot work.
    """
    model = build_model(config)
    target = objective.create(config.loss, model, mesh)
    held = optimizer.left_as_it_is(model)
    rule = optimizer.make_optimizer(config.optimizer, config.train.steps, held)
    born = {"seed": config.seed, "with_ema": config.train.ema_decay > 0}
    abstract, shardings = state.abstract_state(model, rule, mesh, **born)
    micro_batches = config.train.micro_batches
    return Program(
        abstract=abstract,
        new_state=functools.partial(state.create_state, model, rule, mesh, **born),
        train_step=step.make_train_step(
            target,
            rule,
            mesh,
            shardings,
            seed=config.seed,
            ema_decay=config.train.ema_decay,
            micro_batches=micro_batches,
            trained=functools.partial(optimizer.trained, config.optimizer, held=held),
        ),
        eval_step=step.make_eval_step(target, mesh, shardings, micro_batches=micro_batches),
    )


def abstract_batch(
    config: ConfigDict, mesh: Mesh, *, text_length: int | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch as the step takes it, with their shardings.

    Args:
      text_length: that texts are cut to; None for the whole context, the most there can be.
    """
    size, side = config.train.global_batch_size, config.model.vision_cfg.image_size
    length = text_length or config.model.text_cfg.context_length
    if class_names(config):  # `inputs` gives one token where no text is read
        length = 1
    shapes = {
        "image": ((size, side, side, 3), jnp.uint8),
        "tokens": ((size, length), jnp.int32),
        "caption_ids": ((size, 2), jnp.uint32),
        "record": ((size,), jnp.int32),
    }
    if class_names(config):
        shapes["label"] = ((size,), jnp.int32)
    if images_per_example(config) == 2:
        shapes["second_image"] = shapes["image"]
    where = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
        for name, (shape, dtype) in shapes.items()
    }


def check_batch(config: ConfigDict, mesh: Mesh) -> None:
    """Raises ValueError for a global batch that the mesh and the micro-batches do not divide."""
    size, parts = config.train.global_batch_size, config.train.micro_batches
    shards = sharding.batch_shards(mesh)
    if size % (shards * parts):
        cut = f" times config.train.micro_batches={parts}" if parts > 1 else ""
        raise ValueError(
            f"config.train.global_batch_size={size} is not a multiple of the {shards} devices it "
            f"is split over{cut}"
        )
