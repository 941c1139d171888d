"""Curves over the patients that the points of a sweep were trained on."""

import json

import numpy as np
import pytest

from fetalclip_jax.reports import sweep as page
from fetalclip_jax.sweeps import efficiency, outcome
from fetalclip_jax.sweeps import plan as plans
from fetalclip_jax.sweeps.folder import Folder, State
from tests.evaluation import saved
from tests.sweeps import experiments

BODY = """
    starts = sweeps.zipped(
        sweeps.values("init_from", ["runs/first", "", ""]),
        sweeps.values("data.mixture", [(), (), (("hc18", "", 0.25),)]),
        sweeps.values("train.steps", [2, 4, 4]),
    )
    points = sweeps.product(
        starts, sweeps.values("data.train_patients", [4, 8, 16]), sweeps.values("seed", range(3))
    )
    return sweeps.Sweep(points, patients="test")
"""
# Of 90 images, wrong by start and number of patients.
WRONG = {"first": (24, 14, 8), "": (60, 45, 24), "mixed": (50, 30, 20)}


@pytest.fixture
def many(monkeypatch):
    """A training split of so many patients that seeds share few."""
    monkeypatch.setattr(efficiency, "pool", lambda row: 1000)


@pytest.fixture
def sweep(tmp_path, many):
    """Every start at 4, 8 and 16 patients, three seeds."""
    plan, folder = experiments.read(tmp_path, BODY), Folder(tmp_path / "work")
    labels = np.arange(90) % 3
    # What makes an image hard is the same for all.
    hard = np.random.default_rng(0).permutation(90)
    for point in plan.points:
        kind = "mixed" if point.config.data.mixture else "first" * bool(point.config.init_from)
        place = (4, 8, 16).index(point.config.data.train_patients)
        wrong = hard < WRONG[kind][place] + 2 * point.config.seed
        found = saved.answered(labels, np.where(wrong, (labels + 1) % 3, labels))
        saved.result(found).save(folder.results(point, plan))
        folder.write_state(point, State("done", "", 4, 2.5))
    return plan, folder


def test_a_start_is_a_curve_whose_seeds_are_support_sets(sweep):
    found = efficiency.curves(outcome.collect(*sweep), "zero_shot.planes")
    assert list(found) == ["from first", "from nothing", "from nothing, with hc18 (25 %)"]
    curve = found["from first"].curve
    assert [point["patients"] for point in curve] == [4, 8, 16]
    assert [point["support_sets"] for point in curve] == [3, 3, 3]
    for point, wrong in zip(curve, WRONG["first"], strict=True):
        assert point["mean"] == pytest.approx(1 - (wrong + 2) / 90, abs=0.02)
        assert point["low"] < point["mean"] < point["high"]
        assert len(point["runs"]) == 3


def test_bands_are_wider_where_seeds_share_most_of_their_patients(sweep, monkeypatch):
    widths = []
    for patients, known in ((1000, 1000), (18, 18), (17, None), (8, None)):
        monkeypatch.setattr(efficiency, "pool", lambda row, patients=patients: patients)
        found = efficiency.curves(outcome.collect(*sweep), "zero_shot.planes")
        point = found["from first"].curve[-1]
        assert point["pool_patients"] == known
        widths.append(point["high"] - point["low"])
    assert widths[1] > 1.5 * widths[0]
    # Seeds that draw nearly all say nothing of others: what is left is the chance of training.
    assert widths[0] == pytest.approx(widths[2], rel=0.05)
    assert widths[2] == widths[3]


def test_the_pool_is_the_training_split(tmp_path):
    plan, folder = experiments.read(tmp_path, BODY), Folder(tmp_path / "work")
    row = outcome.collect(plan, folder).rows[0]
    phantom = row.point.config.data.phantom
    assert efficiency.pool(row) == phantom.train_images // phantom.images_per_patient


def test_only_numbers_that_both_starts_have_are_compared(sweep):
    plan, folder = sweep
    lacking = [p for p in plan.points if p.config.init_from and p.config.data.train_patients == 16]
    for point in lacking:
        folder.write_state(point, State("failed", "", 4, 2.5))
    found = efficiency.curves(outcome.collect(plan, folder), "zero_shot.planes")
    first, mixed = efficiency.compared(found)
    assert (first.sizes, mixed.sizes) == ((4, 8), (4, 8, 16))
    assert "reaches with 8: it saves" in efficiency.saved(first)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path, many):
    body = BODY.replace('["runs/first", "", ""]', '["runs/a/first", "runs/b/first", ""]')
    plan, folder = experiments.read(tmp_path, body), Folder(tmp_path / "work")
    labels = np.arange(90) % 3
    for point in plan.points:
        saved.result(saved.answered(labels, labels)).save(folder.results(point, plan))
        folder.write_state(point, State("done", "", 4, 2.5))
    found = efficiency.curves(outcome.collect(plan, folder), "zero_shot.planes")
    assert {"from runs/a/first", "from runs/b/first"} < found.keys()


def test_the_better_start_saves_patients_at_every_number(sweep):
    found = efficiency.curves(outcome.collect(*sweep), "zero_shot.planes")
    first, mixed = efficiency.compared(found)
    assert first.names == ("from first", "from nothing")
    assert [one.learned_from for one in first.differences] == [4, 8, 16]
    assert all(one.low > 0 and one.p < 0.05 for one in first.differences)
    # Both learned from the same patients, seed by seed.
    assert "the same for both" in first.differences[0].chance.words
    # With 4 patients it has what the other reaches with 16.
    sentence = efficiency.saved(first)
    assert sentence.startswith("Training from first takes at most 4")
    assert sentence.endswith("training from nothing reaches with 16: it saves at least 12")
    assert mixed.reaching[0].value.patients == pytest.approx(13.4, abs=1.5)


def test_the_page_shows_the_figure_and_the_numbers(sweep):
    plan, folder = sweep
    assert plan.points[9].name == "init_from=none,mixture=none,steps=4,train_patients=4,seed=0"
    page.write(outcome.collect(plan, folder), folder)
    assert (folder.figures / "efficiency_zero_shot_planes.png").stat().st_size > 5000
    text = folder.page.read_text()
    assert "it saves at least 12" in text
    assert "from first less from nothing" in text
    written = json.loads((folder.workdir / "efficiency_zero_shot_planes.json").read_text())
    assert written["curves"].keys() == {
        "from first",
        "from nothing",
        "from nothing, with hc18 (25 %)",
    }
    assert len(written["comparisons"]) == 2


def test_other_images_at_another_point_are_no_curve(sweep):
    plan, folder = sweep
    labels = np.arange(60) % 3
    saved.result(saved.answered(labels, labels)).save(folder.results(plan.points[0], plan))
    found = outcome.collect(plan, folder)
    with pytest.raises(ValueError, match="judged other images at one point than at another"):
        efficiency.curves(found, "zero_shot.planes")
    page.write(found, folder)
    assert "No figure of Zero-shot planes: from first: zero_shot.planes" in folder.page.read_text()


def test_all_patients_need_their_number(tmp_path):
    body = BODY.replace("[4, 8, 16]", "[4, 0]")
    plan, folder = experiments.read(tmp_path, body), Folder(tmp_path / "work")
    with pytest.raises(ValueError, match="train_patients is 0"):
        efficiency.curves(outcome.collect(plan, folder), "zero_shot.planes")


def test_sweeps_of_other_fields_have_no_such_curve(tmp_path):
    plan, folder = experiments.read(tmp_path), Folder(tmp_path / "work")
    assert efficiency.curves(outcome.collect(plan, folder), "zero_shot.planes") == {}


@pytest.mark.parametrize(
    ("argument", "patients", "most"),
    [("", "validation", 256), (":test,runs/other", "test", 420)],
)
def test_the_sweep_over_real_patients_has_three_starts(argument, patients, most):
    plan = plans.read(f"configs/finetune/real_patients.py{argument}")
    assert plan.judging.patients == patients
    fields = ["init_from", "data.mixture"]
    origin = "other" if argument else "quickstart"
    origins = {f"runs/{origin}": origin}
    starts = dict.fromkeys(efficiency.start(one.settings, fields, origins) for one in plan.points)
    names = [f"from {origin}", "from nothing", "from nothing, with phantom (50 %)"]
    assert list(starts) == names
    assert max(one.config.data.train_patients for one in plan.points) == most


def test_the_sweep_over_real_patients_judges_no_others():
    with pytest.raises(ValueError, match="'all' is not one of validation, test"):
        plans.read("configs/finetune/real_patients.py:all")
