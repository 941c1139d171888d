import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import metrics

# Confusion [[2, 1, 0], [0, 1, 0], [1, 0, 1]]; class 3 is a distractor that nobody shows.
LABELS = np.array([0, 0, 0, 1, 2, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 2, 0])


def test_f1_by_hand():
    # 2 TP / (labelled + predicted): 4/6, 2/3, 2/3.
    np.testing.assert_allclose(metrics.f1_per_class(LABELS, PREDICTIONS), [2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(metrics.f1_per_class(LABELS, PREDICTIONS, 4)[3], 0)
    assert metrics.confusion_matrix(LABELS, PREDICTIONS, 3).tolist() == [
        [2, 1, 0],
        [0, 1, 0],
        [1, 0, 1],
    ]


def test_macro_f1_is_over_classes_in_the_labels():
    # Answering a distractor costs its image but adds no class to the mean.
    distracted = np.array([0, 0, 3, 1, 2, 2])
    assert metrics.macro_f1(LABELS, distracted, 4) == pytest.approx((4 / 5 + 1 + 1) / 3)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "non-empty"),
        ([0, 1], [0], "equally long"),
        ([0, -1], [0, 0], "labels must be class indices"),
        ([0, 1], [0.0, 1.0], "predictions must be class indices"),
        ([0, 5], [0, 1], "class 5 found, but there are 3 classes"),
    ],
)
def test_unusable_classes_are_refused(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.f1_per_class(np.array(labels), np.array(predictions), 3)


def test_top_k_counts_ties_for_the_lower_class():
    scores = np.array([[0.1, 0.5, 0.5], [0.9, 0.2, 0.3]])
    labels = np.array([2, 1])
    assert metrics.top_k_hits(scores, labels, 1).tolist() == [False, False]
    assert metrics.top_k_hits(scores, labels, 2).tolist() == [True, False]
    assert metrics.top_k_hits(scores, labels, 3).tolist() == [True, True]
    assert metrics.top_k_hits(np.stack([scores, -scores]), labels, 1).shape == (2, 2)
    assert (metrics.top_k_hits(scores, labels, 1) == (scores.argmax(1) == labels)).all()


def test_classes_may_be_names():
    classes = ["femur", "brain", "heart"]
    labels, predictions = (["brain", "femur", "brain"], ["brain", "brain", "brain"])
    found = metrics.f1_per_class(labels, np.array(predictions), classes)
    np.testing.assert_allclose(found, [0, 4 / 5, 0])
    with pytest.raises(ValueError, match="labels hold 'spine', which is none of the classes"):
        metrics.f1_per_class(["spine"], ["brain"], classes)


def test_balanced_accuracy_counts_classes_not_images():
    labels = np.array([0] * 8 + [2] * 2)
    hits = np.array([True] * 8 + [True, False])
    assert metrics.balanced_accuracy(hits, labels) == pytest.approx((1 + 0.5) / 2)
    np.testing.assert_array_equal(
        metrics.recall_per_class(hits, labels, 4), [1, np.nan, 0.5, np.nan]
    )


def test_what_is_not_finite_is_no_hit():
    scores = np.array([[0.1, 0.9], [np.nan, np.nan], [0.2, np.inf]])
    with pytest.raises(ValueError, match=r"scores: 2 of 3 are not finite .*first row 1"):
        metrics.top_k_hits(scores, np.array([1, 1, 0]), 1)


def test_chance_and_majority():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    assert metrics.majority_macro_f1(labels) == pytest.approx(2 * 0.6 / 1.6 / 3)
    guesses = np.random.default_rng(0).integers(0, 9, (400, 100))
    simulated = np.mean([metrics.macro_f1(labels, guess, 9) for guess in guesses])
    assert metrics.chance_macro_f1(labels, 9) == pytest.approx(simulated, abs=0.01)
