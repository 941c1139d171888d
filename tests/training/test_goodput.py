import jax
import jax.numpy as jnp
import pytest

from fetalclip_jax.training import goodput
from fetalclip_jax.training.goodput import Clock, continued


class Time:
    """A clock that is set by hand."""

    def __init__(self, now=100.0):
        self.now = now

    def time(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(goodput, "time", time)
    return time


@pytest.fixture
def compiled(monkeypatch):
    """Spans of compiling, set by hand too."""
    made = goodput._Compilations()
    monkeypatch.setattr(goodput, "_compilations", made)
    return lambda start, end: made._heard("/jax/core/compile/backend", start, end)


def spent(clock):
    return {phase: seconds for phase, seconds in clock.by_phase().items() if seconds}


def test_every_second_belongs_to_one_phase(time, compiled):
    clock = Clock(90.0)
    time.passes(5)
    clock.enter("data_wait")
    time.passes(2)
    clock.enter("step")
    time.passes(30)
    with clock.during("save"):
        time.passes(3)
    time.passes(1)
    assert spent(clock) == {"start": 15.0, "data_wait": 2.0, "step": 31.0, "save": 3.0}
    assert clock.seconds() == 51.0


def test_data_are_waited_for_only_while_the_devices_are_idle(time, compiled):
    clock = Clock(100.0)
    clock.enter("data_wait")
    time.passes(10)
    clock.busy(107.0)  # the step before took until then
    clock.enter("step")
    assert spent(clock) == {"data_wait": 3.0, "step": 7.0}
    clock.enter("data_wait")
    time.passes(10)
    clock.busy(99.0)  # it had ended before
    clock.enter("step")
    assert spent(clock) == {"data_wait": 13.0, "step": 7.0}
    assert goodput.data_wait_share(clock.by_phase()) == 0.65


def test_compiling_is_told_from_what_it_is_done_for(time, compiled):
    clock = Clock(100.0)
    time.passes(10)
    compiled(103.0, 104.0)  # traced within the one that follows, and part of it
    compiled(102.0, 106.0)
    clock.enter("compile")
    time.passes(10)
    compiled(111.0, 119.0)
    clock.enter("evaluate")
    time.passes(10)
    assert spent(clock) == {"start": 6.0, "compile": 12.0, "step": 2.0, "evaluate": 10.0}


def test_jax_says_when_it_compiles():
    clock = Clock(goodput.time.time())
    clock.enter("step")
    jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
    assert 0 < clock.by_phase()["compile"] < clock.seconds()


def test_numbers_since_the_last_mark_are_of_that_time_alone(time, compiled):
    clock = Clock(100.0)
    clock.enter("step")
    time.passes(4)
    clock.mark()
    time.passes(6)
    assert clock.since_mark()["step"] == 6.0
    assert clock.by_phase()["step"] == 10.0


def test_a_run_that_goes_on_counts_on(time, compiled):
    clock = Clock(95.0, {"step": 50.0, "lost": 7.0})
    time.passes(5)
    assert clock.seconds() == 60.0  # what was lost is no part of what the run took
    assert clock.kept == 50.0
    assert spent(clock) == {"start": 10.0, "step": 50.0, "lost": 7.0}
    assert goodput.summary(clock.by_phase())["share"] == pytest.approx(50 / 67)


def beat(number, phase="step", **seconds):
    return {"step": number, "phase": phase, "seconds": seconds}


def test_what_a_kill_threw_away_is_lost_however_often_it_happens():
    kept = {"step": 40.0, "start": 5.0}
    once = continued(kept, 4, beat(6, step=55.0, start=5.0))
    assert (once["step"], once["lost"]) == (40.0, 15.0)
    # Killed again before anything was saved: the heartbeat held the first loss too.
    twice = continued(kept, 4, beat(5, step=48.0, start=9.0, lost=15.0))
    assert (twice["step"], twice["lost"]) == (40.0, 27.0)
    assert sum(twice.values()) == 72.0


def test_a_process_that_stopped_after_saving_lost_nothing():
    kept = {"step": 40.0}
    again = continued(kept, 4, beat(4, "stopped", step=40.0, save=2.0))
    assert (again["save"], again["lost"]) == (2.0, 0.0)
    # One that stopped for an error, some steps later, did.
    assert continued(kept, 4, beat(5, "stopped", step=45.0))["lost"] == 5.0
    assert continued(kept, 4, None)["lost"] == 0.0


def test_the_line_at_the_end_is_in_order_of_size():
    seconds = dict.fromkeys(goodput.PHASES, 0.0) | {"step": 93.0, "save": 2.0, "data_wait": 5.0}
    assert goodput.in_words(seconds) == (
        "93 % (93 s step, 5 s data wait, 2 s save), data wait 5.1 %"
    )
