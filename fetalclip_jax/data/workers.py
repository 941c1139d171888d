"""A function over many arguments, on threads or processes, in order."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import itertools
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import cv2

from fetalclip_jax.data import transfer

A = TypeVar("A")
T = TypeVar("T")

# Enough calls that sending them costs little beside making them, few enough that a progress bar
# moves and that the processes finish together.
_CHUNK = 16
# Calls in flight per worker: bounds memory when their reader is slower.
_AHEAD = 4
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
      ValueError: as `ordered_calls`. Errors of `function` are raised as they are.
    """
    chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
    with ordered_calls(functools.partial(_run_chunk, function), chunks, workers) as found:
        yield itertools.chain.from_iterable(found)


@contextlib.contextmanager
def ordered_calls(
    function: Callable[[A], T], arguments: Iterable[A], workers: int = 0, *, ahead: int = _AHEAD
) -> Iterator[Iterator[T]]:
    """`function` of each of the arguments, in order, made ahead of their reader.

    The arrays in what processes return come through shared memory. The processes end with the
    block, and by themselves where this process is killed.

    Args:
      function: picklable if `workers`.
      arguments: may be endless; one is taken when there is work to give out.
      workers: processes; 0 uses threads of this one.
      ahead: calls in flight per worker.

    Raises:
      ValueError: for a negative number of workers, for processes that were killed, and for a
        script that starts them without a main guard. Errors of `function` are raised as they are.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; use 0 for this process, or a number of processes")
    context = _Context()
    if not workers:
        pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        run, receive, discard = function, _as_it_is, _as_it_is
    else:
        leave_unguarded_script()
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(function,)
        )
        run, receive, discard = _run_in_worker, transfer.unpack, transfer.discard
    pending: collections.deque = collections.deque()
    try:
        yield _in_order(pool, run, receive, arguments, (workers or _THREADS) * ahead, pending)
    except concurrent.futures.process.BrokenProcessPool:
        pool.shutdown()  # only then is known how each process ended
        raise ValueError(_why_broken(workers, context.started)) from None
    finally:
        pool.shutdown(cancel_futures=True)
        for future in pending:
            if not future.cancelled() and future.exception() is None:
                discard(future.result())


class _Context(multiprocessing.context.SpawnContext):
    """Starts processes, and keeps them to ask how they ended.

    They are spawned because this process may hold threads of JAX, which do not survive a fork.
    """

    def __init__(self):
        super().__init__()
        self.started: list = []

    def Process(self, *args, **kwargs):
        process = super().Process(*args, **kwargs)
        # Where one is lost the pool terminates the others and waits for them: they heed no SIGTERM.
        process.terminate = process.kill
        self.started.append(process)
        return process


def _in_order(pool, run, receive, arguments, ahead: int, pending: collections.deque):
    for argument in arguments:
        pending.append(pool.submit(run, argument))
        if len(pending) >= ahead:
            yield receive(pending.popleft().result())
    while pending:
        yield receive(pending.popleft().result())


def _as_it_is(value):
    return value


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
    # A terminal and a cluster signal every process of a job: it is for the one that started this
    # one to finish its work, which it needs its workers for, and to end them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # One process per core: OpenCV's own threads would only fight over them.
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_in_worker(argument) -> transfer.Packed:
    return transfer.pack(_worker_function(argument))


def _run_chunk(function: Callable, indices: range) -> list:
    return [function(index) for index in indices]
