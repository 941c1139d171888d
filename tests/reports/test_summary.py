"""results.json keeps its keys; results.csv holds the same figures."""

import csv
import io
import json

import pytest

from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.labels import BRAIN_PLANES
from fetalclip_jax.reports import summary
from fetalclip_jax.reports.reading import read
from tests.reports.conftest import REAL, age_result, all_results, classification, save, write_run


def test_the_promised_keys(evaluated):
    found = summary.summarise(read([evaluated]), total_seconds=650.5)
    results = {result.study: result for result in all_results()}
    planes, stored = found["zero_shot"]["planes"], results["zero_shot.planes"]
    estimate = stored.metrics["macro_f1"]
    assert planes["macro_f1"] == estimate.value
    assert planes["macro_f1_interval"] == [estimate.low, estimate.high]
    assert planes["chance_macro_f1"] == stored.baselines["chance_macro_f1"].estimate.value
    for key in ("per_class_f1", "confusion", "classes", "labels"):
        assert planes[key] == stored.details[key]
    assert (planes["count"], planes["patients"], planes["resample_by"]) == (120, 20, "patient")
    assert (planes["seconds"], planes["peak_rss_gib"]) == (2.0, 1.2)
    age = found["age"]
    assert age["constant_baseline"] == 0.213
    assert age["constant_baseline_interval"] == [0.15, 0.28]
    assert age["constant_baseline_days"] == 159
    assert age["mae_days"] == results["age"].metrics["mae_days"].value
    assert found["probe"].keys() == {"planes", "raw_pixels"}
    assert list(found["few_shot"]["planes"]) == ["2", "4", "8", "16"]
    assert found["few_shot"]["planes"]["2"].keys() == {"mean", "low", "high", "support_sets"}
    assert found["train"]["seconds"] == 412.7
    assert found["total"]["seconds"] == 650.5
    assert found["peak_rss_gib"] == 2.31
    json.dumps(found, allow_nan=False)


def test_a_metric_without_an_interval_says_null():
    result = classification("zero_shot.brain", BRAIN_PLANES)
    assert summary.flatten(result)["accuracy_interval"] is None


def test_points_of_a_curve_are_ordered_by_patients(tmp_path):
    result = all_results()[-1]
    backwards = type(result)(**{**vars(result), "curve": result.curve[::-1]})
    assert list(summary.flatten(backwards)) == ["2", "4", "8", "16"]


def test_everything_is_in_the_list_of_results(evaluated):
    listed = summary.summarise(read([evaluated]))["results"]
    assert [(r["study"], r["model"]["name"], r["data"]["name"]) for r in listed] == [
        (r.study, "quickstart", "phantom") for r in all_results()
    ]
    assert listed[0]["metrics"]["macro_f1"]["n"] == 120


def test_total_seconds_default_to_the_sum(evaluated):
    expected = 412.7 + 4 * 2.0 + 9.4 + 30.5
    found = summary.summarise(read([evaluated]))
    assert found["total"]["seconds"] == pytest.approx(expected)


def test_a_study_of_two_data_sets_has_no_one_answer(evaluated, tmp_path):
    save([age_result(data=REAL)], tmp_path / "more")
    found = summary.summarise(read([evaluated, tmp_path / "more"]))
    assert "age" not in found
    assert [r["data"]["name"] for r in found["results"] if r["study"] == "age"] == [
        "phantom",
        "clinic",
    ]
    assert "planes" in found["zero_shot"]


def test_training_alone(workdir):
    found = summary.summarise(read([workdir]))
    assert found.keys() == {"train", "results", "total", "peak_rss_gib"}
    assert found["results"] == []


def test_two_runs_are_listed_by_name(workdir, tmp_path):
    found = summary.summarise(read([workdir, write_run(tmp_path / "other")]))
    assert "train" not in found
    assert [run["name"] for run in found["runs"]] == ["quickstart", "quickstart"]
    assert found["total"]["seconds"] == pytest.approx(2 * 412.7)


def test_the_table_has_a_row_for_every_figure(evaluated):
    rows = list(csv.DictReader(io.StringIO(summary.table(read([evaluated])))))
    brain = [r for r in rows if r["study"] == "zero_shot.brain"]
    assert [(r["kind"], r["name"]) for r in brain] == [
        ("metric", "macro_f1"),
        ("metric", "accuracy"),
        ("baseline of macro_f1", "chance_macro_f1"),
        ("baseline of macro_f1", "majority_macro_f1"),
    ]
    estimate = classification("zero_shot.brain", BRAIN_PLANES, accuracy=0.7).metrics["macro_f1"]
    numbers = [brain[0][key] for key in ("value", "low", "high", "n")]
    assert Estimate(*map(float, numbers[:3]), n=int(numbers[3])) == Estimate(
        estimate.value, estimate.low, estimate.high, estimate.n
    )
    few = [r for r in rows if (r["study"], r["kind"]) == ("few_shot.planes", "metric")]
    assert [r["name"] for r in few] == ["macro_f1, 16 patients"]
    points = [r for r in rows if r["kind"] == "curve"]
    assert [r["name"] for r in points] == ["2 patients", "4 patients", "8 patients", "16 patients"]
