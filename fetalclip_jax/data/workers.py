"""A function of an index over many indices, on threads or processes, in order."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2

T = TypeVar("T")

# Enough calls that sending them costs little beside making them, few enough that a progress bar
# moves and that the processes finish together.
_CHUNK = 16
# Chunks in flight per worker: bounds memory when their reader is slower.
_CHUNKS_AHEAD = 4
_THREADS = 2
# With this status a worker tells that it was running the user's script again.
_UNGUARDED = 77

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
      ValueError: for a negative number of workers, for processes that were killed, and for a
        script that starts them without a main guard. Errors of `function` are raised as they are.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; use 0 for this process, or a number of processes")
    if not workers:
        pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        run = functools.partial(_run_chunk, function)
    else:
        leave_unguarded_script()
        # "spawn" because this process may hold JAX or grain threads, which do not survive a fork.
        pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(function,),
        )
        run = _run_in_worker
    processes: list = []
    try:
        yield _in_order(pool, run, count, (workers or _THREADS) * _CHUNKS_AHEAD, processes)
    except concurrent.futures.process.BrokenProcessPool:
        pool.shutdown()  # only then is known how each process ended
        raise ValueError(_why_broken(workers, processes)) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool, run, count: int, ahead: int, processes: list):
    pending = collections.deque()
    for start in range(0, count, _CHUNK):
        pending.append(pool.submit(run, range(start, min(start + _CHUNK, count))))
        if not processes:
            processes.extend(multiprocessing.active_children())
        if len(pending) >= ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


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
            f"{script} starts {workers} worker processes, and each of these processes runs the "
            'script again: put its code under `if __name__ == "__main__":`, or use workers=0'
        )
    return (
        f"a worker process was ended from outside (exit codes {codes}), most often "
        f"for want of memory: use fewer workers than {workers}, or workers=0"
    )


def _start_worker(function: Callable) -> None:
    global _worker_function
    _worker_function = function
    # One process per core: OpenCV's own threads would only fight over them.
    cv2.setNumThreads(1)


def _run_in_worker(indices: range) -> list:
    return _run_chunk(_worker_function, indices)


def _run_chunk(function: Callable, indices: range) -> list:
    return [function(index) for index in indices]
