import csv
import dataclasses
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fetalclip_jax.config import save_config
from fetalclip_jax.reports import sweep as page
from fetalclip_jax.reports import sweep_figures
from fetalclip_jax.sweeps import outcome
from fetalclip_jax.sweeps.folder import Folder, State
from fetalclip_jax.training import inputs
from tests.evaluation import saved
from tests.sweeps import experiments


def judged(folder, plan, point, wrong):
    """A finished point with so many wrong answers among 30."""
    labels = np.arange(30) % 3
    answers = np.where(np.arange(30) < wrong, (labels + 1) % 3, labels)
    result = saved.result(saved.answered(labels, answers), metrics=["macro_f1", "accuracy"])
    result.save(folder.results(point, plan))
    folder.write_state(point, State("done", "", 4, 2.5))


@pytest.fixture
def sweep(tmp_path):
    """2 batch sizes x 2 temperatures x 2 seeds: one failed, one was stopped, one not begun."""
    plan, folder = experiments.read(tmp_path), Folder(tmp_path / "work")
    for point, wrong in zip(plan.points[:5], (15, 16, 3, 4, 9), strict=True):
        judged(folder, plan, point, wrong)
    folder.write_state(plan.points[5], State("failed", "no such thing"))
    folder.write_state(plan.points[6], State("stopped", "worse than the median", 2, 1.0))
    (folder.points / "of_another_sweep").mkdir()
    return plan, folder, outcome.collect(plan, folder)


def test_points_that_differ_in_the_seed_alone_are_one_setting(sweep):
    _, _, found = sweep
    assert {one.name: len(one.values) for one in found.settings} == {
        "global_batch_size=8,temperature=0.05": 2,
        "global_batch_size=8,temperature=0.1": 2,
        "global_batch_size=16,temperature=0.05": 1,
    }
    best = found.settings[1]
    assert best.mean == pytest.approx(np.mean(best.values)) == pytest.approx(0.883, abs=1e-3)
    assert found.verdict.best == best.name


def test_what_is_missing_is_counted_and_said(sweep):
    _, _, found = sweep
    words = " ".join(found.notes)
    assert "1 of 8 points failed and are in no mean" in words
    assert "1 of 8 points were stopped early" in words
    assert "1 of 8 points have not begun" in words
    assert "1 of 4 settings have no finished point and are compared with none" in words
    assert "left out: of_another_sweep" in words
    assert "Two or three seeds say little" in words
    assert "validation patients, by whom the best of many is chosen" in words


def test_files_hold_a_row_for_every_point(sweep):
    _, folder, found = sweep
    outcome.write(found, folder)
    rows = list(csv.DictReader(io.StringIO(folder.table.read_text())))
    assert [row["status"] for row in rows] == [*["done"] * 5, "failed", "stopped", "waiting"]
    assert rows[2]["temperature"] == "0.1"
    assert float(rows[2]["zero_shot.planes/macro_f1"]) == found.settings[1].values[0]
    assert [row["seed"] for row in rows] == ["0", "1"] * 4
    assert rows[5]["message"] == "no such thing"
    assert rows[6]["zero_shot.planes/macro_f1"] == ""
    points = found.to_json()["points"]
    assert points[2]["scores"]["zero_shot.planes"]["macro_f1"]["value"] == pytest.approx(0.9)
    assert (points[2]["seconds"], points[2]["images_seen"]) == (2.5, 32)


def test_the_page_shows_what_is_there_and_what_is_not(sweep):
    _, folder, found = sweep
    page.write(found, folder)
    text = folder.page.read_text()
    assert "5 of 8 finished" in text
    assert "no such thing" in text
    assert "Best: global batch size 8, temperature 0.1, better than each of the 2 others" in text
    assert (folder.figures / "heat_map.png").stat().st_size > 5000
    (grid,) = page.grids(found).values()
    assert (grid.row_field, grid.rows) == ("global batch size", ["8", "16"])
    assert (grid.column_field, grid.columns) == ("temperature", ["0.05", "0.1"])
    assert [cell.count for row in grid.cells for cell in row] == [2, 2, 1, 0]
    assert [cell.missing for cell in grid.cells[1]] == ["1 failed", "1 stopped, 1 waiting"]


def test_the_page_is_called_after_its_file_whatever_the_argument(sweep):
    plan, folder, found = sweep
    plan = dataclasses.replace(plan, path="configs/finetune/real_patients.py:test,runs/base,5")
    page.write(dataclasses.replace(found, plan=plan), folder)
    assert "<title>FetalCLIP sweep: real_patients</title>" in folder.page.read_text()


def test_nothing_has_a_name_in_the_heat_map(tmp_path):
    body = """
    return sweeps.product(
        sweeps.values("init_from", ["", "runs/base"]),
        sweeps.values("data.mixture", [(), (("phantom", "", 0.5),)]),
    )
"""
    plan = experiments.read(tmp_path, body)
    (grid,) = page.grids(outcome.collect(plan, Folder(tmp_path / "work"))).values()
    assert grid.rows == ["none", "runs/base"]
    assert sorted(grid.columns) == ["none", "phantom, 0.5"]


def test_points_name_what_happened_only_where_something_did(sweep):
    plan, folder, found = sweep
    page.write(found, folder)
    assert "<th>What happened</th>" in re.sub(r" scope=\S+?(?=>)", "", folder.page.read_text())
    for point in plan.points[5:]:
        judged(folder, plan, point, 5)
    page.write(outcome.collect(plan, folder), folder)
    assert "What happened" not in folder.page.read_text()


def test_colours_stand_for_no_less_than_what_chance_makes():
    def grid(*means):
        cells = [sweep_figures.Cell(mean, None, 1) for mean in means]
        return {"": sweep_figures.Grid("", "a", [""], ["1"] * len(means), [[*cells, None]])}

    assert sweep_figures.colour_range(grid(0.5, 0.7), 0.1) == (0.5, 0.7)
    assert sweep_figures.colour_range(grid(0.5, 0.6), 0.3) == pytest.approx((0.4, 0.7))
    assert sweep_figures.colour_range(grid(None), 0.3) == (0.0, 1.0)


def test_the_figure_of_seeds_is_as_wide_as_a_telephone_whatever_names_are():
    score = ((0.5, 0.6), 0.55, 0.2, 0.9)
    short = Image.open(io.BytesIO(sweep_figures.seeds({"a": score, "b": score}, "F1")))
    long = {" ".join(["global batch size 32,"] * 9): score, "b": score}
    wordy = Image.open(io.BytesIO(sweep_figures.seeds(long, "F1")))
    assert short.width == wordy.width <= 600
    assert wordy.height > short.height


def test_fields_that_another_decides_are_no_axes(sweep):
    settings = [row.point.settings for row in sweep[2].rows]
    fields = ["train.global_batch_size", "train.steps", "temperature"]
    assert outcome.independent(settings, fields) == [fields[0], fields[2]]


def test_other_settings_are_refused_where_points_were_trained(sweep):
    plan, folder, _ = sweep
    folder.check(plan)
    own, other = folder.run(plan.points[3]), plan.points[3].config.copy_and_resolve_references()
    other.optimizer.learning_rate = 0.5
    save_config(other, own.config)
    folder.check(plan)  # nothing is trained with it yet
    (own.checkpoints / "4").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"another experiment \(optimizer.learning_rate: 0.5 there"
    ):
        folder.check(plan)
    folder.summary.write_text("mine")
    with pytest.raises(ValueError, match=r"sweep\.json is not of a sweep and would be overwritten"):
        folder.check(plan)
    save_config(other, folder.workdir / "config.json")
    with pytest.raises(ValueError, match="is the folder of one run"):
        folder.check(plan)


def test_points_that_read_the_same_share_its_records(tmp_path):
    body = '    return [{"seed": 0}, {"seed": 1}, {"data.phantom.pool_images": 48}]\n'
    plan, folder = experiments.read(tmp_path, body), Folder(tmp_path / "work")
    for point in plan.points:
        folder.prepare(point)
    first, second, other = (folder.run(point).records("train") for point in plan.points)
    assert first.resolve() == second.resolve() != other.resolve()
    assert (
        len(inputs.open_records(plan.points[2].config, folder.run(plan.points[2]).workdir, "pool"))
        == 48
    )
    shutil.move(folder.workdir, tmp_path / "moved")
    assert (
        Folder(tmp_path / "moved").run(plan.points[0]).records("train") / "records.json"
    ).exists()


def test_a_curve_over_pretraining_images_is_one_figure(tmp_path):
    body = """
    points = sweeps.product(
        sweeps.values("data.train_images", [12, 24]), sweeps.values("seed", range(2))
    )
    return sweeps.Sweep(points, studies=("few_shot.planes",), patients="test")
"""
    plan, folder = experiments.read(tmp_path, body), Folder(tmp_path / "work")
    for point in plan.points:
        labels = np.arange(30) % 3
        curve = [{"patients": k, "mean": 0.5 + k / 10 + point.index / 50} for k in (2, 4)]
        result = saved.result(
            saved.answered(labels, labels), "few_shot.planes", metrics=["macro_f1"], curve=curve
        )
        result.save(folder.results(point, plan))
        folder.write_state(point, State("done", "", 4, 2.5))
    found = outcome.collect(plan, folder)
    assert found.verdict is None  # of test patients nothing is chosen
    page.write(found, folder)
    assert (folder.figures / "few_shot_planes.png").stat().st_size > 5000
    assert "0.710 (2 seeds)" in folder.page.read_text()  # 12 images, 2 patients: 0.70 and 0.72
