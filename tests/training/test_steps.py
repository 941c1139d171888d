"""The loop around the step, with a step and batches that are made up."""

import contextlib
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.run import Run
from fetalclip_jax.training import feeding, goodput, hooks, instruments, loop, preemption
from fetalclip_jax.training.state import TrainState
from tests.tiny import tiny_experiment


class Records:
    def metadata(self):
        return {"example_id": np.array([f"image-{number}" for number in range(1000)])}


def batches():
    number = 0
    while True:
        rows = np.arange(8 * number, 8 * number + 8, dtype=np.int32)
        yield {"tokens": np.zeros((8, 4), np.int32), "record": rows}
        number += 1


def train_step(broken):
    """Counts; the loss of the `broken` steps is not finite."""

    @jax.jit
    def step(current, batch, broken):
        number = current.step + 1
        skipped = (number == broken).any()
        loss = jnp.where(skipped, jnp.nan, 1.0 + batch["record"][0] * 0.0)
        numbers = {"loss": loss, "gradient_norm": loss, "skipped": skipped.astype(jnp.float32)}
        params = jnp.where(skipped, current.params, current.params + 1.0)
        return TrainState(number, params, None, ()), numbers

    return lambda current, batch: step(current, batch, broken)


@pytest.fixture
def go(tmp_path):
    """Runs the loop; its final state and what it logged."""

    def go(first=0, broken=(), actions=lambda view: [], **settings):
        config = tiny_experiment()
        config.train.update({"max_skipped_steps": 3} | settings)
        run = Run(tmp_path)
        clock = goodput.Clock(time.time())
        current = TrainState(jnp.int32(first), jnp.float32(first), None, ())
        mesh = make_mesh()
        current = jax.device_put(current, sharding.replicated(mesh))
        with contextlib.ExitStack() as stack:
            view = instruments.open_all(stack, config, run, clock, first)
            watch = view.watch(lambda: 4, Records(), {"skipped_steps": 1, "loss_spikes": 2})
            given = [watch, view.log(watch.counts), *actions(view)]
            step = train_step(jax.device_put(np.array([-1, *broken]), sharding.replicated(mesh)))
            placed = feeding.placed(batches(), mesh)
            current = loop._steps(current, step, placed, view, given, preemption.Notice())
            summary = view.summary(watch.counts())
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        return current, lines, summary

    return go


def test_it_goes_to_the_last_step_and_says_what_it_counted(go, capsys):
    current, lines, summary = go(first=2)
    assert (int(current.step), float(current.params)) == (12, 12.0)
    assert [line["step"] for line in lines] == [4, 6, 8, 10, 12]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert (summary["skipped_steps"], summary["loss_spikes"]) == (1, 2)
    assert set(summary["goodput"]["seconds"]) == set(goodput.PHASES)
    assert summary["goodput"]["seconds"]["data_wait"] > 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed] == [f"step {n}/12" for n in (4, 6, 8, 10, 12)]


def test_steps_that_are_not_finite_are_counted_and_their_examples_kept(go, tmp_path, capsys):
    current, lines, _ = go(broken=(5, 6))
    assert float(current.params) == 10.0
    assert [line["skipped_steps"] for line in lines] == [1, 1, 3, 3, 3, 3]
    assert "loss" not in lines[2]
    rows = (tmp_path / "skipped" / "0.csv").read_text().splitlines()
    assert rows == ["step,example_id"] + [
        f"{step},image-{8 * (step - 1) + row}" for step in (5, 6) for row in range(8)
    ]
    assert "skipped steps 5 to 6: loss nan" in capsys.readouterr().out


def test_a_run_stops_that_learns_nothing_any_more(go, tmp_path):
    message = r"3 steps in a row .*\(steps 5 to 7; .*last good checkpoint is of step 4"
    with pytest.raises(ValueError, match=message):
        go(broken=(5, 6, 7))
    beat = json.loads((tmp_path / "heartbeats" / "0.json").read_text())
    assert (beat["phase"], beat["step"]) == ("stopped", 8)  # it looks at every second step


class Careless:
    """A hook that computes with a number of the devices and one of the host."""

    every = 3

    def __call__(self, moment):
        self.doubled = moment.metrics["loss"] * 2


def test_a_hook_that_transfers_without_asking_ends_the_run(go):
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        go(actions=lambda view: [Careless()])


def test_hooks_see_the_records_of_their_step(go):
    seen = []

    class Reader:
        every = 1

        def __call__(self, moment: hooks.Moment):
            seen.append((moment.step, int(moment.records[0]), moment.last))

    go(first=9, actions=lambda view: [Reader()])
    assert seen == [(10, 0, False), (11, 8, False), (12, 16, True)]
