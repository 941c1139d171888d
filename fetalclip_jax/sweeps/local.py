"""Points as processes on this machine: one that crashes takes no other with it."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from fetalclip_jax.config import flatten
from fetalclip_jax.sweeps.folder import Folder, State, last_line
from fetalclip_jax.sweeps.plan import Plan, Point
from fetalclip_jax.sweeps.slots import Slot

_POLL_SECONDS = 0.2
# What a compiled step does not depend on.
_ARGUMENTS = ("seed", "model.init_logit_scale", "data.train_images")
# A point says by its state that it was stopped; what started the sweep hears it from the sweep.
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "FETALCLIP_STOPPED_STATUS": "0"}


@dataclasses.dataclass
class _Running:
    point: Point
    process: subprocess.Popen
    slot: Slot


class Stopper:
    """Passes signals on to the processes: the first lets them save, a second one kills them."""

    def __init__(self):
        self.signals = 0
        self.running: list[_Running] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stopper"]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield self
        finally:
            self._kill()  # of an error here
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        self.signals += 1
        what = "points save and stop" if self.signals == 1 else "points are killed"
        os.write(sys.stderr.fileno(), f"{signal.Signals(number).name}: {what}\n".encode())
        if self.signals > 1:
            self._kill()
            return
        for one in self.running:
            # Not its workers: they end with it, and a run that loses one has failed.
            one.process.terminate()

    def _kill(self) -> None:
        for one in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)


def run(
    plan: Plan,
    folder: Folder,
    points: Sequence[Point],
    command: Callable[[Point], Sequence[str]],
    slots: Sequence[Slot],
    say: Callable[[str], None] = print,
) -> bool:
    """Runs points, as many at once as there are slots; what they print goes to their logs.

    Args:
      points: to be run, in order.
      command: runs one of them.
      say: gets a line for each that ends.

    Returns:
      Whether it came to the end; False where a signal stopped it.
    """
    waiting, free, compiled = list(points), list(slots), set()
    done = len(plan.points) - len(points)
    bar = tqdm(total=len(plan.points), initial=done, desc="sweep", unit="point", disable=None)
    with bar, Stopper().listening() as stopper:
        while stopper.running or (waiting and not stopper.signals):
            while waiting and free and not stopper.signals:
                running = [one.point for one in stopper.running]
                point, slot = next_point(waiting, running, compiled), free.pop(0)
                stopper.running.append(_start(point, folder, command(point), slot))
            time.sleep(_POLL_SECONDS)
            for one in [one for one in stopper.running if one.process.poll() is not None]:
                stopper.running.remove(one)
                free.append(one.slot)
                compiled.add(program(one.point))
                state = _ended(one, plan, folder, told=bool(stopper.signals))
                bar.update()
                bar.clear()
                say(f"{one.point.name}: {in_words(state)}")
        return not stopper.signals


def next_point(waiting: list[Point], running: Sequence[Point], compiled: set[str]) -> Point:
    """Takes the next point, if possible one whose program no other is just compiling.

    What the first of a kind compiled, the others find in JAX's cache.

    Args:
      compiled: programs of points that ended.
    """
    compiling = set(map(program, running)) - compiled
    for place, point in enumerate(waiting):
        if program(point) not in compiling:
            return waiting.pop(place)
    return waiting.pop(0)


def program(point: Point) -> str:
    """The same for points that train with the same compiled step."""
    fields = {
        name: value for name, value in flatten(point.config).items() if name not in _ARGUMENTS
    }
    return json.dumps(fields, sort_keys=True, default=str)


def in_words(state: State) -> str:
    words = state.status
    if state.seconds is not None:
        words += f" after {state.seconds:.0f} s"
    return f"{words}: {state.message}" if state.message else words


def _start(point: Point, folder: Folder, command: Sequence[str], slot: Slot) -> _Running:
    log = folder.log(point)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file, slot.given():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | _ENVIRONMENT | dict(slot.environment),
            start_new_session=True,  # Ctrl-C is passed on, and not heard twice
        )
    return _Running(point, process, slot)


def _ended(one: _Running, plan: Plan, folder: Folder, *, told: bool) -> State:
    """How a point's process left it, also where it had no time to say so.

    Args:
      told: whether points were told to end.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.process.pid, signal.SIGKILL)  # workers of one that crashed
    said, status = folder.state(one.point, plan), one.process.returncode
    if status == 0 and said.status in ("done", "stopped", "interrupted"):
        return said
    if status > 0 and (holder := folder.run(one.point).in_use()):
        return dataclasses.replace(said, message=f"by {holder}, not by this sweep")
    if status == 0 or (status < 0 and told):  # ended before its first step, or before it could hear
        state = State("interrupted", "", said.step)
    else:
        state = State("failed", _why(status, said, last_line(folder.log(one.point))))
    folder.write_state(one.point, state)
    return state


def _why(status: int, said: State, line: str) -> str:
    if said.status == "failed":
        return said.message
    if status < 0:
        name = signal.Signals(-status).name
        reason = ", often for want of memory" if name == "SIGKILL" else ""
        return f"ended by {name}{reason}; its last line: {line}"
    return f"ended with status {status}; its last line: {line}"


def command(config: str, workdir: str, overrides: Sequence[str], stop_early: bool) -> Callable:
    """What runs one point of a sweep in a process of its own."""

    def of_point(point: Point) -> list[str]:
        start = [sys.executable, "-m", "fetalclip_jax.cli", "sweep", "--config", config]
        flags = ["--stop-early"] if stop_early else []
        return [*start, "--workdir", workdir, "--point", point.name, *flags, *overrides]

    return of_point
