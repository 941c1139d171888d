"""Encoding a source's examples on several processes, in order."""

import collections
import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from typing import Any

import cv2

from fetalclip_jax.data.encoding import encode_example
from fetalclip_jax.data.example import BadExampleError

# Enough examples that sending them costs little beside making them, few enough that the progress
# bar moves and that the processes finish together.
_CHUNK = 16
# Chunks in flight per worker: bounds memory when writing is slower than encoding.
_CHUNKS_AHEAD = 4

_worker_source = None
_worker_image_size = 0


def encoded_records(
    source, image_size: int, workers: int = 0
) -> Iterator[dict[str, Any] | BadExampleError]:
    """The record of every example of `source`, or the error that replaces it, in index order.

    Args:
      source: anything with `__len__` and `__getitem__(int) -> Example`; picklable if `workers`.
      image_size: side of the stored square images in pixels.
      workers: number of processes; 0 works in this one. What is yielded is the same for all.

    Raises:
      ValueError: for a negative number of workers. Errors of `source` other than
        BadExampleError are raised here too.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; use 0 for this process, or a number of processes")
    if workers == 0:
        for index in range(len(source)):
            yield _encode_one(source, index, image_size)
        return
    chunks = (
        range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)
    )
    # "spawn" because this process may hold JAX or grain threads, which do not survive a fork.
    pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(source, image_size),
    )
    try:
        pending = collections.deque()
        for chunk in chunks:
            pending.append(pool.submit(_encode_chunk, chunk))
            if len(pending) >= workers * _CHUNKS_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(source, image_size: int) -> None:
    global _worker_source, _worker_image_size
    _worker_source, _worker_image_size = source, image_size
    # One process per core: OpenCV's own threads would only fight over them.
    cv2.setNumThreads(1)


def _encode_chunk(indices: range) -> list[dict[str, Any] | BadExampleError]:
    return [_encode_one(_worker_source, index, _worker_image_size) for index in indices]


def _encode_one(source, index: int, image_size: int) -> dict[str, Any] | BadExampleError:
    try:
        return encode_example(source[index], image_size)
    except BadExampleError as error:
        return error
