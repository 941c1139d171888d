"""Notices that a process is to end: SIGTERM, Ctrl-C, and those of a cluster before it takes a host.

Training notes them and stops after the step it is at, saved; before the first step there is
nothing to save, and the process ends at once. Either way it exits with status 0, or with that of
FETALCLIP_STOPPED_STATUS, by which what started it sees that there is more to do. Importing this
module does not import JAX, so that notices are heard from the start.
"""

import contextlib
import os
import signal
import sys
import threading
import time

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long a compilation, which cannot be interrupted, may delay the end of a process that has
# nothing to save.
_PATIENCE_SECONDS = 5.0
_STATUS = "FETALCLIP_STOPPED_STATUS"


def stopped_status() -> int:
    """With which a process is to exit that was asked to end before it was done.

    Raises:
      ValueError: FETALCLIP_STOPPED_STATUS is no exit status.
    """
    text = os.environ.get(_STATUS) or "0"
    if not (text.isdecimal() and int(text) < 256):
        raise ValueError(f"{_STATUS}={text} is no exit status; set it to a number from 0 to 255")
    return int(text)


class Notice:
    """Whether this process, or in a job any of its processes, was asked to end.

    A context manager that listens for signals while it is open; to be opened in the main thread.
    One that is never opened hears what the cluster says to JAX alone.

    Attributes:
      stopped_status: as `stopped_status()`.

    Raises:
      ValueError: as `stopped_status()`.
    """

    def __init__(self):
        self._noted = self._asked = False
        self._starting = True
        self._before: dict[int, object] = {}
        self._wakeup: tuple[int, int] | None = None
        self.stopped_status = stopped_status()

    def __enter__(self) -> "Notice":
        # Once JAX connects the processes of a job it listens for SIGTERM itself, in all of them.
        numbers = _SIGNALS[1:] if _in_job() else _SIGNALS
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        # A handler waits for the main thread to come back from C++; a thread hears at once.
        self._wakeup = os.pipe()
        os.set_blocking(self._wakeup[1], False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        threading.Thread(target=self._end_if_stuck, args=self._wakeup[:1], daemon=True).start()
        _open.append(self)
        return self

    def __exit__(self, *_) -> None:
        _open.remove(self)
        self._starting = False
        signal.set_wakeup_fd(-1)
        os.close(self._wakeup[1])  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def started(self) -> None:
        """The first step is done: from here on there is something to save."""
        self._starting = False

    def ask(self) -> None:
        """The program itself asks to stop after the next step; in a job, all processes at once."""
        self._asked = True

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`, the same in all processes; to be asked at every step."""
        return (_job_is_preempted(step) if _in_job() else self._noted) or self._asked

    def _handle(self, number: int, _) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the process at once
        if _in_job():
            if number == signal.SIGTERM:  # JAX was told not to listen
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)  # which JAX passes on to the other processes
            return
        if self._starting:
            self._say(number, "before the first step: nothing is lost, run the same command again")
            _end(self.stopped_status)
        if not self._noted:
            self._say(number, "stopping after this step")
        self._noted = True

    def _say(self, number: int, what: str) -> None:
        # Not print: a handler may have interrupted one, whose lock it would wait for.
        os.write(sys.stderr.fileno(), f"{signal.Signals(number).name}: {what}\n".encode())

    def _end_if_stuck(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            if not self._starting or not set(numbers) & set(_SIGNALS):
                continue
            time.sleep(_PATIENCE_SECONDS)
            if self._starting and not _in_job():  # whose processes end together
                self._say(numbers[0], "ending without waiting for a compilation")
                _end(self.stopped_status)
        os.close(pipe)


def _end(status: int) -> None:
    """Ends the process as it is: unwinding would take libraries down amid what they do."""
    with contextlib.suppress(RuntimeError):  # the handler may have interrupted a print
        sys.stdout.flush()
    os._exit(status)


def _in_job() -> bool:
    """Whether this is one of several processes that JAX connects."""
    # A signal may come amid the import of JAX, when it has no such name yet.
    is_initialized = getattr(sys.modules.get("jax.distributed"), "is_initialized", None)
    return is_initialized is not None and is_initialized()


def _job_is_preempted(step: int) -> bool:
    """Whether the processes of the job have agreed on `step` as the one to stop after."""
    from jax.experimental import multihost_utils

    with contextlib.suppress(RuntimeError):  # the service can be turned off
        return multihost_utils.reached_preemption_sync_point(step)
    return False


_open: list[Notice] = []


def _forget() -> None:
    """In a forked child, which its parent ends: it has no step to finish."""
    if _open:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it beside its parent


os.register_at_fork(after_in_child=_forget)
