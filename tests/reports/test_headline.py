"""The headline: every figure beside what it has to beat."""

import dataclasses
import pathlib

import pytest

from fetalclip_jax.evaluation.result import Baseline, Estimate
from fetalclip_jax.labels import PLANES
from fetalclip_jax.reports import headline, published
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
    labels = (f"{r.model['name']} / {r.data['name']}" for r in results)
    return Contents((), tuple(map(Evaluated, results, [FOLDER] * len(results), labels)))


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
    found = rows(*results)
    page = Page(headline.headline_table(found, several=False))
    raw = results[4].metrics["macro_f1"].value
    age = page.row("valid prediction rate")
    assert age[3] == "21.3 % best constant age for these images"
    assert page.row("mean absolute error")[3].startswith("38.4 days")
    assert page.row("macro F1, 2 patients")[3].startswith(f"{raw:.3f} raw pixels")
    assert page.row("macro F1, 16 patients")[1] == "0.880"
    assert [(row.of.result.study, row.baseline_name) for row in found if not row.point] == [
        ("zero_shot.planes", "chance"),
        ("zero_shot.brain", "chance"),
        ("age", "best constant age for these images"),
        ("age", "best constant age for these images"),
        ("probe.planes", "linear probe on 16 x 16 raw pixels"),
    ]
    # The ends of the curve only, and the raw pixels as a baseline only.
    assert len(found) == 7


def test_each_task_says_once_what_its_figures_stand_for():
    planes_, age = planes(), age_result(data=REAL)
    page = Page(headline.headline_table(rows(planes_, age), several=True))
    headings = [row[0] for row in page.rows if len(row) == 1]
    assert headings == [
        "Zero-shot planes n = 120 images of 20 patients, split 'test' of phantom (simulated), "
        "protocol default, 95 % interval: bootstrap over patients in 1,000 resamples.",
        "Zero-shot age n = 80 images of 14 patients, split 'test' of clinic, "
        "protocol default, 95 % interval: bootstrap over patients in 1,000 resamples.",
    ]


def test_figures_that_compare_stand_below_one_another():
    other = REAL | {"name": "other"}
    models = [{"name": name, "fingerprint": name} for name in "ab"]
    found = rows(*(age_result(data=d, model=m) for m in models for d in (REAL, other)))
    page = Page(headline.headline_table(found, several=True))
    shown = [tuple(row[:2]) for row in page.rows[1:] if len(row) > 1]
    rate, error = "valid prediction rate", "mean absolute error"
    order = [("a / clinic", rate), ("b / clinic", rate), ("a / other", rate), ("b / other", rate)]
    assert shown == order + [(label, error) for label, _ in order]


def test_raw_pixels_of_other_data_are_no_baseline():
    results = all_results()
    probe, raw = results[3], dataclasses.replace(results[4], data=REAL)
    studies = {row.of.result.study: row for row in rows(probe, raw)}
    assert studies["probe.planes"].baseline_name == "chance"
    assert "probe.raw_pixels" in studies


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
    assert published.table(contents(result)) == []
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
    assert page.rows[0][0] == "Model / data"
    assert [row[0] for row in page.rows[2:]] == ["quickstart / phantom", "quickstart / clinic"]
    assert len(page.rows[1]) == 1
    assert len({len(row) for row in page.rows if row is not page.rows[1]}) == 1


def test_a_curve_of_one_point_is_one_row():
    (point, *_) = few_shot_result().curve
    assert len(rows(few_shot_result(curve=[point]))) == 1
