"""Reads the text of a compiled XLA program: its instructions, and how often each is run."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COMMENT = re.compile(r"/\*.*?\*/")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(condition|body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
    r"|\b(branch_computations|called_computations)=\{([^}]*)\}"
)
# Opcodes that apply a small function to many numbers: it is part of them, not called.
_APPLYING = (
    "reduce",
    "map",
    "sort",
    "scatter",
    "select-and-scatter",
    "reduce-window",
    "reduce-scatter",
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array.

    Attributes:
      dtype: as XLA names it.
      dims: its sides.
      space: of memory; 0 is the device's main memory, 1 a TPU core's own.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> int:
        digits = re.search(r"\d+", self.dtype)
        bits = _BITS.get(self.dtype, int(digits.group()) if digits else 8)
        return math.prod(self.dims) * bits // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
      shapes: of its result, the leaves of a tuple in order.
      operands: names of instructions of the same computation.
      arguments: what stands between the parentheses.
      attributes: what stands behind them.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, pattern: str) -> str | None:
        """The first group of a regular expression in the attributes."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else None

    @property
    def op_name(self) -> str:
        """What of the traced program it came from."""
        return self.attribute(r'op_name="([^"]*)"') or ""

    @functools.cached_property
    def called(self) -> dict[str, list[str]]:
        """Computations that it runs, by what they are for it."""
        if self.opcode.removesuffix("-start").removeprefix("all-") in _APPLYING:
            return {}
        if self.opcode.endswith(("-done", "-update")):  # what began with its "-start"
            return {}
        found: dict[str, list[str]] = {}
        for role, name, roles, names in _CALLED.findall(self.attributes):
            found.setdefault(role or roles, []).extend([name] if name else _NAME.findall(names))
        return found


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions in the order they are run."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        return next(one for one in self.instructions.values() if one.is_root)

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name of an instruction -> those that take its result."""
        found: dict[str, list[Instruction]] = {}
        for user in self.instructions.values():
            for name in dict.fromkeys(user.operands):
                found.setdefault(name, []).append(user)
        return found


@dataclasses.dataclass(frozen=True)
class Use:
    """An instruction where it is run.

    Attributes:
      times: how often in a run of the program.
      fused: it is part of a kernel: its result need not be in memory.
    """

    instruction: Instruction
    computation: Computation
    times: int
    fused: bool


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
      unknown_loops: loops whose number of turns could not be read, and are counted as one.
    """

    computations: dict[str, Computation]
    entry: str
    unknown_loops: list[str] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def uses(self) -> list[Use]:
        """Every instruction that is run, once for each place that its computation is called from.

        Of a conditional all branches count.
        """
        return list(self._walk(self.entry, 1, False))

    def _walk(self, name: str, times: int, fused: bool) -> Iterator[Use]:
        computation = self.computations[name]
        for one in computation.instructions.values():
            yield Use(one, computation, times, fused)
            turns = self._turns(one) if one.opcode == "while" else 1
            for role, names in one.called.items():
                inside = fused or one.opcode == "fusion"
                for called in names:
                    yield from self._walk(
                        called, times * (1 if role == "condition" else turns), inside
                    )

    def _turns(self, loop: Instruction) -> int:
        known = loop.attribute(r'known_trip_count":\{"n":"(\d+)"')
        turns = int(known) if known else _counted(self, loop)
        if turns is None and loop.name not in self.unknown_loops:
            self.unknown_loops.append(loop.name)
        return 1 if turns is None else turns


def parse(text: str) -> Module:
    """Reads what `jax.stages.Compiled.as_text` gives."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if current is None:
            if header := _HEADER.match(_COMMENT.sub("", line)):
                current = Computation(header.group(2), {})
                entry = current.name if header.group(1) else entry
        elif line.startswith("}"):
            computations[current.name] = current
            current = None
        elif (one := _instruction(_COMMENT.sub("", line))) is not None:
            current.instructions[one.name] = one
    return Module(computations, entry)


def _instruction(line: str) -> Instruction | None:
    head, equals, rest = line.strip().partition(" = ")
    if not equals:
        return None
    end = _end_of(rest, 0, " ")
    kind, rest = rest[:end], rest[end + 1 :]
    opcode, _, rest = rest.partition("(")
    end = _end_of(rest, 0, ")")
    arguments, attributes = rest[:end], rest[end + 1 :]
    return Instruction(
        name=head.removeprefix("ROOT ").removeprefix("%"),
        shapes=tuple(_shapes(kind)),
        opcode=opcode,
        operands=tuple(_NAME.findall(arguments)),
        arguments=arguments,
        attributes=attributes,
        is_root=head.startswith("ROOT "),
    )


def _end_of(text: str, start: int, stop: str) -> int:
    """Where `stop` first stands outside of all brackets."""
    depth = 0
    for at in range(start, len(text)):
        character = text[at]
        if depth == 0 and character == stop:
            return at
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
    return len(text)


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sides = tuple(int(side.removeprefix("<=")) for side in dims.split(",") if side)
        yield Shape(dtype, sides, int(space.group(1)) if space else 0)


def _counted(module: Module, loop: Instruction) -> int | None:
    """Turns of a loop that counts from 0 by 1 until its number is not below a constant."""
    condition = module.computations[loop.called["condition"][0]]
    bounds = [
        int(one.arguments)
        for one in condition.instructions.values()
        if one.opcode == "constant" and re.fullmatch(r"\d+", one.arguments)
    ]
    compares = any("direction=LT" in u.attributes for u in _all_of(module, condition))
    return bounds[0] if compares and len(bounds) == 1 else None


def _all_of(module: Module, computation: Computation) -> Iterator[Instruction]:
    """Its instructions, and those of what it calls."""
    for one in computation.instructions.values():
        yield one
        for names in one.called.values():
            for name in names:
                yield from _all_of(module, module.computations[name])
