import itertools
import types

import pytest

from fetalclip_jax.training import hooks


def moment(step=4, last=False, loss=1.0, norm=1.0, ema=None):
    state = types.SimpleNamespace(params=2.0, ema=ema, step=step)
    return hooks.Moment(step, state, {"loss": loss, "gradient_norm": norm}, last)


class Recorder:
    def __init__(self, every, name, calls):
        self.every, self.name, self.calls = every, name, calls

    def __call__(self, moment):
        self.calls.append((moment.step, self.name))


def test_hooks_are_called_in_order_at_their_steps_and_at_the_last():
    calls = []
    actions = [Recorder(2, "log", calls), Recorder(4, "save", calls)]
    for step in range(1, 8):
        hooks.call(actions, moment(step, last=step == 7))
    assert calls == [(2, "log"), (4, "log"), (4, "save"), (6, "log"), (7, "log"), (7, "save")]


@pytest.mark.parametrize("numbers", [{"loss": float("nan")}, {"norm": float("inf")}])
def test_a_run_stops_where_its_numbers_are_not_finite(numbers):
    watch = hooks.Watch(every=1, learning_rate=0.5)
    watch(moment())
    with pytest.raises(ValueError, match=r"at step 4; lower config\.optimizer\.learning_rate=0\.5"):
        watch(moment(**numbers))


@pytest.fixture
def clock(monkeypatch):
    """A clock whose every look is a second after the one before; it started at 100."""
    ticks = itertools.count(101.0)
    monkeypatch.setattr(hooks.time, "time", lambda: next(ticks))
    return hooks.Clock(100.0, kept=50.0, step=10)


def test_speed_is_that_of_the_steps_since_the_last_mark(clock):
    assert clock.steps_per_second(14) == 4.0  # four steps in the one second since it was made
    clock.mark(14)
    clock.seconds()  # a second passes
    assert clock.steps_per_second(18) == 2.0


def test_saving_keeps_the_seconds_and_is_not_counted_as_training(clock):
    saved = []
    checkpointer = types.SimpleNamespace(save=lambda *arguments: saved.append(arguments))
    now = moment(20)
    hooks.Save(1, checkpointer, "iterator", clock)(now)
    assert saved == [(now.state, "iterator", {"seconds": 52.0})]
    assert clock.kept == 52.0
    assert clock.steps_per_second(23) == 3.0


def test_averaged_parameters_are_judged_beside_the_others():
    written = []
    writer = types.SimpleNamespace(write=lambda step, values: written.append((step, values)))
    evaluate = hooks.Evaluate(1, writer, lambda params, step, batch: params * batch, [1.0, 3.0])
    evaluate(moment())
    evaluate(moment(ema=5.0))
    assert written == [(4, {"val_loss": 4.0}), (4, {"val_loss": 4.0, "ema_val_loss": 10.0})]
