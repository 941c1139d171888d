import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.confident import Confident


def reference(labels, probabilities):
    """Section 3 of Northcutt et al. 2021, image by image: joint counts and pruned images."""
    n, m = probabilities.shape
    thresholds = {}
    for j in range(m):
        own = [probabilities[x, j] for x in range(n) if labels[x] == j]
        if own:
            thresholds[j] = sum(own) / len(own)
    counts = np.zeros((m, m))
    for x in range(n):
        sure = [j for j in thresholds if probabilities[x, j] >= thresholds[j]]
        if sure:
            counts[labels[x], max(sure, key=lambda j: probabilities[x, j])] += 1
    joint = np.zeros((m, m))
    for i in range(m):
        size = sum(1 for label in labels if label == i)
        for j in range(m):
            row = counts[i].sum()
            joint[i, j] = counts[i, j] / row * size if row else 0
    pruned = set()
    for i in range(m):
        for j in range(m):
            if i == j:
                continue
            rows = [x for x in range(n) if labels[x] == i]
            rows.sort(key=lambda x: probabilities[x, i] - probabilities[x, j])
            pruned |= set(rows[: round(joint[i, j])])
    return counts, joint, pruned


def drawn(n, m, seed, classes=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes or m, n)
    logits = rng.normal(size=(n, m)) + 2.0 * np.eye(m)[labels]
    wrong = rng.random(n) < 0.15
    labels = np.where(wrong, rng.integers(0, classes or m, n), labels)
    odds = np.exp(logits)
    return labels, odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("n", "m", "classes"), [(300, 4, None), (60, 3, None), (80, 5, 3), (12, 2, 1)]
)
def test_joint_and_flags_are_those_of_the_definitions(n, m, classes):
    labels, probabilities = drawn(n, m, n, classes)
    counts, joint, pruned = reference(labels, probabilities)
    found = Confident(labels, probabilities)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.joint, joint, rtol=1e-12)
    assert set(np.flatnonzero(found.flagged()).tolist()) == pruned
    np.testing.assert_allclose(found.joint.sum(1), np.bincount(labels, minlength=m))
    noise = 1 - np.trace(joint) / n
    assert found.noise().value == pytest.approx(noise, abs=1e-12)


def test_wrong_labels_are_counted_about_right_and_the_worst_come_first():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 900)
    given = np.where(rng.random(900) < 0.1, (true + 1) % 3, true)
    odds = np.exp(4 * np.eye(3)[true] + rng.normal(size=(900, 3)))
    found = Confident(given, odds / odds.sum(1, keepdims=True))
    assert found.noise().value == pytest.approx((given != true).mean(), abs=0.02)
    worst = np.argsort(found.margins())[:40]
    assert (given != true)[worst].mean() > 0.95
    interval = Bootstrap(np.arange(900), 200).estimate(found.noise())
    assert interval.low < (given != true).mean() < interval.high


def test_resamples_count_with_fixed_thresholds():
    labels, probabilities = drawn(40, 3, 5)
    found = Confident(labels, probabilities)
    times = np.random.default_rng(1).integers(0, 4, 40)
    rows = np.repeat(np.arange(40), times)
    joint = np.zeros((3, 3))
    for row in rows:
        if found.confident_class[row] >= 0:
            joint[labels[row], found.confident_class[row]] += 1
    sizes = np.bincount(labels[rows], minlength=3)
    share = 1 - np.diag(joint) / joint.sum(1)
    value = found.noise().weighted(times[None].astype(float), np.arange(40))[0]
    assert value == pytest.approx((share * sizes).sum() / sizes.sum())


def test_below_every_threshold_an_image_is_confidently_of_no_class():
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    found = Confident(labels, probabilities)
    assert found.confident_class.tolist() == [-1, 0, 1]
    assert not found.flagged().any()
