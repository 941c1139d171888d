import itertools
import json

import jax.numpy as jnp
import pytest

from fetalclip_jax.training import hooks
from fetalclip_jax.training.checkpoint import Checkpointer
from fetalclip_jax.training.metrics import MetricsWriter
from fetalclip_jax.training.state import TrainState


def moment(step=4, last=False, loss=1.0, norm=1.0, ema=None):
    state = TrainState(step=step, params=2.0, ema=ema, opt_state=())
    metrics = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(norm)}
    return hooks.Moment(step, state, metrics, last)


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


class Recording(Checkpointer):
    def __init__(self):
        self.saved = []

    def save(self, state, **parts):
        self.saved.append((state, parts))


def test_saving_keeps_the_seconds_and_is_not_counted_as_training(clock):
    checkpointer, now = Recording(), moment(20)
    judged = {20: {"val_loss": 1.5}}
    hooks.Save(1, checkpointer, clock, 8, judged)(now)
    parts = {
        "data": {"step": 20, "examples": 160},
        "progress": {"seconds": 52.0},
        "metrics": {"val_loss": 1.5},
    }
    assert checkpointer.saved == [(now.state, parts)]
    assert clock.kept == 52.0
    assert clock.steps_per_second(23) == 3.0


def test_averaged_parameters_are_judged_beside_the_others(tmp_path):
    writer = MetricsWriter(tmp_path)
    batches = [{"x": jnp.float32(1.0)}, {"x": jnp.float32(3.0)}]
    evaluate = hooks.Evaluate(1, writer, lambda params, step, batch: params * batch["x"], batches)
    evaluate(moment(4))
    evaluate(moment(8, ema=5.0))
    assert evaluate.judged == {8: {"val_loss": 4.0, "ema_val_loss": 10.0}}
    writer.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 4, "val_loss": 4.0},
        {"step": 8, "val_loss": 4.0, "ema_val_loss": 10.0},
    ]
