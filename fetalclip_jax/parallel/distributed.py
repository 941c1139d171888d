"""What the processes of a job tell each other, through the key-value store of `jax.distributed`.

That works while devices compute, and where they no longer answer. In a process by itself nothing
is told: every function here then does the plain thing.
"""

import contextlib
import dataclasses
import itertools
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

# The client has no public name.
from jax._src import distributed as _jax_distributed

from fetalclip_jax import storage

# Processes come to a check within this time of each other: they do the same until then.
_CHECK_TIMEOUT_S = 600.0
# Network disks show another host's files when what they remember of a folder is that old.
_DISK_TIMEOUT_S = 60.0
_POLL_S = 2.0
_PREFIX = "fetalclip"
_FAILURE = f"{_PREFIX}/failure"

# Every process makes the same calls in the same order: their numbers tell them apart.
_calls = itertools.count()


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a job ends.

    Attributes:
      process: which one failed first.
      host: where it ran.
      message: its error, in one line.
    """

    process: int
    host: str
    message: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}: {self.message}"


def several() -> bool:
    """Whether this process is one of several."""
    return client() is not None


def client():
    """JAX's connection to the service in process 0; None in a process by itself."""
    return _jax_distributed.global_state.client


def place() -> tuple[int, int]:
    """(number of this process, how many there are), known before there are devices."""
    state = _jax_distributed.global_state
    return (state.process_id, state.num_processes) if state.client else (0, 1)


def on_lead(action: Callable[[], Any]) -> Any:
    """What `action` gives in the lead process, where alone it is run; all others wait for it.

    They wait as long as it takes. It must not compute on devices that others take part with.

    Args:
      action: gives None or small JSON.

    Raises:
      ValueError: in every process where `action` raises one, or an OSError.
    """
    if not several():
        return action()
    # `action` may ask JAX which process it is, which connects the devices of all.
    jax.devices()
    return _from_lead(action)


def _from_lead(action: Callable[[], Any]) -> Any:
    key = f"{_PREFIX}/lead/{next(_calls)}"
    if place()[0]:
        told = json.loads(_await(key, None, "process 0"))
        if "error" in told:
            raise ValueError(told["error"])
        return told["result"]
    try:
        result = action()
        told = json.dumps({"result": result})
    except (ValueError, OSError) as error:
        client().key_value_set(key, json.dumps({"error": one_line(error)}))
        raise
    except BaseException as error:
        tell_failure(error)
        raise
    client().key_value_set(key, told)
    return result


def found_anywhere(mine: str | None) -> str | None:
    """What a process found, or that another one did; to be called by all of them.

    Args:
      mine: None where this process found nothing.
    """
    if not several():
        return mine
    number, (me, count) = next(_calls), place()
    client().key_value_set(f"{_PREFIX}/found/{number}/{me}", json.dumps(mine))

    def gather() -> list[str]:
        said = [_await(f"{_PREFIX}/found/{number}/{i}", None, f"process {i}") for i in range(count)]
        return [f"process {i}: {text}" for i, text in enumerate(map(json.loads, said)) if text]

    found = on_lead(gather)
    return mine or (found[0] if found else None)


def say(text: str) -> None:
    """Prints a line on the terminal, once for all processes."""
    if place()[0] == 0:
        print(text, flush=True)


def agree(facts: Mapping[str, Any], advice: str) -> None:
    """Makes sure that all processes say the same, to be called by all of them.

    Args:
      facts: name -> what can be written as JSON.
      advice: what to do where they differ.

    Raises:
      ValueError: in every process, if any differs: which processes say what.
    """
    if not several():
        return
    number = next(_calls)
    me, count = place()
    mine = json.dumps({"host": socket.gethostname(), "facts": dict(facts)}, default=str)
    client().key_value_set(f"{_PREFIX}/agree/{number}/{me}", mine)

    def compare() -> str:
        said = [
            json.loads(_await(f"{_PREFIX}/agree/{number}/{i}", _CHECK_TIMEOUT_S, f"process {i}"))
            for i in range(count)
        ]
        return _differences(said)

    if differing := _from_lead(compare):
        raise ValueError(f"the processes of this job differ: {differing}; {advice}")


def _differences(said: list[dict[str, Any]]) -> str:
    """Each fact that differs, and who says what; "" where nothing does."""
    found = []
    for name in sorted(set().union(*(one["facts"] for one in said))):
        holders: dict[str, list[int]] = {}
        for i, one in enumerate(said):
            value = one["facts"].get(name, "missing")
            holders.setdefault(json.dumps(value), []).append(i)
        if len(holders) > 1:
            shown = (f"{value} on {_who(who, said)}" for value, who in holders.items())
            found.append(f"{name} is {', '.join(shown)}")
    return "; ".join(found)


def _who(processes: list[int], said: list[dict[str, Any]]) -> str:
    first = f"process {processes[0]} ({said[processes[0]]['host']})"
    more = len(processes) - 1
    return first + (f" and {more} more" if more else "")


def check_shared(folder: storage.Path) -> None:
    """Makes sure that `folder` is the same one for all processes, to be called by all of them.

    Raises:
      ValueError: in every process, if it is not.
    """
    if not several():
        return
    mark = folder / on_lead(lambda: _leave_mark(folder))
    try:
        found = "that of process 0" if _appears(mark) else "another one"
        agree({f"the folder {folder}": found}, "it must lie on a disk that all hosts share")
    finally:
        if place()[0] == 0:
            mark.unlink(missing_ok=True)


def wait_for_disk(path: storage.Path) -> None:
    """Waits until this host's view of a shared disk has what the lead process just made.

    Raises:
      ValueError: it does not appear.
    """
    if several() and not _appears(path):
        raise ValueError(
            f"{path}, made by process 0, does not appear on {socket.gethostname()}; it must lie "
            "on a disk that all hosts share"
        )


def _appears(path: storage.Path) -> bool:
    deadline = time.monotonic() + _DISK_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _leave_mark(folder: storage.Path) -> str:
    name = f".shared-{secrets.token_hex(8)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return name


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Tells the others of an error in the block as it occurs, before anything waits for them."""
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):
            tell_failure(error)
        raise


def tell_failure(error: BaseException) -> Failure | None:
    """Ends the job: all other processes end with this error unless one came before it.

    Returns:
      The first failure of the job, which need not be this one; None in a process by itself.
    """
    if not several():
        return None
    return tell(Failure(place()[0], socket.gethostname(), one_line(error)))


def tell(found: Failure) -> Failure:
    """Ends the job for what was found of any of its processes; gives the first that was told."""
    # Refused where there is one already, or unreachable where the lead is gone.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client().key_value_set(_FAILURE, json.dumps(dataclasses.asdict(found)))
    return failure() or found


def failure() -> Failure | None:
    """Why the job ends; None while it does not."""
    try:
        return Failure(**json.loads(client().key_value_try_get(_FAILURE)))
    except jax.errors.JaxRuntimeError:
        return None


def one_line(error: BaseException) -> str:
    """An error in one line; the kind of those that are not meant for users."""
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError)):
        return text
    return f"{type(error).__name__}: {text}"


def _await(key: str, timeout_s: float | None, who: str) -> str:
    """The value of `key`, once `who` has set it.

    Raises:
      ValueError: the job failed in the meantime, or `timeout_s` is over.
    """
    deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
    while True:
        try:
            return client().blocking_key_value_get(key, int(_POLL_S * 1000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if first := failure():
            raise ValueError(str(first))
        if time.monotonic() > deadline:
            raise ValueError(
                f"{who} did not come to the check that all processes make at their start within "
                f"{timeout_s:g} s; start all with the same command and the same code"
            )
