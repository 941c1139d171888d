"""Compiles the training step of a configuration for devices that need not be there."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fetalclip_jax.config import build_model
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.training import optimizer, program


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler said of a step.

    Attributes:
      mesh: axis -> size.
      kinds: exact bytes on each device of what a step is given, and of its gradients, by kind.
      memory: bytes on each device by what the compiler calls them; empty if it did not fit.
      needed: bytes on each device that the compiler found missing, out of how many, where it did
        not fit; None where it did.
      text: the program; "" if it did not fit.
    """

    mesh: dict[str, int]
    kinds: dict[str, int]
    memory: dict[str, int]
    needed: tuple[int, int] | None
    text: str


def compile_step(config: ConfigDict, devices: Sequence[jax.Device]) -> Compiled:
    """Compiles one optimisation step, whatever devices these are.

    Raises:
      ValueError: a field of `config` that cannot work, or cannot on so many devices.
    """
    mesh = meshes.make_mesh(**config.mesh, devices=list(devices))
    program.check_batch(config, mesh)
    built, batch = program.build(config, mesh), program.abstract_batch(config, mesh)
    kinds = _kinds(config, built.abstract, batch)
    shape = {axis: int(size) for axis, size in mesh.shape.items()}
    try:
        compiled = built.train_step.lower(built.abstract, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if (needed := _needed(str(error))) is None:
            raise
        return Compiled(shape, kinds, {}, needed, "")
    return Compiled(shape, kinds, _memory(compiled), None, compiled.as_text())


def _kinds(config: ConfigDict, state: Any, batch: Any) -> dict[str, int]:
    held = optimizer.left_as_it_is(build_model(config))
    trained = optimizer.trained(config.optimizer, state.params, held)
    gradients = jax.tree.map(
        lambda leaf, is_trained: leaf if is_trained else None, state.params, trained
    )
    return {
        "parameters": _bytes(state.params),
        "ema": _bytes(state.ema),
        "optimiser": _bytes(state.opt_state),
        "batch": _bytes(batch),
        "gradients": _bytes(gradients),
    }


def _bytes(tree: Any) -> int:
    """Of the part of a tree that a device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    found = compiled.memory_analysis()
    return {
        "arguments": found.argument_size_in_bytes,
        # Results that do not take the place of an argument.
        "results": found.output_size_in_bytes - found.alias_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "program": found.generated_code_size_in_bytes,
    }


def _needed(message: str) -> tuple[int, int] | None:
    """(bytes needed, bytes there are) of the compiler's refusal; None for another error."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    size = r"([\d.]+)([KMGT]?)"
    found = re.search(rf"\({size}\) exceeds available HBM \({size}\)", message)
    found = found or re.search(rf"Used {size} of {size} hbm", message)
    if found is None:
        return None
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    number, unit, available, its_unit = found.groups()
    return round(float(number) * units[unit]), round(float(available) * units[its_unit])
