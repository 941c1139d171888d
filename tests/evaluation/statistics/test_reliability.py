"""Calibration errors by hand and by simulation, and temperatures that recover a known one."""

import numpy as np
import pytest
from scipy import special

from fetalclip_jax.evaluation.statistics import reliability


def test_the_expected_calibration_error_by_hand():
    confidence = np.array([0.6, 0.6, 0.6, 0.6, 0.9, 0.9, 0.9, 0.9])
    hits = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
    found = reliability.bins(confidence, hits, np.arange(8), count=2)
    assert found.images.tolist() == [4, 4]
    np.testing.assert_allclose(found.confidence, [0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.75])
    # Half of the images are off by 0.4, half by 0.15.
    assert found.expected_error() == pytest.approx(0.275)
    # The first bin shows no variance: that of true probabilities stands for it, 0.6 x 0.4 / 4.
    variances = np.array([0.06, 8 / 7 * (3 * 0.25**2 + 0.75**2) / 16])
    np.testing.assert_allclose(found.covariance.diagonal(), variances)
    by_chance = 0.5 * np.sqrt(2 / np.pi * variances).sum()
    assert found.expected_by_chance() == pytest.approx(by_chance)
    square = 0.5 * (0.4**2 + 0.15**2) - 0.5 * variances.sum()
    assert found.squared_error() == pytest.approx(square)


def test_bins_hold_about_as_many_images_and_ties_share_one():
    confidence = np.linspace(0.3, 1, 64)
    found = reliability.bins(confidence, np.ones(64, bool), np.arange(64))
    assert found.images.tolist() == [16, 16, 16, 16]  # the cube root of 64
    assert (np.diff(found.of_image) >= 0).all()
    tied = reliability.bins(np.full(64, 0.5), np.ones(64, bool), np.arange(64))
    assert tied.images.tolist() == [64]


def _drawn(rng, patients, true, images=4):
    """Answers of patients whose images are alike."""
    owners = np.repeat(np.arange(patients), images)
    confidence = rng.uniform(0.45, 0.99, patients * images)
    of_patient = rng.normal(size=patients)[owners]
    drawn = np.sqrt(0.4) * of_patient + np.sqrt(0.6) * rng.normal(size=len(owners))
    return confidence, special.ndtr(drawn) < true(confidence), owners


@pytest.mark.parametrize("name", ["true", "too sure", "of few patients"])
def test_the_squared_error_has_no_bias_and_an_interval_that_covers(name):
    patients, shift = (15, 0.1) if name == "of few patients" else (80, 0.1)
    shift = 0.0 if name == "true" else shift
    covered, errors = 0, []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        drawn = _drawn(rng, patients, lambda confidence: confidence - shift)
        found = reliability.bins(*drawn)
        low, high = found.squared_error_interval(patients - 1, 0.95)
        covered += low <= shift**2 <= high
        errors.append(found.squared_error() - shift**2)
    assert covered >= 135
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(150) + 0.0005


def test_the_error_by_chance_is_that_of_true_probabilities():
    found = [
        reliability.bins(*_drawn(np.random.default_rng(seed), 80, lambda p: p))
        for seed in range(60)
    ]
    error = np.mean([one.expected_error() for one in found])
    by_chance = np.mean([one.expected_by_chance() for one in found])
    assert by_chance == pytest.approx(error, rel=0.12)
    assert by_chance > 0.03  # more than nothing: what a plain error would be blamed for


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature):
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(6000, 4))
    true = special.softmax(logits, axis=1)
    labels = (true.cumsum(1) < rng.random((6000, 1))).sum(1)
    assert reliability.fit_temperature(temperature * logits, labels) == pytest.approx(
        temperature, rel=0.06
    )


def test_a_fit_without_a_finite_optimum_ends_somewhere_sensible():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    coldest = reliability.fit_temperature(logits, np.array([0, 1]))
    hottest = reliability.fit_temperature(logits, np.array([1, 0]))
    assert 0.01 < coldest < 0.3
    assert hottest > 100
    assert [reliability.is_hottest(one) for one in (coldest, 1.0, hottest)] == [False, False, True]
    with pytest.raises(ValueError, match="at least one image"):
        reliability.fit_temperature(logits[:0], np.array([], int))


def test_temperatures_may_differ_between_images():
    logits = np.array([[1.0, 3.0], [1.0, 3.0]])
    found = np.exp(reliability.log_probabilities(logits, np.array([1.0, 2.0])))
    np.testing.assert_allclose(found[:, 1], [special.expit(2), special.expit(1)])


def test_brier_by_hand():
    found = reliability.brier(np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]]), np.array([0, 2]))
    np.testing.assert_allclose(found, [0.25 + 0.09 + 0.04, 2.0])


def test_images_of_one_patient_are_no_more_evidence_than_one():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.95, 0.99, 100)  # too sure: what is seen varies more than told
    hits, owners = rng.random(100) < 0.5, np.arange(100)
    once = reliability.bins(confidence, hits, owners, count=3)
    twice = np.repeat(confidence, 2), np.repeat(hits, 2)
    alike = reliability.bins(*twice, np.repeat(owners, 2), count=3)
    others = reliability.bins(*twice, np.arange(200), count=3)
    np.testing.assert_allclose(alike.covariance, once.covariance)
    np.testing.assert_allclose(others.covariance, once.covariance / 2, rtol=0.02)
