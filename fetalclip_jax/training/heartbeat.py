"""Signs of life of every process of a job, and the name of the one that stalls."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from fetalclip_jax import storage
from fetalclip_jax.training.flight import Flight
from fetalclip_jax.training.goodput import QUIET, Clock

_SECONDS = 5.0
# A process whose clock or disk is a little behind is not dead yet.
_MISSED = 6

# What a process does in a phase, as far as a watcher can tell.
_WAITS_FOR = {
    "step": "the devices",
    "data_wait": "the next batch",
    "save": "the checkpoint to be written",
}


def read(folder: storage.Path) -> dict[int, dict]:
    """The last heartbeats in a folder, by process. Such that cannot be read are left out."""
    beats = {}
    for path in folder.glob("*.json"):
        try:
            beats[int(path.stem)] = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            continue
    return beats


class Heartbeat:
    """A thread that writes `<workdir>/heartbeats/<process>.json` and watches for a stall.

    A beat holds `process`, `host`, `step` (finished), `phase`, `since` (when that began), `time`
    (now) and `seconds` (by phase, of the whole run). When no step has finished for `stall_seconds`
    a line says which process is behind, and another each time as long again has passed; nothing is
    stopped. Compiling and judging take as long as they take and are no stall.

    Args:
      folder: of the heartbeats; shared by all processes, or the others are not known.
      process, processes: number of this one and count of all.
      stall_seconds: 0 watches for nothing.
      say: prints a line.
      seconds: between two beats; by default 5, or a quarter of `stall_seconds`.
    """

    def __init__(
        self,
        folder: storage.Path,
        clock: Clock,
        flight: Flight,
        *,
        process: int,
        processes: int,
        stall_seconds: float,
        say: Callable[[str], None],
        seconds: float | None = None,
    ):
        self._folder, self._clock, self._flight = folder, clock, flight
        self._process, self._processes = process, processes
        self._stall_seconds, self._say = stall_seconds, say
        often = min(_SECONDS, stall_seconds / 4) if stall_seconds else _SECONDS
        self._seconds = often if seconds is None else seconds
        self._said_at = 0.0
        self._over = threading.Event()
        self.beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes a last beat, which says that the process stopped by itself."""
        self._over.set()
        self._thread.join()
        self.beat(phase="stopped")

    def beat(self, phase: str = "") -> None:
        """Writes a heartbeat now."""
        clock, path = self._clock, self._folder / f"{self._process}.json"
        content = {
            "process": self._process,
            "host": socket.gethostname(),
            "step": self._flight.finished,
            "phase": phase or clock.phase,
            "since": self._idle_since(),
            "time": time.time(),
            "seconds": clock.by_phase(),
        }
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            text = json.dumps(content) + "\n"
            if storage.is_bucket(path):
                path.write_text(text)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except OSError:  # a full disk: saving a checkpoint tells it, and knows what to do
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def look(self) -> None:
        """Says who is behind, where no step has finished for too long."""
        if not self._stall_seconds or self._clock.phase in QUIET:
            return
        now, idle_since = time.time(), self._idle_since()
        if now - max(idle_since, self._said_at) < self._stall_seconds:
            return
        self._said_at = now
        self._say(
            f"no step has finished for {now - idle_since:.0f} s "
            f"(config.train.stall_seconds={self._stall_seconds:g}): "
            f"{behind(self._beats(), now, _MISSED * self._seconds)}; waiting on"
        )

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self.beat()
            self.look()

    def _idle_since(self) -> float:
        """When the last step finished, or the last quiet phase ended."""
        return max(self._flight.finished_at, self._clock.awake_since)

    def _beats(self) -> dict[int, dict | None]:
        # Those of higher number are of an earlier run on more hosts.
        found = read(self._folder)
        return {process: found.get(process) for process in range(self._processes)}


def behind(beats: Mapping[int, Mapping | None], now: float, silent_after: float) -> str:
    """Which processes the others wait for, and what these do.

    Those that gave no sign of life are named first; else those that have finished the fewest
    steps; else those that do something other than to wait for their devices, for a device may wait
    for the others. If there is no difference, all are said to wait alike.

    Args:
      beats: of every process, None where there is none.
      silent_after: seconds without a beat after which a process counts as dead.
    """
    silent = [
        _who(process, beat)
        + (f" has given no sign of life for {now - beat['time']:.0f} s" if beat else " never began")
        for process, beat in beats.items()
        if beat is None or now - beat["time"] > silent_after
    ]
    if silent:
        return "; ".join(silent)
    fewest = min(beat["step"] for beat in beats.values())
    late = {p: beat for p, beat in beats.items() if beat["step"] == fewest}
    if len(late) == len(beats):
        elsewhere = {p: beat for p, beat in beats.items() if beat["phase"] != "step"}
        late = elsewhere or late
    if len(late) == len(beats) > 1:
        whiles = sorted({_does(beat["phase"]) for beat in beats.values()})
        return f"all {len(beats)} processes are at step {fewest}, {' or '.join(whiles)}"
    named = "; ".join(
        f"{_who(process, beat)} is at step {beat['step']}, {_does(beat['phase'])}"
        for process, beat in late.items()
    )
    if len(beats) == 1:
        return named
    furthest = max(beat["step"] for beat in beats.values())
    return f"{named}; the furthest of {len(beats)} is at step {furthest}"


def _who(process: int, beat: Mapping | None) -> str:
    return f"process {process}" + (f" on {beat['host']}" if beat else "")


def _does(phase: str) -> str:
    return f"waiting for {_WAITS_FOR[phase]}" if phase in _WAITS_FOR else f"in phase {phase!r}"
