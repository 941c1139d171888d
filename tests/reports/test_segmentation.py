"""The section of segmentation."""

import numpy as np
import pytest

from fetalclip_jax.evaluation import outlines
from fetalclip_jax.evaluation.curves import curve, unit_of
from fetalclip_jax.evaluation.outlines import Outlines
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.reports import curves, headline, naming, segmentation
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import DATA, MODEL, PROTOCOL
from tests.reports.pages import Page

IMAGES = 20


def drawn(structures, runs=2, seed=0):
    rng, shape = np.random.default_rng(seed), (runs, IMAGES, len(structures))
    true = rng.integers(50, 90, shape[1:])
    both = true * rng.uniform(0.7, 0.9, shape)
    head = {}
    if "head" in structures:
        true_hc_mm = rng.uniform(100, 300, IMAGES)
        hc_mm = true_hc_mm + rng.normal(2, 5, (runs, IMAGES))
        hc_mm[:, 3] = np.nan
        head = {"hc_mm": hc_mm, "true_hc_mm": true_hc_mm}
    away = rng.uniform(1, 4, shape)
    return Outlines(tuple(structures), true, both, both + 3, away, **head)


def result(study="segmentation.head", structures=("head",), sizes=(), **details):
    by_size = {str(size): drawn(structures, seed=size) for size in sizes}
    by_size = by_size or {"": drawn(structures)}
    last = list(by_size.values())[-1]
    ids = np.array([f"i{k}" for k in range(IMAGES)])
    bootstrap = Bootstrap(ids, 40)
    estimates = bootstrap.estimates(last.measures())
    points = [
        {
            "patients": int(size), "mean": float(one.run_dice().mean()), "low": 0.1, "high": 0.9,
            "runs": one.run_dice().tolist(), "support_sets": 2, "pool_patients": 50,
        }
        for size, one in by_size.items() if size
    ]  # fmt: skip
    return Result(
        study, estimates, model=MODEL, data=DATA, protocol=PROTOCOL, curve=points,
        details={"structures": list(structures), "pixels": 96, "sizes_count": "images"} | details,
        predictions=Predictions(
            ids, ids, ids, ids, candidates=last.structures, extra=last.columns(),
            runs={size: one.kept() for size, one in by_size.items()},
        ),
        pictures=[Picture("outlines", np.zeros((9, 9, 3), np.uint8), "Dotted: true.", "outlines")],
    )  # fmt: skip


def page_of(tmp_path, *results):
    ones = []
    for k, one in enumerate(results):
        one.save(tmp_path / str(k))
        ones.append(Evaluated(one, tmp_path / str(k), f"m{k} / d"))
    report = Report(Contents((), tuple(ones)), tmp_path / "figures")
    return Page("".join(segmentation.parts(report))), report


def test_heads_have_a_table_outlines_and_their_agreement(tmp_path):
    one = result(notes=["13 of the 161 test images are learned from too"])
    page, _ = page_of(tmp_path, one)
    assert len(page.sources) == 2
    value = one.metrics["dice"].value
    assert f"{value:.3f} (" in page.text
    assert f"{one.metrics['hausdorff95_mm'].value:.2f} (" in page.text
    assert "13 of the 161 test images are learned from too." in page.text
    assert "96 x 96 pixels" in page.text
    assert "19 of 20 heads" in page.text  # of one no ellipse was plausible
    bias = one.metrics["hc_bias_mm"].value
    assert f"mean error of the circumference {bias:.2f} (" in page.text


def test_every_structure_has_a_row(tmp_path):
    names = ("abdomen", "stomach", "left_ventricle")
    page, _ = page_of(tmp_path, result("segmentation.abdomen", names))
    for words in ("mean of all", "abdomen", "stomach", "left ventricle"):
        assert words in page.text
    assert "circumference" not in page.text


def test_a_result_without_predictions_has_its_table(tmp_path):
    found = result()
    bare = Result(found.study, found.metrics, model=MODEL, data=DATA, protocol=PROTOCOL)
    page, _ = page_of(tmp_path, bare)
    assert page.sources == []
    assert "Pooled Dice" in page.text


def test_a_curve_of_dice_counts_images(tmp_path):
    one = result("few_shot_segmentation.head", sizes=(1, 4))
    page, report = page_of(tmp_path, one)
    assert "head after 4 images" in page.text
    assert unit_of(one) == "images"
    found = curve(one)
    assert (found.metric, found.unit, found.sizes) == ("dice", "images", (1, 4))
    assert found.area.low < found.area.value < found.area.high
    drawn = curves.of(report.contents, None)
    told = Page("".join(curves.parts(report, drawn)))
    assert "Areas and images needed: segmentation of heads" in told.text
    assert "Images for 0.9" in told.text
    (kept,) = drawn.to_json()["curves"]
    assert kept["images"] == [1, 4]
    assert kept["dice"] == pytest.approx([point["mean"] for point in one.curve])
    rows = headline.rows(report.contents)
    assert [row.what for row in rows] == ["pooled Dice, 1 image", "pooled Dice, 4 images"]


def test_metrics_and_studies_are_named():
    assert naming.metric("dice_left_atrium").words == "pooled Dice, left atrium"
    distance = naming.metric("hausdorff95_mm_stomach")
    assert (distance.words, distance.unit) == ("Hausdorff distance (95 %), stomach", "mm")
    assert distance.lower_is_better
    assert not naming.metric("image_dice").lower_is_better
    error = naming.metric("hc_mae_mm")
    assert error.words == "mean absolute error of the circumference"
    assert (error.unit, error.lower_is_better) == ("mm", True)
    assert naming.title("segmentation.femur") == "Segmentation: femur"
    assert outlines.of_result(result().predictions)
