"""Encoding a source's examples on several processes, in order."""

import collections
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import sys
from collections.abc import Iterator
from typing import Any

import cv2

from fetalclip_jax.data.checks import ranges_of
from fetalclip_jax.data.encoding import encode_example
from fetalclip_jax.data.example import BadExampleError

# Enough examples that sending them costs little beside making them, few enough that the progress
# bar moves and that the processes finish together.
_CHUNK = 16
# Chunks in flight per worker: bounds memory when writing is slower than encoding.
_CHUNKS_AHEAD = 4
# With this status a worker tells that it was running the user's script again.
_UNGUARDED = 77

_worker_arguments: tuple = ()


def encoded_records(
    source, image_size: int, workers: int = 0
) -> Iterator[dict[str, Any] | BadExampleError]:
    """The record of every example of `source`, or the error that replaces it, in index order.

    Args:
      source: anything with `__len__` and `__getitem__(int) -> Example`; picklable if `workers`.
      image_size: side of the stored square images in pixels.
      workers: number of processes; 0 works in this one. What is yielded is the same for all.

    Raises:
      ValueError: for a negative number of workers, for processes that were killed, and for a
        script that starts them without a main guard. Errors of `source` other than
        BadExampleError are raised here too.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; use 0 for this process, or a number of processes")
    if workers == 0:
        for index in range(len(source)):
            yield _encode_one(source, index, image_size)
        return
    leave_unguarded_script()
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
    processes = []
    try:
        pending = collections.deque()
        for chunk in chunks:
            pending.append(pool.submit(_encode_chunk, chunk))
            processes = processes or multiprocessing.active_children()
            if len(pending) >= workers * _CHUNKS_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        pool.shutdown()  # only then is known how each process ended
        raise ValueError(_why_broken(workers, processes)) from None
    finally:
        pool.shutdown(cancel_futures=True)


def leave_unguarded_script() -> None:
    """Ends a worker that is running the user's script instead of its work, without a word.

    A new process first runs the script that started it. Without a main guard that arrives here
    again, where the library's own error would be a traceback from every process.
    """
    # What `multiprocessing` itself asks before it refuses to start processes of a process.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(_UNGUARDED)


def _why_broken(workers: int, processes: list) -> str:
    codes = [process.exitcode for process in processes]
    if _UNGUARDED in codes:
        script = getattr(sys.modules["__main__"], "__file__", "the script")
        return (
            f"{script} prepares data with workers={workers}, and each of these processes runs the "
            'script again: put its code under `if __name__ == "__main__":`, or use workers=0'
        )
    return (
        f"a process that prepares data was ended from outside (exit codes {codes}), most often "
        f"for want of memory: use fewer workers than {workers}, or workers=0"
    )


def _start_worker(source, image_size: int) -> None:
    global _worker_arguments
    _worker_arguments = (source, image_size)
    # One process per core: OpenCV's own threads would only fight over them.
    cv2.setNumThreads(1)


def _encode_chunk(indices: range) -> list[dict[str, Any] | BadExampleError]:
    source, image_size = _worker_arguments
    return [_encode_one(source, index, image_size) for index in indices]


def _encode_one(source, index: int, image_size: int) -> dict[str, Any] | BadExampleError:
    try:
        return encode_example(
            source[index], image_size, ranges=ranges_of(source), with_extra=stores_extra(source)
        )
    except BadExampleError as error:
        return error


def stores_extra(source) -> bool:
    """Whether records of `source` have a column for `Example.extra`."""
    facts = getattr(source, "facts", None)
    return facts is None or bool(facts.group_columns)
