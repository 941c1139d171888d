"""What a PyTorch pickle describes, found without running any of it.

The pickle is read opcode by opcode; only opcodes that build containers, strings and numbers are
known, and a name from another module stands for a tensor, a storage or a container or is refused.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

# torch's storage classes, and the data types they hold.
_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class RefusedError(ValueError):
    """The pickle asks for something that is no tensor and no container."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A record of the archive: `count` numbers of one data type under `data/<key>`."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, *_flags) -> Tensor:
    if not isinstance(storage, Storage):
        raise RefusedError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise RefusedError(f"a tensor of offset {offset}, shape {shape} and strides {strides}")
    if len(shape) != len(strides) or len(shape) > 16:
        raise RefusedError(f"a tensor of {len(shape)} axes and {len(strides)} strides")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, *_flags) -> Tensor:
    return data


def _ordered_dict(items=()) -> dict:
    made = {}
    for key, value in items:
        _set(made, key, value)
    return made


# Everything a pickle may name, and what it stands for here.
_CALLABLES: dict[str, Callable] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": tuple,
}
_KNOWN: dict[str, Any] = _CALLABLES | {
    f"torch.{name}": np.dtype(dtype) for name, dtype in _STORAGES.items()
}


class _Mark:
    """Where a run of items begins on the stack."""


_MARK = _Mark()


def _set(target, key, value) -> None:
    if not isinstance(target, dict) or not isinstance(key, (str, int)):
        raise RefusedError(f"a {type(key).__name__} as key of a {type(target).__name__}")
    target[key] = value


class _Machine:
    """The stack and the memo of one pickle; one method per opcode, called with its argument."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def _items(self) -> list[Any]:
        """Pops everything above the last mark, and the mark."""
        items = []
        while (top := self.stack.pop()) is not _MARK:
            items.append(top)
        return items[::-1]

    def _push(self, value) -> None:
        self.stack.append(value)

    def _tuple(self, count: int) -> None:
        start = len(self.stack) - count
        if start < 0:
            raise IndexError("the stack is empty")
        self.stack[start:] = [tuple(self.stack[start:])]

    def named(self, name: str) -> None:
        """Pushes what a name of another module stands for."""
        if name not in _KNOWN:
            raise RefusedError(f"{name!r}, which is no tensor and no container")
        self._push(_KNOWN[name])

    def stack_global(self, _) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self.named(f"{module}.{attribute}")

    def reduce(self, _) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is known for known in _CALLABLES.values()):
            raise RefusedError(f"a call of {function!r:.60}")
        self._push(function(*arguments))

    def build(self, _) -> None:
        # State dicts carry `_metadata`; it says nothing of the tensors.
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise RefusedError(f"a state set on a {type(self.stack[-1]).__name__}")

    def persistent(self, _) -> None:
        kind, dtype, key, _location, count = self.stack.pop()
        valid = kind == "storage" and isinstance(dtype, np.dtype) and isinstance(key, str)
        if not valid or type(count) is not int or count < 0:
            raise RefusedError(f"a storage described as {(kind, dtype, key, count)!r:.80}")
        self._push(Storage(key, dtype, count))

    def set_items(self, _) -> None:
        items = self._items()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    def set_item(self, _) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], key, value)

    def append(self, _) -> None:
        self._extend([self.stack.pop()])

    def _extend(self, items: list) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedError(f"items added to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def memoize(self, _) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self._push(self.memo[index])


def _nothing(_machine, _argument) -> None:
    """PROTO and FRAME say nothing that is needed; STOP ends the loop by itself."""


_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(
        (
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        ),
        _Machine._push,
    ),
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "MARK": lambda m, _: m._push(_MARK),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "TUPLE": lambda m, _: m._push(tuple(m._items())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "APPEND": _Machine.append,
    "APPENDS": lambda m, _: m._extend(m._items()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": lambda m, argument: m.named(argument.replace(" ", ".")),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}


def describe(pickle: bytes) -> Any:
    """The containers a pickle builds, with `Tensor` where PyTorch would have made one.

    Raises:
      RefusedError: it names a callable or uses an opcode that weights have no need of.
      ValueError: it is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            handler = _OPCODES.get(opcode.name)
            if handler is None:
                raise RefusedError(f"the pickle opcode {opcode.name}")
            handler(machine, argument)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__}: {error})") from error
