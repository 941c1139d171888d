"""The life of a job of several processes: they start with the same software and end together."""

import contextlib
import hashlib
import importlib.metadata
import itertools
import os
import pathlib
import platform
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax

import fetalclip_jax
from fetalclip_jax.parallel import cluster, distributed, leaving

# A process that gave no sign of life for so long is taken for dead.
_SILENCE_S = 60.0
_PULSE_S = 1.0
# What the main thread is given to end by itself: of a process that failed, to tidy up; of another,
# to notice.
_TO_TIDY_S, _TO_NOTICE_S = 20.0, 3.0
# How long the lead stays for the others to read why the job ends.
_TO_READ_S = 5.0
_PREFIX = "fetalclip/alive"
_FOREVER_MS = 10 * 365 * 86_400_000
# What users are to see as one line.
_EXPECTED = (ValueError, OSError, KeyboardInterrupt, jax.errors.JaxRuntimeError)


@contextlib.contextmanager
def job(
    command: str,
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    timeout_s: float = cluster.START_TIMEOUT_S,
    heeds_notices: bool = False,
) -> Iterator[None]:
    """What a command does, in this process of its job; to be entered before JAX computes.

    By itself a process starts nothing. In a job of several, an error in one of them ends each
    with status 2 and a line that says what went wrong where; only the lead prints and draws
    progress bars.

    Args:
      command: its name, for messages; all processes must run the same.
      coordinator, processes, process_id, timeout_s: see `cluster.initialize`.
      heeds_notices: the command asks JAX whether one of the processes was told to end. JAX then
        catches SIGTERM, which otherwise ends the job as an error does.

    Raises:
      ValueError: as `cluster.initialize`.
    """
    jax.config.update("jax_enable_preemption_service", heeds_notices)
    if not cluster.initialize(coordinator, processes, process_id, timeout_s=timeout_s):
        yield
        return
    watch = _Watch(f"fetalclip {command}")
    watch.start()
    if not heeds_notices and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _quiet_unless_lead():
            distributed.agree(
                {"the command": command, **_software()},
                "start all with the same command, code and environment",
            )
            jax.devices()  # all together: each waits for the devices of the others
            yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            watch.fail(error)
        watch.finish()
        raise
    watch.finish()


def _interrupt(number: int, _) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # one is enough, and the end is not to be interrupted
    raise InterruptedError(f"ended by {signal.Signals(number).name}")


def _software() -> dict[str, str]:
    return {
        "fetalclip_jax": fetalclip_jax.__version__,
        "the code of fetalclip_jax": _code_digest(pathlib.Path(__file__).parents[1]),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


def _code_digest(package: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _quiet_unless_lead() -> Iterator[None]:
    """Nothing but errors of the processes that are not the lead reaches the terminal."""
    if distributed.place()[0] == 0:
        yield
        return
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


class _Watch(threading.Thread):
    """Gives a sign of life once a second, and ends this process when the job has failed."""

    def __init__(self, program: str):
        super().__init__(daemon=True)
        self._program = program
        self._client = distributed.client()
        self._me, self._count = distributed.place()
        self._done = threading.Event()

    def run(self) -> None:
        signs = _Signs(self._count)
        key = f"{_PREFIX}/{self._me}"
        for beat in itertools.count():
            if self._done.wait(_PULSE_S):
                return
            if first := distributed.failure():
                mine = first.process == self._me
                time.sleep(_TO_TIDY_S if mine else _TO_NOTICE_S)
                self._leave(first.message if mine else str(first))
            # Where the lead is gone JAX itself ends this process.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                sign = f"{beat} {socket.gethostname()}"
                self._client.key_value_set(key, sign, allow_overwrite=True)
                if self._me == 0:
                    signs.look(self._client)
                    signs.tell_of_silence(_SILENCE_S)

    def fail(self, error: BaseException) -> NoReturn:
        """Ends this process and all others, for the first thing that went wrong in any."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            self._find_cause()
        own = distributed.one_line(error)
        first = distributed.tell_failure(error)
        if os.environ.get("FETALCLIP_TRACEBACK") or not isinstance(error, _EXPECTED):
            traceback.print_exception(error)
        # What all processes find each says for itself.
        self._leave(own if own == first.message else str(first))

    def finish(self) -> None:
        """Waits for the others to be done, and leaves the job."""
        self._client.wait_at_barrier("fetalclip/end", _FOREVER_MS)
        self._done.set()
        self.join()
        jax.distributed.shutdown()

    def _find_cause(self) -> None:
        """Of an error of a computation that others take part in: one that failed, or is dead."""
        signs = _Signs(self._count)
        deadline = time.monotonic() + _TO_NOTICE_S + 2 * _PULSE_S
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            while time.monotonic() < deadline and not distributed.failure():
                signs.look(self._client)
                time.sleep(_PULSE_S / 2)
            if not distributed.failure():
                signs.tell_of_silence(_TO_NOTICE_S)

    def _leave(self, message: str) -> NoReturn:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(f"fetalclip/read/{self._me}", "read", allow_overwrite=True)
            deadline = time.monotonic() + _TO_READ_S
            # The lead holds what the others have yet to read.
            while self._me == 0 and time.monotonic() < deadline:
                if len(self._client.key_value_dir_get("fetalclip/read/")) == self._count:
                    break
                time.sleep(0.1)
        leaving.leave(f"{self._program}: {message}", 2)


class _Signs:
    """Signs of life as they were seen from here: no two hosts need the same time of day."""

    def __init__(self, count: int):
        self._start = time.monotonic()
        self._seen: dict[int, tuple[str, float]] = {i: ("", self._start) for i in range(count)}

    def look(self, client) -> None:
        for key, sign in client.key_value_dir_get(_PREFIX + "/"):
            process = int(key.rpartition("/")[2])
            if self._seen[process][0] != sign:
                self._seen[process] = (sign, time.monotonic())

    def tell_of_silence(self, limit_s: float) -> None:
        """Ends the job if a process gave no new sign for so long."""
        now = time.monotonic()
        for process, (sign, seen) in self._seen.items():
            if now - seen > limit_s:
                host = sign.partition(" ")[2] or "an unknown host"
                message = f"no sign of life for {now - seen:.0f} s: it was killed, or hangs"
                distributed.tell(distributed.Failure(process, host, message))
                return
