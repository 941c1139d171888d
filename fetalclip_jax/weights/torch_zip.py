"""Tensors of a PyTorch `.pt` file, read without PyTorch and without running anything in it.

`torch.save` writes a zip archive of uncompressed records: `data.pkl`, a pickle that describes the
objects, and `data/<key>`, the bytes of each storage.
"""

import contextlib
import dataclasses
import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.weights.torch_pickle import RESAVE, Tensor, interpret

# Bounds on what a file may ask for before any tensor is read; each is over 20 times what a
# checkpoint of FetalCLIP with its optimizer takes.
_MAX_DESCRIPTION_BYTES = 8 * 2**20  # of the pickle, and of the archive's directory
_MAX_DIMENSIONS = 32
_MAX_EMPTY_BYTES = 2**40  # of a tensor with an axis of length 0, were it 1
# Where trainers keep the state dict; one may lie in another, and in a loop forever.
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "module")
_MAX_NESTING = 3


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """A tensor that is still in its file.

    Attributes:
      path: the file.
      name: of the tensor.
      shape: its shape.
      dtype: its NumPy data type (bfloat16 is that of ml_dtypes).
      start: byte of the file at which its first element lies.
      strides: per axis, in elements.
    """

    path: storage.Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    strides: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The whole tensor, C-contiguous, in new memory.

        Raises:
          ValueError: the file cannot be read any more.
        """
        if self._contiguous():
            return self._read_run(0, math.prod(self.shape)).reshape(self.shape)
        run = self._read_run(0, _reach(self.shape, self.strides))
        strides = tuple(stride * self.dtype.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(run, self.shape, strides, writeable=False).copy()

    def read_slice(self, index: tuple[slice, ...]) -> np.ndarray:
        """Part of the tensor, C-contiguous; of a contiguous one only the rows covered are read.

        Raises:
          ValueError: more slices than axes, or a step other than 1; the file cannot be read.
        """
        if len(index) > len(self.shape) or any(part.step not in (None, 1) for part in index):
            raise ValueError(
                f"tensor {self.name!r} of shape {self.shape}: cannot read {index}; expected at "
                "most one slice per axis, of step 1"
            )
        if index and self._contiguous():
            start, stop, _ = index[0].indices(self.shape[0])
            rows, row = max(stop - start, 0), self.shape[1:]
            size = math.prod(row)
            whole = self._read_run(start * size, rows * size).reshape(rows, *row)
            index = (slice(None), *index[1:])
        else:
            whole = self.read()
        part = whole[index]
        return whole if part.shape == whole.shape else part.copy()

    def _contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1 and stride != expected:
                return 0 in self.shape
            expected *= size
        return True

    def _read_run(self, first: int, count: int) -> np.ndarray:
        """`count` elements that lie side by side."""
        run = np.empty(count, self.dtype)
        raw = run.view(np.uint8)
        with _named_errors(self.path), open(self.path, "rb") as file:
            file.seek(self.start + first * self.dtype.itemsize)
            if file.readinto(raw) != raw.size:
                raise ValueError(
                    f"ends within tensor {self.name!r}; it changed since it was opened"
                )
        if self.dtype == bool:
            np.minimum(raw, 1, out=raw)  # any other byte is no bool to NumPy
        return run


def open_tensors(path: str | os.PathLike) -> dict[str, TensorEntry]:
    """The tensors of a state dict by name, in the file's order, none of them read yet.

    The file holds the state dict itself or has it under a key that trainers use, such as
    "state_dict"; everything else in it is passed over.

    Raises:
      ValueError: a file that is missing, damaged, of another format, without a state dict, or
        whose pickle names anything but tensors and plain containers.
    """
    path = storage.path(path)
    if not path.is_file():
        raise ValueError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    with _named_errors(path), _File(io.FileIO(path)) as file:
        _check_signature(file.read(512))
        archive = _Archive(file)
        if (order := archive.read("byteorder", b"little")) != b"little":
            raise ValueError(
                f"its byte order is {order[:16]!r}, only b'little' is read; {RESAVE} on a "
                "little-endian machine"
            )
        state = _state_dict(interpret(archive.read("data.pkl")))
        return {name: _entry(path, archive, name, tensor) for name, tensor in state.items()}


@contextlib.contextmanager
def _named_errors(path: storage.Path) -> Iterator[None]:
    """Turns every error that bytes of a file can cause into a ValueError that names the file."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, struct.error, LookupError, OverflowError, EOFError, OSError),
        *(NotImplementedError, RecursionError, MemoryError, UnicodeError),
        Warning,  # pickletools' on a bad escape, where Python runs with -W error
    ) as error:
        raise ValueError(
            f"{path}: truncated or damaged ({type(error).__name__}: {error}); download or save it "
            "again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _File(io.BufferedReader):
    """A file that does not read more at once than a description of tensors takes.

    `zipfile` reads an archive's directory whole, and makes objects of 15 times its size of it.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MAX_DESCRIPTION_BYTES:
            raise ValueError(
                f"its directory or pickle has {size} bytes, at most {_MAX_DESCRIPTION_BYTES} are "
                f"read; {RESAVE}"
            )
        return super().read(size)


def _check_signature(head: bytes) -> None:
    if head.startswith(b"PK\x03\x04"):
        return
    if not head:
        found = "empty; download it again"
    elif head.startswith(b"\x80"):
        found = f"a bare pickle, the format of PyTorch before 1.6; {RESAVE} with a newer PyTorch"
    elif head.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer; fetch the file it stands for with `git lfs pull`"
    elif head.lstrip().startswith(b"<"):
        found = "a web page; download the file itself"
    elif head[8:9] == b"{":
        found = "a .safetensors file; give it that ending"
    else:
        found = f"no zip archive, it begins with {head[:16]!r}; download it again"
    raise ValueError(f"not a PyTorch file but {found}")


class _Archive:
    """Records of a `torch.save` archive by their names below its one folder."""

    def __init__(self, file: _File):
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        roots = [i.filename[: -len("data.pkl")] for i in infos if i.filename.endswith("/data.pkl")]
        names = {info.filename for info in infos}
        if len(roots) != 1 or len(names) != len(infos):
            raise ValueError(
                f"a zip archive of {len(infos)} records, {len(names)} different names and "
                f"{len(roots)} data.pkl, expected 1 and no name twice; download or save it again"
            )
        self._infos = {i.filename.removeprefix(roots[0]): i for i in infos}
        if "constants.pkl" in self._infos or any(n.startswith("code/") for n in self._infos):
            raise ValueError(
                "a TorchScript program, not weights; load it with torch.jit.load where you trust "
                "it, and save torch.save(model.state_dict(), path)"
            )

    def locate(self, name: str) -> tuple[int, int]:
        """First byte and size of a record."""
        if name not in self._infos:
            raise ValueError(f"has no record {name[:80]!r}; download or save it again")
        info = self._infos[name]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"record {name[:80]!r} is compressed; {RESAVE}")
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        name_size, extra_size = struct.unpack("<HH", header[26:])
        start = info.header_offset + len(header) + name_size + extra_size
        if not header.startswith(b"PK\x03\x04") or start + info.file_size > self.size:
            raise ValueError(f"record {name[:80]!r} is damaged or cut off; download it again")
        return start, info.file_size

    def read(self, name: str, default: bytes | None = None) -> bytes:
        """The bytes of a small record."""
        if default is not None and name not in self._infos:
            return default
        start, size = self.locate(name)
        self._file.seek(start)
        return self._file.read(size)


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of the one level that is a state dict, whatever lies below or beside it."""
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, expected a state dict; {RESAVE}")
    tensors = _innermost(content, _MAX_NESTING)
    if not tensors or not all(isinstance(name, str) for name in tensors):
        keys = ", ".join(repr(key)[:80] for key in list(content)[:5])
        raise ValueError(
            f"no tensors by name at its top or under {' or '.join(map(repr, _STATE_KEYS))}, but "
            f"the keys {keys or 'none'}; {RESAVE}"
        )
    return tensors


def _innermost(content: dict, nesting: int) -> dict[Any, Tensor]:
    """The tensors under the first of `_STATE_KEYS` that leads to any, else those of `content`."""
    for key in _STATE_KEYS if nesting else ():
        inner = content.get(key)
        if isinstance(inner, dict) and (tensors := _innermost(inner, nesting - 1)):
            return tensors
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _entry(path: storage.Path, archive: _Archive, name: str, tensor: Tensor) -> TensorEntry:
    """Where a tensor lies in the file, once it is sure to lie within its storage."""
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    if (
        not (isinstance(shape, tuple) and isinstance(strides, tuple))
        or not len(shape) == len(strides) <= _MAX_DIMENSIONS
        or not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    ):
        raise ValueError(
            f"tensor {name[:80]!r}: offset, shape and strides are not those of a tensor of up to "
            f"{_MAX_DIMENSIONS} axes; save it again"
        )
    itemsize = tensor.dtype.itemsize
    start, available = archive.locate(f"data/{tensor.storage.key}")
    available = min(available, tensor.storage.bytes)
    end = (offset + _reach(shape, strides)) * itemsize
    if 0 not in shape and end > available:
        raise ValueError(
            f"tensor {name[:80]!r} of shape {shape}, strides {strides} and offset {offset} ends at "
            f"byte {end} of a storage of {available} bytes: out of bounds; save it again"
        )
    # Strides of 0 make a tensor of any size out of one number.
    limit = _MAX_EMPTY_BYTES if 0 in shape else archive.size
    if math.prod(size or 1 for size in shape) * itemsize > limit:
        raise ValueError(
            f"tensor {name[:80]!r} of shape {shape} repeats its numbers to more than the whole "
            f"file of {archive.size} bytes; save it contiguous"
        )
    return TensorEntry(path, name, shape, tensor.dtype, start + offset * itemsize, strides)


def _reach(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first one to past the last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
