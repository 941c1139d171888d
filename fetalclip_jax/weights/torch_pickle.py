"""What a pickle of PyTorch describes, found without running any of it.

A small machine builds containers, numbers, strings and descriptions of tensors, and refuses
everything else. `pickle.Unpickler` is not used, not even restricted: its memo alone can be made to
allocate gigabytes.
"""

import dataclasses
import pickletools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

RESAVE = "load it where you trust it, and save torch.save(model.state_dict(), path) or .safetensors"

_MAX_OPCODES = 1_000_000  # over 20 times those of a checkpoint with its optimizer

_NUMPY_DTYPES = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
_DTYPES = {name: np.dtype(name) for name in _NUMPY_DTYPES.split()}
_DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclasses.dataclass(frozen=True)
class _Callable:
    name: str


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype | None  # None: bytes


@dataclasses.dataclass(frozen=True)
class Storage:
    key: str
    dtype: np.dtype | None
    size: int  # in elements, or in bytes without a data type

    @property
    def bytes(self) -> int:
        return self.size * (self.dtype.itemsize if self.dtype else 1)


@dataclasses.dataclass(frozen=True)
class Tensor:
    storage: Storage
    dtype: np.dtype
    offset: Any  # these three are checked once the tensor's name is known
    shape: Any
    strides: Any


class _OrderedDict(dict):
    """The dict whose attributes (`_metadata` of a state dict) a pickle may set; none is kept."""


_GLOBALS: dict[str, Any] = {
    **{f"torch {name}": dtype for name, dtype in _DTYPES.items()},
    **{f"torch {name}": _StorageType(_DTYPES[dtype]) for name, dtype in _STORAGES.items()},
    "torch.storage UntypedStorage": _StorageType(None),
    "collections OrderedDict": _Callable("OrderedDict"),
    "torch Size": _Callable("Size"),
    "torch device": _Callable("device"),
    "torch._utils _rebuild_parameter": _Callable("_rebuild_parameter"),
    "torch._utils _rebuild_tensor_v2": _Callable("_rebuild_tensor_v2"),
    "torch._utils _rebuild_tensor_v3": _Callable("_rebuild_tensor_v3"),
}

_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def interpret(pickle: bytes) -> Any:
    """The object a pickle describes, of containers, literals and `Tensor`s."""
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks below each mark
    memo: dict[int, Any] = {}
    for count, (opcode, argument, _) in enumerate(_instructions(pickle)):
        if count == _MAX_OPCODES:
            raise ValueError(f"its pickle has over {count} instructions; {RESAVE}")
        match opcode.name:
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case name if name in _LITERALS:
                stack.append(_literal(argument))
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _TUPLES:
                stack.append(tuple(_pop(stack, _TUPLES[name])))
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE":
                items, stack = stack, marked.pop()
                stack.append(tuple(items))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "SETITEMS" | "APPENDS" as name:
                items, stack = stack, marked.pop()
                _fill(name, stack[-1], items)
            case "SETITEM" | "APPEND" as name:
                items = _pop(stack, 2 if name == "SETITEM" else 1)
                _fill(name, stack[-1], items)
            case "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_global(*_pop(stack, 2)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(_call(*_pop(stack, 2)))
            case "BUILD":
                _check_attributes(stack[-2], stack.pop())
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case name:
                what = f"{name} {argument[:80]!r}" if isinstance(argument, str) else name
                raise ValueError(f"its pickle uses {what}, no part of a state dict; {RESAVE}")
    raise AssertionError("genops ends with STOP or an error")


def _instructions(pickle: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(pickle)
    except ValueError as error:
        raise ValueError(f"its pickle is damaged ({error}); download or save it again") from error


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("pickle takes from an empty stack")
    items = stack[-count:]
    del stack[-count:]
    return items


def _literal(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(
            f"its pickle has an integer of {value.bit_length()} bits, at most 64 are read"
        )
    return value


def _fill(opcode: str, container: Any, items: list[Any]) -> None:
    if opcode.startswith("APPEND"):
        if not isinstance(container, list):
            raise ValueError(f"its pickle appends to {type(container).__name__}, expected a list")
        container.extend(items)
        return
    if not isinstance(container, dict) or len(items) % 2:
        raise ValueError(f"its pickle sets items of {type(container).__name__}, expected a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Nested tuples that share parts would take exponential time to hash.
        if not isinstance(key, str | int):
            raise ValueError(
                f"its pickle has a key of type {type(key).__name__}, expected str or int"
            )
        container[key] = value


def _global(module: Any, name: Any) -> Any:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("its pickle has a name that is no text; download or save it again")
    if f"{module} {name}" not in _GLOBALS:
        raise ValueError(
            f"its pickle asks for {f'{module}.{name}'[:80]!r}. Weights are data, never programs: "
            f"only tensors and plain containers are read, and nothing ran; {RESAVE}"
        )
    return _GLOBALS[f"{module} {name}"]


def _storage(identity: Any) -> Storage:
    match identity:
        case ("storage", _StorageType(dtype), str(key), str(), int(size)) if size >= 0:
            return Storage(key, dtype, size)
    raise ValueError("its pickle refers to an outside object that is no storage; save it again")


def _call(function: Any, arguments: Any) -> Any:
    """The effect of an allowed callable, in descriptions."""
    name = function.name if isinstance(function, _Callable) else type(function).__name__
    match name, arguments:
        case "OrderedDict", ():
            return _OrderedDict()
        case "Size", (tuple(sizes),):
            return sizes
        case "device", (str(), *_):
            return None
        case "_rebuild_parameter", (Tensor() as tensor, _, _):
            return tensor
        case "_rebuild_tensor_v2", (Storage(dtype=np.dtype() as dtype) as storage, *rest):
            if len(rest) in (5, 6):
                return Tensor(storage, dtype, *rest[:3])
        case "_rebuild_tensor_v3", (Storage() as storage, *rest):
            if len(rest) in (6, 7) and isinstance(rest[5], np.dtype):
                return Tensor(storage, rest[5], *rest[:3])
    raise ValueError(
        f"its pickle calls {name} with arguments that are not PyTorch's; save it again"
    )


def _check_attributes(target: Any, attributes: Any) -> None:
    if not isinstance(target, _OrderedDict) or not isinstance(attributes, dict):
        raise ValueError(f"its pickle sets attributes, of no state dict; {RESAVE}")
