"""A function of an index over many indices, on threads or processes, in order."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Enough calls that sending them costs little beside making them, few enough that a progress bar
# moves and that the processes finish together.
_CHUNK = 16
# Chunks in flight per worker: bounds memory when their reader is slower.
_CHUNKS_AHEAD = 4
_THREADS = 2

_worker_function: Callable | None = None


@contextlib.contextmanager
def ordered_map(
    function: Callable[[int], T], count: int, workers: int = 0
) -> Iterator[Iterator[T]]:
    """`function(0)`, `function(1)`, ... `function(count - 1)`, made ahead of their reader.

    Args:
      function: picklable if `workers`.
      count: of indices.
      workers: processes; 0 uses threads of this one, which is as fast where `function` mostly
        decodes images. What is yielded is the same for all.

    Raises:
      ValueError: for a negative number of workers. Errors of `function` are raised as they are.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; use 0 for this process, or a number of processes")
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    if workers:
        # "spawn" because this process may hold JAX or grain threads, which do not survive a fork.
        pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(function,),
        )
        submit = lambda chunk: pool.submit(_run_chunk, chunk)  # noqa: E731
    else:
        pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        submit = lambda chunk: pool.submit(lambda: [function(index) for index in chunk])  # noqa: E731
    try:
        yield _in_order(submit, chunks, (workers or _THREADS) * _CHUNKS_AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(submit, chunks, ahead):
    pending = collections.deque()
    for chunk in chunks:
        pending.append(submit(chunk))
        if len(pending) >= ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _start_worker(function: Callable) -> None:
    global _worker_function
    import cv2

    _worker_function = function
    # One process per core: OpenCV's own threads would only fight over them.
    cv2.setNumThreads(1)


def _run_chunk(indices: range) -> list:
    return [_worker_function(index) for index in indices]
