"""Ranks of two classes against slow definitions and against scikit-learn."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fetalclip_jax.evaluation.statistics import measure, ranking
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap, resample
from fetalclip_jax.evaluation.statistics.ranking import Ranking

STATISTICS = {
    "auroc": ranking.auroc,
    "auprc": ranking.average_precision,
    "sensitivity": ranking.sensitivity_at(0.8),
}


def one_run(scores, labels, statistic=ranking.auroc):
    scores = np.asarray(scores, float)[None]
    return Ranking(scores, np.asarray(labels, bool), statistic, np.ones(scores.shape, bool))


def slow(name, scores, labels, weights):
    """Every pair of images, or every threshold, one after another."""
    positives = [(s, w) for s, y, w in zip(scores, labels, weights, strict=True) if y]
    negatives = [(s, w) for s, y, w in zip(scores, labels, weights, strict=True) if not y]
    p, n = sum(w for _, w in positives), sum(w for _, w in negatives)
    if name == "auroc":
        pairs = itertools.product(positives, negatives)
        return sum(wp * wn * ((a > b) + (a == b) / 2) for (a, wp), (b, wn) in pairs) / (p * n)
    points = []
    for threshold in (np.inf, *sorted(set(scores), reverse=True)):
        tp = sum(w for s, w in positives if s >= threshold)
        fp = sum(w for s, w in negatives if s >= threshold)
        points.append((tp, fp))
    if name == "sensitivity":
        return max(tp / p for tp, fp in points if 1 - fp / n >= 0.8 - 1e-12)
    steps = itertools.pairwise(points)
    return sum((b[0] - a[0]) / p * b[0] / (b[0] + b[1]) for a, b in steps if b[0] > a[0])


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("kinds_of_score", [3, 10_000])
def test_equals_the_definition_with_ties_and_weights(name, kinds_of_score):
    rng = np.random.default_rng(kinds_of_score)
    scores = rng.integers(0, kinds_of_score, 40) / 7
    labels = rng.random(40) < 0.4
    weights = rng.integers(0, 4, (20, 40)).astype(float)
    weights[0] = 1
    weights[1] = 10.0 ** rng.integers(-8, 8, 40)
    found = one_run(scores, labels, STATISTICS[name]).weighted(weights, np.arange(40))
    expected = [slow(name, scores, labels, row) for row in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn(ties):
    rng = np.random.default_rng(int(ties))
    scores = rng.integers(0, 6, 200).astype(float) if ties else rng.normal(size=200)
    labels = rng.random(200) < 0.2
    weights = rng.integers(0, 5, (8, 200)).astype(float)
    for statistic, reference in (
        (ranking.auroc, sklearn_metrics.roc_auc_score),
        (ranking.average_precision, sklearn_metrics.average_precision_score),
    ):
        found = one_run(scores, labels, statistic)
        expected = [reference(labels, scores, sample_weight=row) for row in weights]
        np.testing.assert_allclose(found.weighted(weights, np.arange(200)), expected, rtol=1e-10)
        assert found.value == pytest.approx(reference(labels, scores), rel=1e-12)


def test_the_roc_equals_scikit_learn():
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.5
    false_alarms, hits = ranking.roc(*ranking.by_score(scores, labels, np.ones((1, 60))))
    expected = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_alarms[0], expected[0])
    np.testing.assert_allclose(hits[0], expected[1])


def test_perfect_and_reversed_and_constant_scores():
    labels = [True, True, False, False, False]
    scores = np.array([4.0, 3, 2, 1, 0])
    of = {name: one_run(scores, labels, one).value for name, one in STATISTICS.items()}
    assert of == {"auroc": 1, "auprc": 1, "sensitivity": 1}
    of = {name: one_run(-scores, labels, one).value for name, one in STATISTICS.items()}
    assert of == {"auroc": 0, "auprc": pytest.approx((1 / 4 + 2 / 5) / 2), "sensitivity": 0}
    of = {name: one_run(0 * scores, labels, one).value for name, one in STATISTICS.items()}
    assert of == {"auroc": 0.5, "auprc": pytest.approx(0.4), "sensitivity": 0}


def test_a_specificity_that_is_met_exactly_counts():
    labels = np.array([False] * 10 + [True] * 4)
    scores = np.array([*range(10), 8.5, 9.5, 3, 9])  # one of ten negatives is at 9
    for specificity, expected in ((0.9, 0.75), (0.91, 0.25), (0.3, 1.0)):
        found = one_run(scores, labels, ranking.sensitivity_at(specificity)).value
        assert found == expected
    with pytest.raises(ValueError, match="specificity must lie between 0 and 1, found 90"):
        ranking.sensitivity_at(90.0)


def test_runs_judge_their_own_images_and_are_averaged():
    labels = np.array([True, False, True, False])
    scores = np.array([[2.0, 1, -9, 9], [np.nan, np.nan, 0, 1]])
    judged = np.array([[True, True, False, False], [False, False, True, True]])
    found = Ranking(scores, labels, ranking.auroc, judged)
    assert found.of_runs().tolist() == [1, 0]
    assert found.value == 0.5
    assert found.select(np.array([0, 1])).value == 1  # the second run judges none of them
    with pytest.raises(ValueError, match="the scores: 2 of 4 are not finite"):
        Ranking(scores, labels, ranking.auroc, np.ones_like(judged))


def test_a_single_class_has_no_such_number():
    found = one_run([1, 2, 3], [True, True, True])
    assert not found.defined
    with pytest.raises(ValueError, match=r"both classes .* of 3 images 3 are positive"):
        found.value  # noqa: B018
    with pytest.raises(ValueError, match="none of 2 resamples holds both classes of 3 images"):
        found.weighted(np.ones((2, 3)), np.arange(3))
    assert one_run([1, 2], [True, False]).defined
    assert not measure.difference(found, found).defined


def test_a_resample_without_a_class_is_drawn_again():
    found = one_run([3, 1, 2], [True, False, False])
    weights = np.array([[1.0, 1, 1], [0, 1, 2], [1, 0, 2], [3, 0, 0]])
    assert found.undefined(weights, np.arange(3)).tolist() == [False, True, False, True]
    flat = one_run([2, 1, 2], [True, False, False])
    # The second counts as the third, the last as the first.
    assert flat.weighted(weights, np.arange(3)).tolist() == [0.75, 0.5, 0.5, 0.75]
    # Three images of which one is positive: nearly a third of the resamples lack it.
    values = resample(flat, np.arange(3), resamples=300, seed=0)
    assert np.isfinite(values).all()


def test_intervals_and_paired_differences():
    rng = np.random.default_rng(3)
    labels = rng.random(150) < 0.3
    good, poor = (labels * strength + rng.normal(size=150) for strength in (2.0, 0.3))
    patients = np.arange(150) // 2
    first, second = one_run(good, labels), one_run(poor, labels)
    bootstrap = Bootstrap(patients, 300)
    estimate = bootstrap.estimate(first)
    assert 0.5 < estimate.low < estimate.value < estimate.high < 1
    assert (estimate.n, estimate.groups) == (150, 75)
    of_both = measure.difference(first, second)
    paired = bootstrap.estimate(of_both)
    assert paired.value == pytest.approx(first.value - second.value)
    assert 0 < paired.low < paired.value
    # Patients, not images, are drawn: a patient's images twice are no more evidence.
    twice = np.concatenate([good, good])
    doubled = one_run(twice, np.concatenate([labels, labels]))
    same = Bootstrap(np.concatenate([patients, patients]), 300).estimate(doubled)
    assert (same.low, same.high) == pytest.approx((estimate.low, estimate.high))
