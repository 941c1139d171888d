"""The arrays of a compiled program: the largest ones, and those that should not be there."""

import dataclasses
from collections.abc import Callable, Iterator

from fetalclip_jax.planning import hlo

# They hold no memory of their own, or that of what they were given.
_NO_BUFFER = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "opt-barrier"),
)
_SMALL = 2**20
# What a loss does on each of several devices is traced inside of it, and nothing else is.
LOSS_ON_DEVICES = "shard_map"


@dataclasses.dataclass(frozen=True)
class Buffer:
    """An array that is in memory at some time of a step.

    Attributes:
      shape: such as "f32[2048,32768]", of one device.
      bytes: of one device.
      where: what of the traced program makes it.
    """

    shape: str
    bytes: int
    where: str


def largest(module: hlo.Module, count: int = 8) -> list[Buffer]:
    """The largest arrays, one of each shape.

    Parameters and optimiser state are not among them: they are there before the step.
    """
    found: dict[str, Buffer] = {}
    for shape, one in _arrays(module):
        name = str(shape)
        if name not in found or not found[name].where:
            found[name] = Buffer(name, shape.bytes, short(one.op_name))
    return sorted(found.values(), key=lambda buffer: -buffer.bytes)[:count]


def of_all_pairs(module: hlo.Module, global_batch: int, shards: int) -> list[Buffer]:
    """Arrays of similarities of the whole global batch: with itself, or with a device's part of it.

    Args:
      shards: parts that the batch is split into.
    """
    local, found = global_batch // shards, {}
    loss = _of_the_loss(module)
    for shape, one in _arrays(module):
        dims = sorted(side for side in shape.dims if side > 1)
        pairs = dims in ([local, global_batch], [global_batch, global_batch])
        # Gathered features [B, E] look so where a device has as many examples as they are wide.
        if pairs and loss(one.op_name) and "gather" not in one.op_name:
            found[str(shape)] = Buffer(str(shape), shape.bytes, short(one.op_name))
    return list(found.values())


def _of_the_loss(module: hlo.Module) -> Callable[[str], bool]:
    """Tells by the name of an instruction whether the loss makes it, not the model or its update.

    Parameters and activations may have the sides of a matrix of all pairs.
    """
    if any(LOSS_ON_DEVICES in use.instruction.op_name for use in module.uses):
        return lambda name: LOSS_ON_DEVICES in name
    # On one device: what is differentiated outside of the model, but for sums of gradients.
    sums = ("add_any", "broadcast_in_dim")
    return lambda name: "jvp(" in name and "CLIP" not in name and not name.endswith(sums)


def of_whole_batch(module: hlo.Module, examples: int, shards: int) -> list[Buffer]:
    """Activations of all examples that are encoded together, where each device should have a part.

    Args:
      examples: of a micro-batch, on all devices.
      shards: parts that the batch is split into.
    """
    found: dict[str, Buffer] = {}
    for shape, one in _arrays(module):
        activation = "CLIP." in one.op_name and shape.dtype in ("bf16", "f32")
        whole = len(shape.dims) > 2 and shape.dims[0] == examples and shape.bytes >= _SMALL
        if shards > 1 and activation and whole:
            found[str(shape)] = Buffer(str(shape), shape.bytes, short(one.op_name))
    return sorted(found.values(), key=lambda buffer: -buffer.bytes)


def short(op_name: str) -> str:
    """The parts of a name that say something: the last of a path through the model."""
    dull = ("while", "body", "closed_call", "jvp()", "transpose(jvp())", "jit(step)", "checkpoint")
    parts = [part for part in op_name.split("/") if part and part not in dull]
    return "/".join(parts[-4:])


def _arrays(module: hlo.Module) -> Iterator[tuple[hlo.Shape, hlo.Instruction]]:
    """What is in a device's own memory, not what stays within a kernel."""
    for use in module.uses:
        if use.fused or use.instruction.opcode in _NO_BUFFER:
            continue
        for shape in use.instruction.shapes:
            if shape.space == 0:
                yield shape, use.instruction
