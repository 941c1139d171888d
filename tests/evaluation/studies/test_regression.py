import dataclasses
import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import studies

QUICK = {"resamples": 50}


@pytest.fixture
def make_heads(make_store):
    """Features that hold the size of a head in pixels: its size in mm takes the pixel spacing."""

    def make(patients, prefix, seed=0, **columns):
        rng = np.random.default_rng([seed, patients])
        count = 3 * patients
        pixels, spacing = rng.uniform(100, 200, count), rng.uniform(0.4, 1.6, count)
        turn = np.linalg.qr(np.random.default_rng(9).normal(size=(5, 5)))[0]
        features = np.concatenate([pixels[:, None] / 50, rng.normal(size=(count, 4))], 1) @ turn
        return make_store(
            features,
            raw_pixels=rng.integers(0, 255, (count, 256)).astype(np.uint8),
            **{
                "plane": np.repeat("brain", count),
                "hc_mm": pixels * spacing,
                "ga_days": np.rint(pixels * spacing),
                "resized_spacing_mm": spacing,
                "patient_id": np.char.add(prefix, (np.arange(count) // 3).astype(str)),
                "example_id": np.char.add(f"{prefix}-", np.arange(count).astype(str)),
            }
            | columns,
        )

    return make


def run(fit, test, model, column="hc_mm", **options):
    study = studies.create(f"regression.{column}", **QUICK | options)
    return study.run({"fit": fit, "test": test}, model)


def test_a_size_in_mm_is_learnt_as_one_in_pixels_times_the_spacing(make_heads, model):
    fit, test = make_heads(40, "a"), make_heads(20, "b", 1)
    found = {kind: run(fit, test, model, spacing=kind) for kind in ("product", "input", "none")}
    mae = {kind: one.metrics["mae_mm"].value for kind, one in found.items()}
    assert mae["product"] < 0.5 < 2 * mae["product"] + 0.5 < mae["input"] < mae["none"]
    result = found["product"]
    assert next(iter(result.metrics)) == "mae_mm"
    assert set(result.metrics) == {
        "mae_mm", "bias_mm", "lower_limit_mm", "upper_limit_mm", "percent_error", "r2"
    }  # fmt: skip
    assert result.metrics["r2"].value > 0.99
    details = result.details
    assert "unit" not in details  # that is what is judged, where it is no image
    assert (details["count"], details["patients"], details["train_patients"]) == (60, 20, 40)
    median = np.median(fit.columns["hc_mm"])
    constant = result.baselines["median_mae"]
    assert constant.estimate.value == pytest.approx(np.abs(median - test.columns["hc_mm"]).mean())
    assert constant.estimate.low < constant.estimate.value < constant.estimate.high
    assert f"{median:.1f} mm" in constant.description
    assert {one.metric for one in result.baselines.values()} == {"mae_mm", "percent_error", "r2"}
    # Noise beside the spacing is no better than the spacing.
    assert result.baselines["raw_pixels_mae"].estimate.value > 10
    assert result.baselines["spacing_mae"].estimate.value > 10
    json.dumps(result.to_json(), allow_nan=False)


def test_judged_images_are_not_learnt_from(make_heads, model):
    fit, test = make_heads(20, "a"), make_heads(10, "b", 1)
    one = run(fit, test, model)
    moved = dataclasses.replace(test, columns=test.columns | {"hc_mm": test.columns["hc_mm"] + 50})
    other = run(fit, moved, model)
    np.testing.assert_array_equal(one.predictions.prediction, other.predictions.prediction)
    assert other.metrics["bias_mm"].value == pytest.approx(one.metrics["bias_mm"].value - 50)


def test_images_without_a_value_or_a_spacing_are_counted_out(make_heads, model):
    test = make_heads(10, "b", 1)
    test.columns["hc_mm"][:4] = np.nan
    test.columns["resized_spacing_mm"][3:6] = np.nan
    fit = make_heads(20, "a")
    result = run(fit, test, model)
    assert result.details["left_out"] == {"no hc_mm": 4, "no pixel spacing": 2}
    assert len(result.predictions.label) == 24
    # Where no image has a spacing, the features alone are left.
    test.columns["resized_spacing_mm"][:] = np.nan
    result = run(fit, test, model)
    assert result.details["spacing"] == "none"
    assert "no image has a pixel spacing" in result.details["notes"][0]
    assert result.details["left_out"]["no pixel spacing"] == 0
    assert "spacing_mae" not in result.baselines


def test_ages_are_of_brain_images_and_other_numbers_of_all(model, make_heads):
    for column, only in (("ga_days", {"plane": ("brain",)}), ("weight_g", {})):
        for need in studies.create(f"regression.{column}").needs:
            assert (need.columns, need.only) == ((column,), only)
    assert studies.create("regression.ga_days", plane="").needs[0].only == {}
    # Further columns of a data set are texts.
    weights = [
        make_heads(n, p, weight_g=np.tile(["310", "", "405.5"], n)) for n, p in ((9, "a"), (6, "b"))
    ]
    result = run(*weights, model, "weight_g")
    assert result.details["left_out"]["no weight_g"] == 6
    assert set(result.predictions.label.tolist()) == {310, 405.5}
    assert next(iter(result.metrics)) == "mae_g"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("machine", "Aloka", "column 'machine' holds texts, not numbers .*'Aloka'.* probe.machine"),
        ("weight_g", "", "none of 30 images has a known weight_g and a pixel spacing"),
        ("weight_g", "inf", "column 'weight_g' holds an infinite number"),
    ],
)
def test_a_column_without_numbers_is_refused(make_heads, model, column, values, message):
    stores = [
        make_heads(n, p, **{column: np.repeat(values, 3 * n)}) for n, p in ((10, "a"), (5, "b"))
    ]
    with pytest.raises(ValueError, match=message):
        run(*stores, model, column)


def test_refusals(make_heads, model):
    fit, test = make_heads(4, "a"), make_heads(4, "b")
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of patients"):
        run(fit, test, model, folds=5)
    with pytest.raises(ValueError, match="4 patients are in the images to learn from and in the"):
        run(fit, fit, model)
    with pytest.raises(ValueError, match="no column 'weight'; it has"):
        run(fit, test, model, "weight")
    for option, message in (
        ({"spacing": "log"}, "spacing='log' is not one of product, input, none"),
        ({"penalties": (0.0,)}, "must be positive"),
        ({"folds": 1}, "folds=1 must be at least 2"),
    ):
        with pytest.raises(ValueError, match=f"regression.hc_mm: .*{message}"):
            studies.create("regression.hc_mm", **option)


def test_one_image_has_errors_but_no_interval(make_heads, model):
    test = make_heads(1, "b").select(np.array([0]))
    result = run(make_heads(10, "a"), test, model)
    assert result.metrics["mae_mm"].low is None
    assert "r2" not in result.metrics
