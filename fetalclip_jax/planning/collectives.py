"""What a compiled program sends between devices, and along which axes of the mesh."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax.planning import hlo

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
UNKNOWN_AXIS = "unknown"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation that devices do together.

    Attributes:
      kind: such as "all-gather".
      axes: of the mesh, joined by "+", that its groups of devices lie along.
      times: how often in a step.
      bytes: that each device sends, each time: of the parts of a ring of the group, the fewest
        that the operation can do with.
      result: bytes of its result on each device.
      op_name: what of the traced program it is.
    """

    kind: str
    axes: str
    times: int
    bytes: int
    result: int
    op_name: str


def find(module: hlo.Module, mesh: Mapping[str, int]) -> list[Collective]:
    """All of a program for a mesh of `mesh` (axis -> size), in the order of its devices."""
    found = []
    for use in module.uses:
        kind = _kind(use)
        if kind is None:
            continue
        groups, axes = _groups(use.instruction, kind, mesh)
        if groups == 1:
            continue  # each device by itself
        shapes = use.instruction.shapes
        if use.instruction.opcode.endswith("-start") and kind in (
            "all-gather",
            "collective-permute",
        ):
            # The operands stand before the results.
            shapes = shapes[len(shapes) // 2 :] if kind == "all-gather" else shapes[1:2]
        found.append(
            Collective(
                kind,
                axes,
                use.times,
                _sent(kind, sum(shape.bytes for shape in shapes), groups, use.fused),
                sum(shape.bytes for shape in shapes),
                use.instruction.op_name,
            )
        )
    return found


def bytes_by_axes(found: Sequence[Collective]) -> dict[str, int]:
    """Bytes that each device sends in a step, by axes and kind: "data all-reduce" -> bytes."""
    total: dict[str, int] = {}
    for one in found:
        name = f"{one.axes} {one.kind}"
        total[name] = total.get(name, 0) + one.times * one.bytes
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _kind(use: hlo.Use) -> str | None:
    """Which collective it is; None for what is none, or was counted elsewhere."""
    opcode = use.instruction.opcode.removesuffix("-start")
    if opcode not in _KINDS:
        return None
    if use.fused and "chain_id" in use.instruction.attributes:
        # A TPU spreads one over kernels that compute beside it. Each repeats it; one starts it.
        targets = [one.attributes for one in use.computation.instructions.values()]
        if not any("AsyncCollectiveStart" in text for text in targets):
            return None
    if use.fused and "all-reduce-scatter" in use.computation.name:
        return "reduce-scatter"  # as TPUs have it: an all-reduce of which each keeps a part
    return opcode


def _sent(kind: str, size: int, group: int, fused: bool) -> int:
    """Bytes that a device sends for a result of `size` bytes (before it is scattered if fused)."""
    share = (group - 1) / group
    if kind == "all-reduce":
        return round(2 * size * share)
    if kind == "reduce-scatter" and not fused:
        return round(size * group * share)
    if kind == "collective-permute":
        return size
    return round(size * share)


def _groups(one: hlo.Instruction, kind: str, mesh: Mapping[str, int]) -> tuple[int, str]:
    """How many devices take part in a group, and along which axes of the mesh they lie."""
    devices = math.prod(mesh.values())
    if kind == "collective-permute":
        pairs = one.attribute(r"source_target_pairs=\{(\{.*?\})\}") or ""
        listed = [list(_numbers(pair)) for pair in re.findall(r"\{([\d,]+)\}", pairs)]
    else:
        listed = replica_groups(one.attributes, devices)
    if not listed:
        return devices, UNKNOWN_AXIS
    sizes = tuple(mesh.values())
    varying = {
        axis
        for group in listed
        for axis, places in zip(mesh, np.unravel_index(group, sizes), strict=True)
        if len(set(places.tolist())) > 1
    }
    return max(map(len, listed)), "+".join(axis for axis in mesh if axis in varying)


@functools.lru_cache(maxsize=1024)
def replica_groups(attributes: str, devices: int) -> list[list[int]]:
    """The groups of devices that an instruction's attributes name; [] in a notation not known here.

    XLA writes them out ({{0,1},{2,3}}), as a reshaped count ([2,2]<=[4], [2,2]<=[2,2]T(1,0)), or as
    axes of a mesh (mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}).
    """
    if found := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", attributes):
        listed = [
            list(map(int, group.split(",")))
            for group in re.findall(r"\{([\d,]+)\}", found.group(1))
        ]
        return listed or [list(range(devices))]
    counted = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if found := re.search(rf"replica_groups=\[([\d,]+)\]<={counted}", attributes):
        return _iota(*found.group(2, 3)).reshape(_numbers(found.group(1))).tolist()
    named = rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({counted}\))? \{{([^}}]*)\}}"
    if found := re.search(named, attributes):
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found.group(1))}
        chosen = re.findall(r"'([^']+)'", found.group(4))
        if re.search(r"\(\d+\)", found.group(4)) or not set(chosen) <= set(axes):
            return []  # a part of an axis
        order = found.group(2) or str(devices)
        grid = _iota(order, found.group(3)).reshape(tuple(axes.values()))
        last = [list(axes).index(name) for name in chosen]
        grid = np.moveaxis(grid, last, range(-len(last), 0))
        size = math.prod(axes[name] for name in chosen)
        return grid.reshape(-1, size).tolist()
    return []


def _iota(sizes: str, order: str | None) -> np.ndarray:
    """0, 1, ... in an array of these sizes, its axes then in that order."""
    shape = _numbers(sizes)
    grid = np.arange(math.prod(shape)).reshape(shape)
    return grid.transpose(_numbers(order)) if order else grid


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
