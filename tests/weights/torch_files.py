"""Writes files in the format of `torch.save` without PyTorch, and damages them."""

import dataclasses
import io
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}

# Numbers of the size of a sign, a length or an address; each has once broken some parser.
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a pickle asks for."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A function that a pickle calls."""

    function: Any
    arguments: tuple


@dataclasses.dataclass(frozen=True)
class Outside:
    """An object that a pickle refers to: a storage."""

    identity: tuple


@dataclasses.dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    opcodes: bytes


ORDERED_DICT = Raw(b"ccollections\nOrderedDict\n)R")


def pickled(value: Any) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value: Any) -> bytes:
    """The opcodes that make a value, without memo."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            items = (opcodes(part) for item in value.items() for part in item)
            return b"}(" + b"".join(items) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return opcodes(function) + opcodes(arguments) + b"R"
        case Outside(identity):
            return opcodes(identity) + b"Q"
        case Raw(raw):
            return raw
    raise TypeError(f"no opcodes for {type(value).__name__}")


def tensor(
    key: str,
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    size: int | None = None,
) -> Call:
    """A tensor in the storage `key` of `size` elements; contiguous, and the whole of it."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    if size is None:
        size = offset + int(np.prod(shape))
    storage = Outside(("storage", Global("torch", STORAGES[dtype]), key, "cpu", size))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, (storage, offset, shape, strides, False, ORDERED_DICT))


def state(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Call], dict[str, bytes]]:
    """A state dict of arrays, and its storages."""
    tensors, storages = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        tensors[name] = tensor(str(key), array.shape, dtype=array.dtype.name)
        storages[str(key)] = array.tobytes()
    return tensors, storages


def save(
    path: pathlib.Path,
    content: Any,
    storages: Mapping[str, bytes],
    *,
    root: str = "archive",
    records: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
    """Writes a file of a value, or of the bytes of a pickle, with further records."""
    pickle = content if isinstance(content, bytes) else pickled(content)
    path.write_bytes(
        archive(
            {
                f"{root}/data.pkl": pickle,
                **{f"{root}/data/{key}": data for key, data in storages.items()},
                f"{root}/version": b"3\n",
                **{f"{root}/{name}": data for name, data in (records or {}).items()},
            },
            compression,
        )
    )
    return path


def archive(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive; like PyTorch's, with padding between the records."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, data in records.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            info.extra = b"FB" + struct.pack("<H", len(name) % 7) + b"Z" * (len(name) % 7)
            out.writestr(info, data)
    return file.getvalue()


def damaged(random: np.random.Generator, content: bytes, other: bytes = b"") -> bytes:
    """Bytes after one to three changes: flips, cuts, repeats, removals, splices, extremes."""
    data = bytearray(content)
    # Mostly one small change: a file of several is refused for the first, and tells no more.
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        # Descriptions lie at either end of a file, and are small beside the numbers.
        near = int(min(len(data), 2 ** random.integers(3, 21)))
        at = int(random.integers(near + 1))
        at = at if random.random() < 0.5 else len(data) - at
        length = int(2 ** random.uniform(0, 12))
        match random.integers(8):
            case 0 | 1:
                for place in (at, *random.integers(len(data) + 1, size=random.choice([0, 0, 7]))):
                    bit = 1 << int(random.integers(8))
                    data[place : place + 1] = bytes(byte ^ bit for byte in data[place : place + 1])
            case 2:
                data[at : at + 1] = bytes([random.integers(256)])
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : at + length] * int(random.integers(1, 4))
            case 5:
                del data[at : at + length]
            case 6:
                start = int(random.integers(len(other) + 1))
                data[at : at + length] = other[start : start + length]
            case 7:
                width = int(random.choice([1, 2, 4, 8]))
                number = _EXTREMES[random.integers(len(_EXTREMES))] & (2 ** (8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, random.choice(["little", "big"]))
    return bytes(data)


def damaged_archive(random: np.random.Generator, content: bytes, other: bytes = b"") -> bytes:
    """A valid archive around a damaged `data.pkl`."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        records = {name: file.read(name) for name in file.namelist()}
    (name,) = (name for name in records if name.endswith("/data.pkl"))
    records[name] = damaged(random, records[name], other)
    return archive(records)
