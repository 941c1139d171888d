"""Operations and memory traffic of a compiled program, loops as often as they turn."""

import math
import re

from fetalclip_jax.planning import hlo

# A TPU multiplies bfloat16; float32 in full precision takes it six products of parts, "high" three.
_PASSES = {"highest": 6, "high": 3}
# They name or rearrange what is in memory, or are counted by what they call.
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "after-all", "partition-id", "replica-id", "iota", "opt-barrier", "async-update"),
)
_OF_MEMORY = 0


def operations(module: hlo.Module) -> tuple[int, int]:
    """Products of matrices, a multiply-add being two, of each device in a step.

    Returns:
      (operations, the same with what full float32 costs a bfloat16 unit: six times as many).
    """
    plain = passes = 0
    for use in module.uses:
        one = use.instruction
        if one.opcode == "dot":
            count = _of_dot(use)
        elif one.opcode == "convolution":
            count = _of_convolution(use)
        else:
            continue
        plain += use.times * count
        passes += use.times * count * _passes(use)
    return plain, passes


def traffic(module: hlo.Module) -> int:
    """Bytes each device reads from and writes to its memory in a step, at the least.

    Each kernel reads what it is given once and writes its results once; of what it takes a slice
    of, or puts a slice into, the slice. What lies in a TPU core's own memory costs nothing.
    """
    return sum(use.times * _moved(module, use) for use in module.uses if not use.fused)


def _operand(use: hlo.Use, index: int) -> hlo.Instruction:
    return use.computation.instructions[use.instruction.operands[index]]


def _passes(use: hlo.Use) -> int:
    precision = use.instruction.attribute(r"operand_precision=\{(\w+)")
    both = all(_operand(use, i).shapes[0].dtype == "f32" for i in (0, 1))
    return _PASSES.get(precision, 1) if both else 1


def _of_dot(use: hlo.Use) -> int:
    left = _operand(use, 0).shapes[0].dims
    over = use.instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    summed = math.prod(left[int(axis)] for axis in over.split(",") if axis)
    return 2 * math.prod(use.instruction.shapes[0].dims) * summed


def _of_convolution(use: hlo.Use) -> int:
    """Products that fall on numbers: neither on padding nor on the holes of a dilation.

    TPUs write batched products as convolutions that mostly are padding.
    """
    one = use.instruction
    left, right = (_operand(use, i).shapes[0].dims for i in (0, 1))
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    of_left, of_right, of_out = labels.groups()
    out = one.shapes[0].dims
    window = one.attribute(r"window=\{([^}]*)\}") or ""
    count = 2 * out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")]
    for axis in sorted(label for label in of_left if label.isdigit()):
        count *= _valid(
            left[of_left.index(axis)],
            right[of_right.index(axis)],
            out[of_out.index(axis)],
            _window(window, int(axis)),
        )
    return count


def _window(window: str, axis: int) -> dict[str, int]:
    """Padding before, stride and dilations of one axis of a window."""
    fields = dict(field.split("=") for field in window.split())
    read = {"stride": 1, "lhs_dilate": 1, "rhs_dilate": 1}
    found = {
        name: int(fields[name].split("x")[axis]) if name in fields else default
        for name, default in read.items()
    }
    pad = fields["pad"].split("x")[axis] if "pad" in fields else "0_0"
    return found | {"pad": int(pad.split("_")[0])}


def _valid(left: int, right: int, out: int, window: dict[str, int]) -> int:
    """Pairs of a place of the result and a place of the kernel that meet a number."""
    hits, span = 0, (left - 1) * window["lhs_dilate"] + 1
    for kernel in range(right):
        # place * stride + kernel * rhs_dilate - pad is inside, and on no hole
        offset = kernel * window["rhs_dilate"] - window["pad"]
        first = max(0, -(offset // window["stride"]))
        last = min(out - 1, (span - 1 - offset) // window["stride"])
        if window["lhs_dilate"] == 1:
            hits += max(0, last - first + 1)
        else:
            places = (place * window["stride"] + offset for place in range(first, last + 1))
            hits += sum(place % window["lhs_dilate"] == 0 for place in places)
    return hits


def _moved(module: hlo.Module, use: hlo.Use) -> int:
    one = use.instruction
    if one.opcode in _FREE or one.opcode.endswith("-done"):
        return 0
    if one.opcode == "custom-call" and one.attribute(r'custom_call_target="(\w+)"') in (
        "AllocateBuffer",
        "ConcatBitcast",
    ):
        return 0
    operands = [use.computation.instructions[name] for name in one.operands]
    if one.opcode == "fusion":
        return _moved_by_fusion(module, one, operands)
    if one.opcode in ("slice", "dynamic-slice", "gather", "slice-start"):
        made = [shape for shape in one.shapes[-1:] if one.opcode != "slice-start"]
        made = made or list(one.shapes[1:2])
        return sum(_in_memory(shape) for shape in made) + _read_part(made, operands[0])
    if one.opcode == "dynamic-update-slice":
        return 2 * _in_memory(operands[1].shapes[0])
    if one.opcode == "copy-start":
        return _in_memory(one.shapes[0]) + _in_memory(one.shapes[1])
    return sum(map(_in_memory, one.shapes)) + sum(_whole(operand) for operand in operands)


def _read_part(made: list[hlo.Shape], source: hlo.Instruction) -> int:
    """Bytes of a slice that are read from where its source lies."""
    inside = source.shapes and source.shapes[0].space == _OF_MEMORY
    return sum(shape.bytes for shape in made) if inside else 0


def _moved_by_fusion(module, one: hlo.Instruction, operands: list[hlo.Instruction]) -> int:
    inside = module.computations[one.called["calls"][0]]
    moved = 0
    for parameter in inside.instructions.values():
        if parameter.opcode == "parameter":
            source = operands[int(parameter.arguments)]
            if len(source.shapes) == 1 and source.shapes[0].space == _OF_MEMORY:
                moved += min(_read(module, inside, parameter), source.bytes)
    root = inside.root
    results = [inside.instructions[n] for n in root.operands] if root.opcode == "tuple" else [root]
    for shape, result in zip(one.shapes, results, strict=False):
        moved += _written(module, inside, shape, result)
    return moved


def _written(module, inside: hlo.Computation, shape: hlo.Shape, result: hlo.Instruction) -> int:
    """Bytes of a fusion's result: of what is put into a larger array, that alone."""
    if shape.space != _OF_MEMORY:
        return 0
    while result.opcode == "bitcast":
        result = inside.instructions[result.operands[0]]
    if result.opcode == "fusion":
        deeper = module.computations[result.called["calls"][0]]
        return _written(module, deeper, shape, deeper.root)
    if result.opcode == "dynamic-update-slice":
        return inside.instructions[result.operands[1]].bytes
    return shape.bytes


def _read(module, inside: hlo.Computation, source: hlo.Instruction) -> int:
    """Bytes that users of a fusion's operand read of it: of slices alone, if nothing else does."""
    read = 0
    for user in inside.users.get(source.name, ()):
        if user.opcode == "bitcast":
            read += _read(module, inside, user)
        elif user.opcode == "fusion":
            deeper = module.computations[user.called["calls"][0]]
            read += sum(
                _read(module, deeper, one)
                for one in deeper.instructions.values()
                if one.opcode == "parameter" and user.operands[int(one.arguments)] == source.name
            )
        elif user.opcode in ("slice", "dynamic-slice", "gather"):
            read += user.shapes[0].bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == source.name:
            continue  # changed in place
        else:
            return source.bytes
    return read


def _in_memory(shape: hlo.Shape) -> int:
    return shape.bytes if shape.space == _OF_MEMORY else 0


def _whole(operand: hlo.Instruction) -> int:
    # Of a tuple its user takes what it needs: those are counted where they are used.
    return _in_memory(operand.shapes[0]) if len(operand.shapes) == 1 else 0
