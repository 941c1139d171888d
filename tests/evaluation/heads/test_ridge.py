import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fetalclip_jax.evaluation.heads import ridge

PENALTIES = (10.0, 1.0, 0.1, 1e-3, 1e-6)


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, d)) * rng.uniform(0.1, 30, d) + rng.normal(size=d) * 5
    targets = inputs @ rng.normal(size=d) / 10 + rng.normal(size=n) * 2 + 150
    rows = rng.permutation(n)
    parts = np.array_split(rows, 4)
    return inputs, targets, [(np.setdiff1d(rows, part), part) for part in parts]


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("n", "d"), [(60, 7), (20, 50)])
def test_equals_scikit_learn_at_the_penalty_that_a_slow_loop_chooses(n, d, standardise):
    inputs, targets, folds = problem(n, d)

    def fitted(rows, penalty):
        model = Ridge(alpha=penalty * len(rows), solver="svd")
        model = make_pipeline(StandardScaler(), model) if standardise else model
        return model.fit(inputs[rows], targets[rows])

    errors, held_out = [], []
    for penalty in PENALTIES:
        found = np.empty(n)
        for train, validation in folds:
            found[validation] = fitted(train, penalty).predict(inputs[validation])
        errors.append(((found - targets) ** 2).mean())
        held_out.append(found)
    best = int(np.argmin(errors))
    model = ridge.fit_cross_validated(
        inputs, targets, folds, penalties=PENALTIES, standardise=standardise
    )
    np.testing.assert_allclose(model.errors, errors, rtol=1e-6)
    assert model.penalty == PENALTIES[best]
    np.testing.assert_allclose(model.out_of_fold, held_out[best], rtol=1e-6)
    new = np.random.default_rng(1).normal(size=(9, d)) * 9
    expected = fitted(np.arange(n), PENALTIES[best]).predict(new)
    np.testing.assert_allclose(model(new), expected, rtol=1e-6)


def test_an_input_that_does_not_vary_has_no_part():
    inputs, targets, folds = problem(40, 3)
    constant = np.concatenate([inputs, np.full((40, 1), 0.1), np.zeros((40, 1))], 1)
    one, other = (
        ridge.fit_cross_validated(given, targets, folds, penalties=PENALTIES)
        for given in (inputs, constant)
    )
    np.testing.assert_allclose(other.weight[:3], one.weight, rtol=1e-9)
    np.testing.assert_array_equal(other.weight[3:], 0)


def test_rows_that_no_fold_holds_out_have_no_held_out_prediction():
    inputs, targets, folds = problem(40, 3)
    model = ridge.fit_cross_validated(inputs, targets, folds[:2], penalties=PENALTIES)
    seen = np.concatenate([folds[0][1], folds[1][1]])
    assert np.isfinite(model.out_of_fold[seen]).all()
    assert np.isnan(np.delete(model.out_of_fold, seen)).all()


@pytest.mark.parametrize(
    ("fold", "what"),
    [((np.arange(4), np.arange(0)), "hold out"), ((np.arange(0), np.arange(4)), "train on")],
)
def test_an_empty_fold_is_refused(fold, what):
    inputs, targets, _ = problem(10, 2)
    with pytest.raises(ValueError, match=f"fold 0 has no image to {what} with a known value"):
        ridge.fit_cross_validated(inputs, targets, [fold])
