"""Conformal sets cover an image of a new patient at the promised rate, whatever the scores."""

import numpy as np
import pytest
from scipy import special

from fetalclip_jax.evaluation.statistics import conformal


def test_a_threshold_by_hand():
    of_label = np.array([0.9, 0.8, 0.7, 0.6])
    # Of 4 + 1 patients 0.6 are 3: three of the four known ones must be inside.
    assert conformal.threshold(of_label, np.arange(4), 0.6) == 0.7
    assert conformal.threshold(of_label, np.arange(4), 0.8) == 0.6
    # All five cannot be promised by four: everything is inside.
    assert conformal.threshold(of_label, np.arange(4), 0.9) == 0.0


def test_every_patient_counts_once():
    of_label = np.array([0.9] * 8 + [0.5, 0.4])
    owners = np.array([0] * 8 + [1, 2])
    np.testing.assert_allclose(conformal.weights_of_patients(owners)[[0, 8]], [1 / 8, 1])
    assert conformal.threshold(of_label, owners, 0.5) == 0.5  # two of three patients
    assert conformal.threshold(of_label, np.arange(10), 0.5) == 0.9  # ten patients with one image


@pytest.mark.parametrize(("coverage", "patients"), [(0.9, 9), (0.95, 19), (0.5, 1)])
def test_patients_that_a_coverage_needs(coverage, patients):
    assert conformal.patients_needed(coverage) == patients
    of_label = np.linspace(0.5, 0.9, patients)
    assert conformal.threshold(of_label, np.arange(patients), coverage) == 0.5
    assert conformal.threshold(of_label[1:], np.arange(patients - 1), coverage) == 0.0


@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_a_coverage_must_be_a_share(coverage):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal.threshold(np.array([0.5]), np.array([0]), coverage)


def test_sets_cover_new_patients_as_promised():
    """Patients are hard or easy and have many images or few: images alone would mislead."""
    rng = np.random.default_rng(0)

    def draw(patients):
        hard = rng.random(patients) < 0.3
        owners = np.repeat(np.arange(patients), np.where(hard, 1, 12))
        labels = rng.integers(0, 4, len(owners))
        logits = np.eye(4)[labels] * np.where(hard, 0.5, 4)[owners, None]
        return special.softmax(logits + rng.normal(size=logits.shape), axis=1), labels, owners

    by_patient, by_image = [], []
    for _ in range(200):
        known, labels, owners = draw(30)
        of_label = known[np.arange(len(labels)), labels]
        new, new_labels, new_owners = draw(30)
        for found, ids in ((by_patient, owners), (by_image, np.arange(len(owners)))):
            threshold = conformal.threshold(of_label, ids, 0.9)
            inside = conformal.sets(new, np.full(len(new), threshold))
            covered = inside[np.arange(len(new)), new_labels]
            weights = conformal.weights_of_patients(new_owners)
            found.append(np.average(covered, weights=weights))
    assert 0.89 < np.mean(by_patient) < 0.94
    assert np.mean(by_image) < 0.85  # what counting each image once would have given
