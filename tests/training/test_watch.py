import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.training.hooks import Moment
from fetalclip_jax.training.state import TrainState
from fetalclip_jax.training.watch import SkippedExamples, Watch

STATE = TrainState(step=None, params=None, ema=None, opt_state=None)
IDS = np.array([f"image-{number}" for number in range(100)])


@pytest.fixture
def said():
    return []


@pytest.fixture
def watch(tmp_path, said):
    examples = SkippedExamples(tmp_path / "skipped", 0, 0, lambda: IDS)
    return Watch((4, 10), 3, 0.5, examples, lambda: 8, said.append)


def moment(step, loss=1.0, last=False):
    fine = bool(np.isfinite(loss))
    metrics = {
        "loss": jnp.float32(loss),
        "gradient_norm": jnp.float32(loss),
        "skipped": jnp.float32(not fine),
    }
    return Moment(step, STATE, metrics, last, np.array([2 * step, 2 * step + 1], np.int32))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_skipped_steps_are_said_and_listed_when_it_looks(watch, said, tmp_path):
    for step, loss in enumerate([1.0, float("nan"), float("nan"), 1.0, float("inf")], start=1):
        watch(moment(step, loss))
        assert bool(said) == (step >= 4)
    assert len(said) == 1
    path = tmp_path / "skipped" / "0.csv"
    assert said[0] == (
        "skipped steps 2 to 3: loss nan, gradient norm nan; of its examples image-4, image-5, "
        f"image-6, ... (all: {path}); 2 skipped so far"
    )
    assert watch.counts() == {"skipped_steps": 2, "loss_spikes": 0}
    watch(moment(6, last=True))
    assert watch.counts()["skipped_steps"] == 3
    assert rows(path) == [
        ["step", "example_id"],
        *(["2", "image-4"], ["2", "image-5"], ["3", "image-6"], ["3", "image-7"]),
        *(["5", "image-10"], ["5", "image-11"]),
    ]


def test_too_many_in_a_row_stop_the_run_across_looks(watch, said, tmp_path):
    losses = {4: float("nan"), 5: float("inf"), 6: float("nan"), 8: float("nan")}
    for step in range(1, 8):
        watch(moment(step, losses.get(step, 1.0)))
    with pytest.raises(ValueError, match="3 steps in a row") as error:
        watch(moment(8, losses[8]))  # that it went on in between is no excuse
    message = str(error.value)
    assert "(steps 4 to 6; config.train.max_skipped_steps=3)" in message
    assert "the last good checkpoint is of step 8" in message
    assert "image-10, image-11, image-12, ..." in message
    assert "--config.optimizer.learning_rate=0.25" in message
    assert "\n" not in message
    assert len(rows(tmp_path / "skipped" / "0.csv")) == 9
    assert len(said) == 1  # step 4, at the first look


def test_those_that_are_not_in_a_row_only_count(watch):
    for step in range(1, 41):
        watch(moment(step, 1.0 if step % 3 == 0 else float("nan")))
    assert watch.skipped == 27


def test_spikes_are_said_with_what_is_usual(watch, said):
    for step in range(1, 61):
        watch(moment(step, 50.0 if step == 45 else 2.0 + 0.01 * (step % 5)))
    assert said == ["loss spike at step 45: 50.000, before it 2.020 +- 0.015"]
    assert watch.counts() == {"skipped_steps": 0, "loss_spikes": 1}


def test_rows_of_steps_that_were_lost_are_dropped(tmp_path):
    first = SkippedExamples(tmp_path, 3, 0, lambda: IDS)
    first.add({4: np.array([1, 2]), 9: np.array([3])})
    again = SkippedExamples(tmp_path, 3, 8, lambda: IDS)
    assert again.path == tmp_path / "3.csv"
    assert again.add({9: np.array([3])}) == ["image-3"]
    assert rows(again.path) == [
        *(["step", "example_id"], ["4", "image-1"], ["4", "image-2"], ["9", "image-3"]),
    ]


def test_ids_are_read_only_when_a_step_was_skipped(tmp_path):
    def ids():
        raise AssertionError("read for nothing")

    watch = Watch((1,), 3, 0.5, SkippedExamples(tmp_path, 0, 0, ids), lambda: None, print)
    watch(moment(1))
    assert not list(tmp_path.iterdir())


def test_looking_asks_for_transfers_explicitly(watch):
    moments = [moment(step) for step in range(1, 5)]
    with jax.transfer_guard("disallow"):
        for one in moments:
            watch(one)
    assert json.dumps(watch.counts())
