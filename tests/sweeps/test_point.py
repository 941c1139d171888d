"""How far a point came, with training and judging replaced."""

import dataclasses
import json
import types

import pytest

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.sweeps import outcome
from fetalclip_jax.sweeps import point as points
from fetalclip_jax.sweeps.folder import Folder, State
from fetalclip_jax.training import loop, preemption
from tests.evaluation import saved
from tests.sweeps import experiments


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A point of four steps, its folder, and what `train` was called with."""
    plan = experiments.one(tmp_path, '[{"seed": 0}]')
    folder, calls = Folder(tmp_path / "work"), []

    def train(config, workdir, **options):
        calls.append(config)
        if options["notice"].reached(1):
            return types.SimpleNamespace(step=2)
        if config.train.studies:  # judged at the first quarter
            measured = options["judge"](config, workdir, None)(None)
            assert measured == {"study/zero_shot.planes/macro_f1": 0.1}
            if options["notice"].reached(2):
                return types.SimpleNamespace(step=2)
        summary = folder.run(plan.points[0]).results / "train.json"
        summary.parent.mkdir(parents=True)
        summary.write_text(json.dumps({"seconds": 100.0}))
        return types.SimpleNamespace(step=4)

    def judge(plan, point, folder):
        saved.result(saved.answered([0, 1, 2], [0, 1, 2])).save(folder.results(point, plan))

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(Folder, "prepare", lambda *_: None)
    monkeypatch.setattr(points, "_judge", judge)
    monkeypatch.setattr(
        points.validation,
        "judge",
        lambda *_: lambda _: {"study/zero_shot.planes/macro_f1": 0.1},
    )
    return plan, plan.points[0], folder, calls


def test_a_finished_point_is_done_and_not_trained_again(sweep):
    plan, point, folder, calls = sweep
    state = points.run(plan, point, folder, notice=preemption.Notice())
    assert (state.status, state.step) == ("done", 4)
    assert 100 <= state.seconds < 130
    assert points.run(plan, point, folder, notice=preemption.Notice()) == state
    assert len(calls) == 1
    assert calls[0].train.studies == ()


def test_a_point_is_judged_again_when_the_options_of_its_studies_change(sweep):
    plan, point, folder, _ = sweep
    points.run(plan, point, folder, notice=preemption.Notice())
    options = {"zero_shot.planes": {"top_k": (2,)}}
    other = dataclasses.replace(plan, judging=dataclasses.replace(plan.judging, options=options))
    before = folder.state(point, other)
    assert (before.status, before.message[:29]) == ("interrupted", "it was judged with other opti")
    assert not outcome.collect(other, folder).settings
    (folder.run(point).results / "train.json").unlink()  # the replaced training makes it anew
    folder.run(point).results.rmdir()
    assert points.run(other, point, folder, notice=preemption.Notice()).status == "done"
    assert folder.state(point, other).status == "done"
    assert folder.state(point, plan).status == "interrupted"


def test_a_point_is_judged_again_on_other_data(sweep):
    plan, point, folder, _ = sweep
    points.run(plan, point, folder, notice=preemption.Notice())
    judging = dataclasses.replace(plan.judging, judged_on=DataSet("hc18", "folder"))
    other = dataclasses.replace(plan, judging=judging)
    assert folder.state(point, other).message.endswith("on other data")
    with pytest.raises(ValueError, match="leave --stop-early out"):
        points.run(other, point, folder, notice=preemption.Notice(), stop_early=True)


def test_a_point_that_was_told_to_end_is_interrupted(sweep):
    plan, point, folder, _ = sweep
    notice = preemption.Notice()
    notice.ask()
    assert points.run(plan, point, folder, notice=notice).status == "interrupted"
    assert folder.state(point, plan).step == 2


def test_a_hopeless_point_is_stopped_and_stays_so_until_it_is_asked_for(sweep, monkeypatch):
    plan, point, folder, calls = sweep
    verdict = "worse than the median"
    monkeypatch.setattr(points.stopping.MedianRule, "verdict", lambda *_: verdict)
    options = {"notice": preemption.Notice(), "stop_early": True}
    state = points.run(plan, point, folder, **options)
    assert (state.status, state.message, state.step) == ("stopped", verdict, 2)
    assert (calls[0].train.studies, calls[0].train.study_every) == (("zero_shot.planes",), 1)
    assert points.run(plan, point, folder, **options) == state
    assert points.run(plan, point, folder, notice=preemption.Notice()).status == "done"


def test_an_error_is_kept_with_the_point(sweep, monkeypatch):
    plan, point, folder, _ = sweep

    def fail(*_, **__):
        raise ValueError("no such folder")

    monkeypatch.setattr(loop, "train", fail)
    with pytest.raises(ValueError, match="no such folder"):
        points.run(plan, point, folder, notice=preemption.Notice())
    assert folder.state(point, plan).message == "no such folder"
    assert folder.state(point, plan).status == "failed"


def test_a_point_that_another_process_trains_stays_as_it_is(sweep, monkeypatch):
    plan, point, folder, _ = sweep
    folder.write_state(point, State("running"))

    def taken(*_, **__):
        raise ValueError("is in use by process 7")

    monkeypatch.setattr(runs.Run, "claim", taken)
    with pytest.raises(ValueError, match="in use by process 7"):
        points.run(plan, point, folder, notice=preemption.Notice())
    assert folder.state(point, plan).status == "running"
