import numpy as np
import pytest

from fetalclip_jax.evaluation import metrics

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
        ([0, 5], [0, 1], "class 5 found, but num_classes is 3"),
    ],
)
def test_unusable_classes_are_refused(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.f1_per_class(np.array(labels), np.array(predictions), 3)


def test_weighted_forms_equal_repeating_images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 40)
    predictions = rng.integers(0, 5, (3, 40))
    values = rng.normal(size=40)
    weights = rng.integers(0, 3, (6, 40)).astype(float)
    weights[0, labels == 2] = 0  # a class that a resample misses does not count in it
    found = metrics.weighted_macro_f1(weights, labels, predictions, 5)
    for r, times in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(40), times)
        for m in range(3):
            expected = metrics.macro_f1(labels[drawn], predictions[m, drawn], 5)
            assert found[r, m] == pytest.approx(expected)
        assert metrics.weighted_mean(weights, values)[r] == pytest.approx(values[drawn].mean())
        lower_median = np.sort(values[drawn])[(len(drawn) - 1) // 2]
        assert metrics.weighted_median(weights, values)[r] == lower_median


def test_bootstrap_by_patient_is_wider_for_clustered_images():
    patients = np.repeat(np.arange(30), 10)
    # All ten images of a patient are right or wrong together.
    right = np.repeat(np.random.default_rng(0).random(30) < 0.5, 10)

    def width(groups):
        low, high = metrics.bootstrap_interval(lambda w: metrics.weighted_mean(w, right), groups)
        assert low < right.mean() < high
        return high - low

    assert 2.5 < width(patients) / width(np.arange(300)) < 4  # sqrt(10) in expectation


def test_bootstrap_matches_the_normal_approximation_and_its_seed():
    right = np.arange(400) % 2
    interval = [
        metrics.bootstrap_interval(
            lambda w: metrics.weighted_mean(w, right), np.arange(400), resamples=4000, seed=seed
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_allclose(interval[0], [0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], atol=0.005)
    assert interval[0] == interval[1] != interval[2]


def test_bootstrap_in_chunks_is_the_same_draw(monkeypatch):
    groups = np.repeat(np.arange(7), 3)
    whole = np.concatenate(list(metrics.bootstrap_weights(groups, resamples=10, seed=3)))
    monkeypatch.setattr(metrics, "_WEIGHTS_AT_ONCE", 50)
    chunks = list(metrics.bootstrap_weights(groups, resamples=10, seed=3))
    assert len(chunks) > 1
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert (whole.sum(1) == 21).all()
    assert (whole.reshape(10, 7, 3) == whole.reshape(10, 7, 3)[:, :, :1]).all()


def test_bootstrap_refuses_nonsense():
    with pytest.raises(ValueError, match="at least one image"):
        metrics.bootstrap_interval(lambda w: w.sum(1), np.array([]))
    with pytest.raises(ValueError, match="level must lie"):
        metrics.bootstrap_interval(lambda w: w.sum(1), np.arange(3), level=95)
    with pytest.raises(ValueError, match="resamples"):
        metrics.bootstrap_interval(lambda w: w.sum(1), np.arange(3), resamples=0)


def test_top_k_counts_ties_for_the_lower_class():
    scores = np.array([[0.1, 0.5, 0.5], [0.9, 0.2, 0.3]])
    labels = np.array([2, 1])
    assert metrics.top_k_hits(scores, labels, 1).tolist() == [False, False]
    assert metrics.top_k_hits(scores, labels, 2).tolist() == [True, False]
    assert metrics.top_k_hits(scores, labels, 3).tolist() == [True, True]
    assert metrics.top_k_hits(np.stack([scores, -scores]), labels, 1).shape == (2, 2)
    assert (metrics.top_k_hits(scores, labels, 1) == (scores.argmax(1) == labels)).all()


def test_chance_and_majority():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    assert metrics.majority_macro_f1(labels) == pytest.approx(2 * 0.6 / 1.6 / 3)
    guesses = np.random.default_rng(0).integers(0, 9, (400, 100))
    simulated = np.mean([metrics.macro_f1(labels, guess, 9) for guess in guesses])
    assert metrics.chance_macro_f1(labels, 9) == pytest.approx(simulated, abs=0.01)
