"""Values on their way from a worker process: their arrays go through shared memory, not a pipe."""

import dataclasses
import pathlib
import pickle
import shutil
from multiprocessing import shared_memory
from typing import Any

import numpy as np

# Smaller values pass a pipe as quickly.
_WORTH_SHARING = 2**16
# Where a container's shared memory is this many times a value or less, the value takes the pipe: a
# process that writes to shared memory when there is none left is ended without a word.
_ROOM = 8
_SHARED_MEMORY = pathlib.Path("/dev/shm")
_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class Packed:
    """A value that is cheap to send.

    Attributes:
      pickled: the value, without its arrays where there is a block.
      sizes: of the arrays in bytes.
      block: name of the shared memory that holds them; None where there is none.
    """

    pickled: bytes
    sizes: tuple[int, ...] = ()
    block: str | None = None


def pack(value: Any) -> Packed:
    """To be sent; what is packed must be unpacked or discarded once."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = tuple(view.nbytes for view in views)
    offsets, total = _layout(sizes)
    if total < _WORTH_SHARING or not _has_room(total):
        return Packed(pickle.dumps(value, protocol=5))
    block = shared_memory.SharedMemory(create=True, size=total)
    for offset, size, view in zip(offsets, sizes, views, strict=True):
        block.buf[offset : offset + size] = view
    block.close()
    return Packed(pickled, sizes, block.name)


def unpack(packed: Packed) -> Any:
    """The value; its shared memory is given back."""
    if packed.block is None:
        return pickle.loads(packed.pickled)
    offsets, total = _layout(packed.sizes)
    block = shared_memory.SharedMemory(packed.block)
    content = np.empty(total, np.uint8)
    # One copy, by NumPy, which lets other threads run meanwhile.
    content[:] = np.frombuffer(block.buf, np.uint8, total)
    block.close()
    block.unlink()
    buffers = [
        content[offset : offset + size] for offset, size in zip(offsets, packed.sizes, strict=True)
    ]
    return pickle.loads(packed.pickled, buffers=buffers)


def discard(packed: Packed) -> None:
    """Gives back the shared memory of a value that nobody wants any more."""
    if packed.block is not None:
        block = shared_memory.SharedMemory(packed.block)
        block.close()
        block.unlink()


def _layout(sizes: tuple[int, ...]) -> tuple[list[int], int]:
    """Where each array begins, and the bytes of all."""
    offsets, total = [], 0
    for size in sizes:
        offsets.append(total)
        total += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, total


def _has_room(size: int) -> bool:
    return not _SHARED_MEMORY.is_dir() or shutil.disk_usage(_SHARED_MEMORY).free > _ROOM * size
