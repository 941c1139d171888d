import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from fetalclip_jax.evaluation.heads import logistic

ROWS = [np.arange(0, 70), np.arange(30, 100)]
HELD_OUT = [np.arange(70, 120), np.arange(0, 30)]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    features = rng.normal(size=(120, 5)) + np.eye(3, 5)[labels] * 1.5 + 4
    return features.astype(np.float32), labels


def by_scipy(features, labels, penalty):
    one_hot = np.eye(3)[labels]

    def objective(flat):
        parameters = flat.reshape(6, 3)
        logits = features @ parameters[:-1] + parameters[-1]
        log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        loss = (log_sum - (one_hot * logits).sum(1)).mean()
        return loss + penalty / 2 * (parameters[:-1] ** 2).sum()

    return minimize(objective, np.zeros(18), options={"gtol": 1e-6}).x.reshape(6, 3)


def losses(features, labels, weight, bias):
    logits = features @ weight + bias
    log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    return log_sum - logits[np.arange(len(labels)), labels]


def test_each_run_keeps_the_optimum_of_its_best_penalty(data):
    features, labels = data
    penalties = (0.1, 1e-2, 1e-4)
    found = logistic.fit_chosen(
        features, labels, ROWS, HELD_OUT, num_classes=3, penalties=penalties
    )
    exact = features.astype(float)
    for run, (rows, held_out) in enumerate(zip(ROWS, HELD_OUT, strict=True)):
        fits = [by_scipy(exact[rows], labels[rows], penalty) for penalty in penalties]
        means = [losses(exact[held_out], labels[held_out], f[:-1], f[-1]).mean() for f in fits]
        best = int(np.argmin(means))
        assert found.penalty[run] == penalties[best]
        np.testing.assert_allclose(found.validation_loss[run], means[best], atol=1e-3)
        # The bias is known up to a constant.
        expected = exact @ fits[best][:-1] + fits[best][-1]
        logits = found.logits(features)[run]
        np.testing.assert_allclose(
            logits - logits.mean(1, keepdims=True),
            expected - expected.mean(1, keepdims=True),
            atol=0.02,
        )


def test_cross_validation_chooses_over_the_folds_and_learns_from_all(data):
    features, labels = data
    penalties = (1.0, 1e-2, 1e-5)
    found = logistic.fit_cross_validated(
        features, labels, ROWS, HELD_OUT, num_classes=3, penalties=penalties
    )
    assert found.weight.shape == (1, 5, 3)
    apart = [
        logistic.fit_chosen(
            features, labels, ROWS, HELD_OUT, num_classes=3, penalties=(penalty,)
        ).validation_loss
        for penalty in penalties
    ]
    pooled = [np.average(one, weights=[50, 30]) for one in apart]
    assert found.penalty[0] == penalties[int(np.argmin(pooled))]
    assert found.validation_loss[0] == pytest.approx(min(pooled), abs=1e-3)
    everything = by_scipy(features.astype(float), labels, found.penalty[0])
    np.testing.assert_allclose(
        found.weight[0] - found.weight[0].mean(1, keepdims=True),
        everything[:-1] - everything[:-1].mean(1, keepdims=True),
        atol=0.02,
    )


def test_the_optimum_is_that_of_scikit_learn(data):
    features, labels = data
    penalty = 1e-2
    found = logistic.fit_chosen(
        features, labels, ROWS, HELD_OUT, num_classes=3, penalties=(penalty,)
    )
    for run, rows in enumerate(ROWS):
        theirs = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=10_000, tol=1e-8)
        theirs.fit(features[rows].astype(np.float64), labels[rows])
        np.testing.assert_allclose(
            found.weight[run] - found.weight[run].mean(1, keepdims=True), theirs.coef_.T, atol=2e-3
        )


def test_a_run_does_not_depend_on_its_neighbours(data):
    features, labels = data
    rows, held_out = [np.arange(70), np.arange(100)], [HELD_OUT[0]] * 2
    options = {"num_classes": 3, "penalties": (1e-1, 1e-2)}
    together = logistic.fit_chosen(features, labels, rows, held_out, **options)
    alone = logistic.fit_chosen(features, labels, rows[:1], held_out[:1], **options)
    np.testing.assert_allclose(alone.weight[0], together.weight[0], atol=1e-3)
    assert alone.penalty[0] == together.penalty[0]


def test_short_runs_are_not_filled_up_to_the_longest():
    rows = [np.arange(n) for n in (12, 600, 14, 770, 70)]
    assert [len(one) for one in logistic._padded(rows)] == [14, 770, 14, 770, 70]


def test_the_bar_counts_the_images_of_every_penalty(data, progress_bars):
    bars = progress_bars(logistic)
    options = {"num_classes": 3, "penalties": (1e-1, 1e-2), "progress": True}
    logistic.fit_chosen(*data, ROWS, HELD_OUT, **options)
    assert (bars[0].total, bars[0].moves) == (280, [0, 70, 140, 210, 280])


def test_refuses(data):
    features, labels = data
    with pytest.raises(ValueError, match="run 1 has no validation image"):
        logistic.fit_chosen(features, labels, ROWS, [HELD_OUT[0], ROWS[0][:0]], num_classes=3)
    with pytest.raises(ValueError, match="run 0 has no training image"):
        logistic.fit_chosen(features, labels, [ROWS[0][:0], ROWS[1]], HELD_OUT, num_classes=3)
    with pytest.raises(ValueError, match="never reached a finite"):
        logistic.fit_chosen(features * np.nan, labels, ROWS, HELD_OUT, num_classes=3)
