"""Where the wall time of a run goes, and how much of it trained the model."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

import jax.monitoring

# start: imports, records, restoring a checkpoint. data_wait: the devices had nothing to do but
# wait for a batch. save: the part that training waits for. lost: what a kill threw away.
PHASES = ("start", "compile", "step", "data_wait", "evaluate", "save", "lost")

# Phases of which nobody knows beforehand how long they may take.
QUIET = ("start", "compile", "evaluate")


class _Compilations:
    """Seconds this process spent on tracing and compiling, of everything it ever compiled."""

    def __init__(self):
        self._spans: list[tuple[float, float]] = []
        self._lock = threading.Lock()
        jax.monitoring.register_event_time_span_listener(self._heard)

    def _heard(self, event: str, start: float, end: float, **_) -> None:
        if not event.startswith("/jax/core/compile/"):
            return
        with self._lock:
            # Functions traced within others are told first, and are part of them.
            while self._spans and self._spans[-1][0] >= start:
                self._spans.pop()
            self._spans.append((start, end))

    def seconds(self, since: float) -> float:
        """Of the spans that ended after `since`."""
        with self._lock:
            spans = [end - max(start, since) for start, end in self._spans if end > since]
        return float(sum(spans))


_compilations = _Compilations()


class Clock:
    """Divides the wall time of a run, earlier processes included, among `PHASES`.

    Attributes:
      phase: what is being done.
      since: `time.time()` at its beginning.
      awake_since: when the last of the `QUIET` phases ended.
      kept: seconds that the latest checkpoint holds.
    """

    def __init__(self, began: float, spent: Mapping[str, float] | None = None):
        """`began` is when this process did; `spent` what earlier ones spent, by phase."""
        self._spent = dict.fromkeys(PHASES, 0.0) | dict(spent or {})
        self._lock = threading.Lock()
        self.phase, self.since = "start", began
        self.awake_since = began
        self.kept = _without_lost(self._spent)
        self.mark()

    def enter(self, phase: str) -> None:
        """From here on time is spent on `phase`."""
        now = time.time()
        with self._lock:
            self._spent = self._settled(now)
            if self.phase in QUIET:
                self.awake_since = now
            self.phase, self.since = phase, now

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Time within the block is spent on `phase`, whatever it was before."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def busy(self, until: float) -> None:
        """Devices were still at work `until` then: so long nothing waited for data."""
        with self._lock:
            if self.phase == "data_wait" and until > self.since:
                self._spent["step"] += until - self.since
                self.since = until

    def by_phase(self) -> dict[str, float]:
        """Seconds of every phase until now."""
        with self._lock:
            return self._settled(time.time())

    def seconds(self) -> float:
        """Seconds the run took without what kills threw away."""
        return _without_lost(self.by_phase())

    def mark(self) -> None:
        self._marked = self.by_phase()

    def since_mark(self) -> dict[str, float]:
        """Seconds of every phase since the last `mark`."""
        return {phase: spent - self._marked[phase] for phase, spent in self.by_phase().items()}

    def _settled(self, now: float) -> dict[str, float]:
        spent = dict(self._spent)
        elapsed = max(0.0, now - self.since)
        # A program may be compiled in any phase: for evaluation, or texts of a new length.
        compiling = min(elapsed, _compilations.seconds(self.since))
        spent["compile"] += compiling
        # What a first call of the step does beside is to start it.
        spent["step" if self.phase == "compile" else self.phase] += elapsed - compiling
        return spent


def _without_lost(spent: Mapping[str, float]) -> float:
    return sum(seconds for phase, seconds in spent.items() if phase != "lost")


def data_wait_share(spent: Mapping[str, float]) -> float:
    """Of the time in which training might have gone on."""
    return spent["data_wait"] / max(spent["data_wait"] + spent["step"], 1e-9)


def summary(spent: Mapping[str, float]) -> dict:
    """`share`: productive seconds over all; `data_wait_share`; `seconds` of every phase."""
    return {
        "share": spent["step"] / max(sum(spent.values()), 1e-9),
        "data_wait_share": data_wait_share(spent),
        "seconds": dict(spent),
    }


def continued(spent: Mapping[str, float], step: int, beat: Mapping | None) -> dict[str, float]:
    """What earlier processes spent, with what their end threw away under "lost".

    Args:
      spent: seconds by phase as the checkpoint that is continued holds them; empty for none.
      step: of that checkpoint, 0 for none.
      beat: the last heartbeat of the process before, or None.
    """
    spent = dict.fromkeys(PHASES, 0.0) | dict(spent)
    if beat is None:
        return spent
    more = sum(beat["seconds"].values()) - sum(spent.values())
    # One that stopped by itself after this checkpoint lost nothing: it was still writing.
    kept = beat["phase"] == "stopped" and beat["step"] <= step
    spent["save" if kept else "lost"] += max(0.0, more)
    return spent


def in_words(spent: Mapping[str, float]) -> str:
    """ "93 % (457 s step, 14 s compile, 12 s start), data wait 0.4 %"; other phases by size."""
    share = summary(spent)["share"]
    others = sorted(
        ((seconds, phase) for phase, seconds in spent.items() if phase != "step"), reverse=True
    )
    parts = [f"{spent['step']:.0f} s step"]
    parts += [f"{s:.0f} s {phase.replace('_', ' ')}" for s, phase in others if s >= 0.5]
    return (
        f"{100 * share:.0f} % ({', '.join(parts)}), data wait {100 * data_wait_share(spent):.1f} %"
    )
