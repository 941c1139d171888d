"""The headline: every figure beside what it has to beat, and beside what is published."""

import dataclasses
import pathlib

import pytest

from fetalclip_jax.evaluation.result import Baseline, Estimate
from fetalclip_jax.labels import PLANES
from fetalclip_jax.reports import headline
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import (
    PROTOCOL,
    REAL,
    ZERO_SHOT_LABELS,
    age_result,
    all_results,
    classification,
    few_shot_result,
)
from tests.reports.pages import Page

FOLDER = pathlib.Path("nowhere")
PAPER = PROTOCOL | {"name": "paper"}


def contents(*results):
    return Contents((), tuple(Evaluated(r, FOLDER, f"m / {r.data['name']}") for r in results))


def rows(*results):
    return headline.rows(contents(*results))


def planes(**fields):
    return classification("zero_shot.planes", PLANES, ZERO_SHOT_LABELS, **fields)


def with_baselines(result, **values):
    baselines = {
        name: Baseline("macro_f1", Estimate(value), name) for name, value in values.items()
    }
    return dataclasses.replace(result, baselines=baselines)


def test_every_figure_stands_beside_its_baseline():
    results = all_results()
    page = Page(headline.headline_table(rows(*results), several=False))
    raw = results[4].metrics["macro_f1"].value
    age = page.row("Zero-shot age", "valid prediction rate")
    assert age[3] == "21.3 % best constant age for these images"
    assert page.row("Zero-shot age", "mean absolute error")[3].startswith("38.4 days")
    assert page.row("Linear probe, six planes")[3].startswith(f"{raw:.3f} linear probe on 16 x 16")
    assert page.row("Zero-shot planes")[3] == "0.111 chance"
    assert page.row("Few-shot planes, 2 patients")[3].startswith(f"{raw:.3f} raw pixels")
    assert page.row("Few-shot planes, 16 patients")[2] == "0.880"
    # The ends of the curve only, and the raw pixels as a baseline only.
    assert len(page.rows) == 1 + 7


def test_raw_pixels_of_other_data_are_no_baseline():
    results = all_results()
    probe, raw = results[3], dataclasses.replace(results[4], data=REAL)
    tasks = {row.task: row for row in rows(probe, raw)}
    assert tasks["Linear probe, six planes"].baseline_name == "chance"
    assert "Linear probe on 16 x 16 raw pixels" in tasks


def test_the_hardest_baseline_counts():
    (row,) = rows(with_baselines(planes(), chance=0.1, majority=0.15, coin=0.12))
    assert (row.baseline, row.baseline_name) == (0.15, "majority")
    easy = Baseline("mae_days", Estimate(99.0), "worse constant")
    age = age_result()
    (error,) = [
        row
        for row in rows(dataclasses.replace(age, baselines=age.baselines | {"easy": easy}))
        if row.metric.unit == "days"
    ]
    assert error.baseline == 38.4


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.6, 0.55, 0.65, "better"),
        (0.6, 0.45, 0.65, "within the interval"),
        (0.4, 0.3, 0.6, "not better"),
        (0.6, None, None, "better"),
    ],
)
def test_the_verdict_heeds_the_interval(value, low, high, verdict):
    result = planes(metrics={"macro_f1": Estimate(value, low, high)})
    (row,) = rows(with_baselines(result, chance=0.5))
    assert row.verdict[0] == verdict


def test_an_error_is_better_when_it_is_lower():
    for mae, verdict in ((20.0, "better"), (50.0, "not better")):
        metrics = {"mae_days": Estimate(mae)}
        (row,) = rows(age_result(metrics=metrics))
        assert row.verdict[0] == verdict


def test_a_figure_without_baseline_says_so():
    (row,) = rows(with_baselines(planes()))
    assert (row.baseline, row.verdict[0]) == (None, "no baseline")


def test_the_valid_prediction_rate_is_withheld_without_a_constant_age():
    whole = age_result()
    error_alone = {"mae_constant_days": whole.baselines["mae_constant_days"]}
    result = dataclasses.replace(whole, baselines=error_alone, data=REAL, protocol=PAPER)
    assert [row.metric.words for row in rows(result)] == ["mean absolute error"]
    assert "withheld" in headline.withheld(contents(result))[0]
    assert headline.published_table(contents(result)) == ""
    assert headline.withheld(contents(whole)) == []


def test_ages_from_sizes_are_not_called_true_ages():
    implied = REAL | {"ages_from": "head circumference"}
    words = {row.metric.words for row in rows(age_result(data=implied))}
    assert words == {
        "valid prediction rate",
        "mean distance to the age implied by the circumference",
    }


def test_several_models_gain_a_column():
    found = rows(planes(), planes(data=REAL))
    page = Page(headline.headline_table(found, several=True))
    assert page.rows[0][1] == "Model / data"
    assert [row[1] for row in page.rows[1:]] == ["m / phantom", "m / clinic"]
    assert len({len(row) for row in page.rows}) == 1


def test_published_numbers_stand_beside_results_by_the_papers_protocol():
    ours, age = planes(data=REAL, protocol=PAPER), age_result(data=REAL, protocol=PAPER)
    page = Page(headline.published_table(contents(ours, age)))
    assert page.rows[0] == [
        "Model",
        "Zero-shot planes, macro F1",
        "Zero-shot age, valid prediction rate",
    ]
    value = ours.metrics["macro_f1"].value
    assert page.row("quickstart")[1] == f"{100 * value:.1f} % clinic, 120 images"
    assert page.row("FetalCLIP published")[1:] == ["97.27 %", "83.42 %"]
    assert page.row("MobileFetalCLIP published")[1:] == ["", "88.60 %"]
    assert page.row("published on")[1:] == [
        "FETAL_PLANES_DB, 8,187 images",
        "HC18 training set, 999 images",
    ]


def test_no_published_numbers_beside_other_protocols_or_simulated_images():
    assert headline.published_table(contents(planes(data=REAL))) == ""
    assert headline.published_table(contents(planes(protocol=PAPER))) == ""


def test_a_curve_of_one_point_is_one_row():
    (point, *_) = few_shot_result().curve
    assert len(rows(few_shot_result(curve=[point]))) == 1
