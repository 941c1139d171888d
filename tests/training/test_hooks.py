import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.models import presets
from fetalclip_jax.training import hooks
from fetalclip_jax.training.checkpoint import Checkpointer
from fetalclip_jax.training.goodput import Clock
from fetalclip_jax.training.metrics import MetricsWriter
from fetalclip_jax.training.progress import Progress
from fetalclip_jax.training.state import TrainState
from fetalclip_jax.training.telemetry import Meter


def moment(step=4, last=False, ema=None, params=2.0, **metrics):
    state = TrainState(step=step, params=params, ema=ema, opt_state=())
    numbers = {"loss": 1.0, "gradient_norm": 1.0, "skipped": 0.0} | metrics
    numbers = {name: jnp.float32(value) for name, value in numbers.items()}
    return hooks.Moment(step, state, numbers, last, np.arange(8, dtype=np.int32))


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


def test_the_state_can_be_saved_whoever_has_the_turn(save):
    calls = []
    now = moment(22, params={"a": jnp.ones(3)})
    hooks.call([Recorder(4, "log", calls), save], now)
    assert save.checkpointer.saved == []
    hooks.call([Recorder(4, "log", calls), save], now, saving=True)
    assert [state for state, _ in save.checkpointer.saved] == [now.state]
    assert calls == []


@pytest.fixture
def writer(tmp_path):
    writer = MetricsWriter(tmp_path)
    yield writer
    writer.close()


@pytest.fixture
def lines(tmp_path):
    return lambda: [
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture
def clock():
    """Of a run that trained for 10 s, a quarter of them without data, and compiled for 7."""
    clock = Clock(time.time())
    clock.since_mark = lambda: {"step": 7.5, "data_wait": 2.5, "compile": 7.0}
    clock.by_phase = lambda: (
        {"step": 17.5, "data_wait": 2.5, "compile": 7.0, "evaluate": 0.0}
        | {
            "save": 4.0,
            "start": 1.0,
            "lost": 9.0,
        }
    )
    return clock


@pytest.fixture
def log(writer, clock):
    return hooks.Log(
        4,
        writer,
        Progress(0, 12),
        clock,
        Meter(presets.get("FetalCLIP"), "float32"),
        lambda step: 0.5 * jnp.float32(step),
        12,
        lambda: {"skipped_steps": 3, "loss_spikes": 1},
    )


def test_a_line_of_metrics_has_speed_without_what_was_no_training(log, lines, capsys):
    log.meter.count(80, 40)
    log(moment(4, logit_scale=14.0))
    (line,) = lines()
    assert line["step"] == 4
    assert line["images_per_second"] == 8.0
    assert line["data_wait_share"] == 0.25
    assert line["learning_rate"] == 1.5  # that of the step itself, the fourth
    assert line["seconds"] == 32.0  # all but what was lost
    assert line["compile_seconds"] == 7.0
    assert (line["skipped_steps"], line["loss_spikes"]) == (3, 1)
    assert (line["loss"], line["gradient_norm"], line["logit_scale"]) == (1.0, 1.0, 14.0)
    assert line["step_flops"] > 1e12
    assert not line.keys() & {"skipped", "mfu"}
    # 24 s for four steps, saving included, and eight are to come.
    assert capsys.readouterr().out == (
        "step 4/12  loss 1.000  8 pairs/s  data wait 25.0 %  eta 0:48\n"
    )


def test_a_loss_that_is_not_finite_is_not_logged(log, lines, capsys):
    log.meter.count(80, 40)
    log(moment(4, loss=np.nan))
    assert "loss" not in lines()[0]
    assert capsys.readouterr().out.startswith("step 4/12  8 pairs/s")


class Recording(Checkpointer):
    def __init__(self):
        self.saved = []

    def latest_step(self):
        return 8

    def save(self, state, **parts):
        self.saved.append((state, parts))


@pytest.fixture
def save(clock):
    judged = {20: {"val_loss": 1.5}}
    return hooks.Save(4, Recording(), clock, lambda: {"skipped_steps": 3}, 8, judged, lambda: None)


def test_a_checkpoint_holds_what_the_run_took_until_then(save, clock):
    now = moment(20, params={"a": jnp.ones(3)})
    save(now)
    ((state, parts),) = save.checkpointer.saved
    assert state == now.state
    assert parts["data"] == {"step": 20, "examples": 160}
    assert parts["metrics"] == {"val_loss": 1.5}
    progress = parts["progress"]
    assert progress["seconds"] == clock.kept == 32.0
    assert progress["seconds_by_phase"] == clock.by_phase()
    assert progress["skipped_steps"] == 3


def test_a_state_that_is_not_finite_is_never_saved(save):
    broken = moment(20, params={"a": jnp.array([1.0, jnp.nan])})
    with pytest.raises(ValueError, match=r"after step 20 .* last good checkpoint is of step 8"):
        save(broken)
    broken = moment(20, params={"a": jnp.ones(2)}, ema={"a": jnp.array([1.0, jnp.inf])})
    with pytest.raises(ValueError, match="not finite"):
        save(broken)
    assert save.checkpointer.saved == []


def evaluate(writer):
    batches = [{"x": jnp.float32(1.0)}, {"x": jnp.float32(3.0)}]
    eval_step = jax.jit(lambda params, step, batch: params * batch["x"])
    return hooks.Evaluate(1, writer, eval_step, batches, Clock(time.time()), print)


def test_a_validation_loss_that_is_not_finite_is_said(writer, lines, capsys):
    evaluate(writer)(moment(4, params=jnp.float32(np.inf), ema=1.0))
    assert capsys.readouterr().out == "val_loss is inf at step 4\n"
    assert lines() == [{"step": 4, "ema_val_loss": 2.0}]


def test_averaged_parameters_are_judged_beside_the_others(writer, lines):
    hook = evaluate(writer)
    hook(moment(4))
    hook(moment(8, ema=5.0))
    assert hook.judged == {8: {"val_loss": 4.0, "ema_val_loss": 10.0}}
    assert lines() == [
        {"step": 4, "val_loss": 4.0},
        {"step": 8, "val_loss": 4.0, "ema_val_loss": 10.0},
    ]


def test_studies_judge_the_averaged_parameters_and_count_as_evaluation(writer, lines):
    clock = Clock(time.time())
    clock.enter("step")

    def measure(params):
        assert clock.phase == "evaluate"
        return {"study/zero_shot.planes/macro_f1": params / 10, "study/age/mae_days": np.nan}

    judge = hooks.Judge(1, writer, measure, clock)
    judge(moment(4))
    judge(moment(8, ema=5.0))
    assert clock.phase == "step"
    assert lines() == [
        {"step": 4, "study/zero_shot.planes/macro_f1": 0.2},
        {"step": 8, "study/zero_shot.planes/macro_f1": 0.5},
    ]


class OnDevice:
    """A number of which a copy must be asked for: on CPUs JAX lets such reads pass."""

    def __init__(self, value):
        self._value = value

    def copy_to_host_async(self):
        pass

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._value, np.float32)

    def _implicit(self):
        raise AssertionError("read without jax.device_get")

    __float__ = __int__ = __bool__ = __index__ = _implicit


@pytest.mark.parametrize("name", ["log", "evaluate", "save"])
def test_what_hooks_transfer_they_ask_for(name, log, save, writer, unchecked):
    params = jax.device_put(np.float32(2.0))
    state = TrainState(step=jax.device_put(np.int32(4)), params=params, ema=params, opt_state=())
    numbers = {key: OnDevice(1.0) for key in ("loss", "gradient_norm", "skipped")}
    now = hooks.Moment(4, state, numbers, False, np.arange(8, dtype=np.int32))
    log.meter.count(80, 40)
    hook = {"log": log, "evaluate": evaluate(writer), "save": save}[name]
    with jax.transfer_guard("disallow"):
        hook(now)


def test_a_hook_that_transfers_without_asking_fails():
    def double(moment):
        return moment.metrics["loss"] * 2

    with (
        jax.transfer_guard("disallow"),
        pytest.raises(Exception, match="Disallowed host-to-device transfer"),
    ):
        double(moment())


def test_one_number_is_enough_to_be_not_finite():
    tree = {"a": jnp.ones((3, 3)), "step": jnp.int32(4), "b": (jnp.zeros(2), jnp.float32(1))}
    assert hooks.all_finite(tree)
    assert not hooks.all_finite(tree | {"a": jnp.ones((3, 3)).at[1, 2].set(jnp.inf)})
