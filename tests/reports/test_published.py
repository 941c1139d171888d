"""Published numbers: beside what may stand beside them, and labelled."""

import pathlib

from fetalclip_jax.labels import PLANES
from fetalclip_jax.reports import published
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import (
    MODEL,
    PROTOCOL,
    REAL,
    ZERO_SHOT_LABELS,
    age_result,
    classification,
)

PAPER = PROTOCOL | {"name": "paper"}


def contents(*results):
    folder = pathlib.Path("nowhere")
    return Contents((), tuple(Evaluated(r, folder, "m / d") for r in results))


def planes(**fields):
    return classification("zero_shot.planes", PLANES, ZERO_SHOT_LABELS, **fields)


def test_published_numbers_stand_below_results_by_the_papers_protocol():
    ours, age = planes(data=REAL, protocol=PAPER), age_result(data=REAL, protocol=PAPER)
    head, here, fetalclip, mobile, *_, on = published.table(contents(ours, age))
    assert head == (
        "Model",
        "Zero-shot planes, macro F1",
        "Zero-shot age, valid prediction rate",
    )
    estimate = ours.metrics["macro_f1"]
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    shown = f"{value:.1f} % ({low:.1f} to {high:.1f}), clinic, 120 images of 20 patients"
    assert here[:2] == ("quickstart", shown)
    assert fetalclip == ("FetalCLIP, published", "97.27 %", "83.42 %")
    assert mobile == ("MobileFetalCLIP, published", "", "88.60 %")
    assert on == ("published on", "FETAL_PLANES_DB, 8,187 images", "HC18 training set, 999 images")


def test_no_published_numbers_beside_other_protocols_or_simulated_images():
    assert published.table(contents(planes(data=REAL))) == []
    assert published.table(contents(planes(protocol=PAPER))) == []
    assert published.beside(planes(data=REAL)) == ""
    assert published.beside(planes(protocol=PAPER)) == ""
    assert "FetalCLIP 0.973" in published.beside(planes(data=REAL, protocol=PAPER))


def test_several_views_are_said_beside_published_numbers_of_one():
    ten = planes(data=REAL, protocol=PAPER, model=MODEL | {"test_time_views": 10})
    assert "by one view of each image: FetalCLIP 0.973" in published.beside(ten)
    assert published.table(contents(ten))[1][1].endswith(
        "features averaged over 10 views of each image"
    )
    assert "view" not in published.beside(planes(data=REAL, protocol=PAPER))
