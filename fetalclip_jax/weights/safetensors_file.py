"""Tensors of a `.safetensors` file, read one at a time or in part."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from fetalclip_jax import storage

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class SafetensorsEntry:
    """A tensor that is still in its file.

    Attributes:
      path: the file.
      name: of the tensor.
      shape: its shape.
      dtype: its NumPy data type (bfloat16 is that of ml_dtypes).
    """

    path: storage.Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """The whole tensor."""
        return self.read_slice(tuple(slice(0, size) for size in self.shape))

    def read_slice(self, index: tuple[slice, ...]) -> np.ndarray:
        """Part of the tensor; only what it covers is read from the disk."""
        with _opened(self.path) as file:
            part = file.get_slice(self.name)[index] if index else file.get_tensor(self.name)
        return np.ascontiguousarray(part) if index else np.asarray(part)


def open_tensors(path: storage.Path) -> dict[str, SafetensorsEntry]:
    """The tensors of a file by name, none of them read yet.

    Raises:
      ValueError: a file that is missing, damaged or of another format, or a data type this
        package does not know.
    """
    path = storage.path(path)
    entries = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise ValueError(
                    f"{path}: tensor {name!r} has data type {part.get_dtype()}; known are "
                    f"{', '.join(_DTYPES)}"
                )
            dtype = np.dtype(_DTYPES[part.get_dtype()])
            entries[name] = SafetensorsEntry(path, name, tuple(part.get_shape()), dtype)
    return entries


def save(path: storage.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file whole or not at all, in the format tag PyTorch's readers ask for."""
    if storage.is_bucket(path):
        with tempfile.TemporaryDirectory() as folder:
            written = pathlib.Path(folder) / path.name
            save(written, tensors)
            path.upload_from(written)
        return
    temporary = path.with_suffix(".tmp")
    safetensors.numpy.save_file(dict(tensors), temporary, metadata={"format": "pt"})
    # The library makes files that only their owner may read.
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    temporary.replace(path)


class _opened:
    """`safe_open` whose errors are ValueErrors that name the file."""

    def __init__(self, path: storage.Path):
        self._path = path

    def __enter__(self):
        try:
            self._file = safetensors.safe_open(self._path, framework="numpy")
            return self._file.__enter__()
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"{self._path}: not a readable .safetensors file ({error}); download or export it "
                "again"
            ) from error

    def __exit__(self, kind, error, trace):
        self._file.__exit__(kind, error, trace)
        if isinstance(error, safetensors.SafetensorError):
            raise ValueError(f"{self._path}: damaged ({error})") from error
        return False
