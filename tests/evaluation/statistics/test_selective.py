"""Risk against coverage, by hand."""

import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import selective

CONFIDENCE = np.array([0.5, 0.9, 0.8, 0.6])
ERRORS = np.array([True, False, False, True])


def test_the_curve_and_its_area():
    coverages, risks = selective.risk_by_coverage(CONFIDENCE, ERRORS)
    np.testing.assert_allclose(coverages, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risks, [0, 0, 1 / 3, 0.5])
    area = selective.AreaUnderRisk(CONFIDENCE, ERRORS)
    assert area.value == pytest.approx((0 + 0 + 1 / 3 + 0.5) / 4)
    assert len(area.select(np.array([1, 2]))) == 2
    assert area.select(np.array([1, 2])).value == 0


def test_images_of_one_confidence_are_answered_together():
    tied = np.array([0.9, 0.7, 0.7, 0.7])
    coverages, risks = selective.risk_by_coverage(tied, ERRORS)
    np.testing.assert_allclose(coverages, [0.25, 1])
    np.testing.assert_allclose(risks, [1, 0.5])
    area = selective.AreaUnderRisk(tied, ERRORS)
    assert area.value == pytest.approx((1 + 3 * 0.5) / 4)


def test_a_resample_is_the_area_of_its_images():
    groups = np.array([0, 1, 1, 2])
    weights = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    found = selective.AreaUnderRisk(CONFIDENCE, ERRORS).weighted(weights, groups)
    for value, times in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(4), times[groups].astype(int))
        assert value == pytest.approx(selective.AreaUnderRisk(CONFIDENCE[rows], ERRORS[rows]).value)


@pytest.mark.parametrize(
    ("risk", "confidence"), [(0.0, 0.8), (0.34, 0.6), (0.4, 0.6), (0.5, 0.5), (0.9, 0.5)]
)
def test_the_lowest_confidence_for_a_risk(risk, confidence):
    assert selective.lowest_confidence(CONFIDENCE, ERRORS, risk) == confidence


def test_a_risk_that_is_never_reached_answers_nothing():
    assert selective.lowest_confidence(CONFIDENCE, ~ERRORS, 0.05) == np.inf
