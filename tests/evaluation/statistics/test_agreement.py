import numpy as np
import pytest
from sklearn import metrics

from fetalclip_jax.evaluation.statistics import agreement


def test_metrics_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    true = rng.uniform(100, 300, 40)
    found = true + rng.normal(3, 8, 40)
    values = {name: one.value for name, one in agreement.measures(true, found).items()}
    error = found - true
    assert values == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(true, found),
            "bias": error.mean(),
            "lower_limit": error.mean() - 1.96 * error.std(ddof=1),
            "upper_limit": error.mean() + 1.96 * error.std(ddof=1),
            "percent_error": 100 * metrics.mean_absolute_percentage_error(true, found),
            "r2": metrics.r2_score(true, found),
        },
        rel=1e-9,
    )


def test_resamples_are_measured_as_if_they_were_the_images():
    rng = np.random.default_rng(1)
    true, found = rng.uniform(1, 9, 6), rng.uniform(1, 9, 6)
    drawn = np.array([0, 0, 3, 5, 5, 5])
    weights = np.bincount(drawn, minlength=6)[None].astype(float)
    again = agreement.measures(true[drawn], found[drawn])
    for name, one in agreement.measures(true, found).items():
        value = one.weighted(weights, np.arange(6))[0]
        assert value == pytest.approx(again[name].value, rel=1e-9), name


def test_what_is_not_defined_is_not_there():
    same = agreement.measures(np.full(3, 7.0), np.array([6.0, 7, 8]))
    assert "r2" not in same
    one = agreement.measures(np.array([5.0]), np.array([6.0]))
    assert one["lower_limit"].value == one["upper_limit"].value == 1
    assert "percent_error" not in agreement.measures(np.array([0.0, 1]), np.array([0.0, 1]))


def test_a_resample_of_one_value_explains_nothing_and_breaks_nothing():
    measure = agreement.measures(np.array([1e8, 1e8 + 1]), np.array([1e8, 1e8 + 1]))["r2"]
    np.testing.assert_array_equal(
        measure.weighted(np.array([[2.0, 0], [1, 1]]), np.arange(2)), [0, 1]
    )


def test_what_is_not_finite_is_no_error():
    with pytest.raises(ValueError, match="the predictions: 1 of 2 are not finite"):
        agreement.measures(np.array([1.0, 2]), np.array([np.nan, 2]))
