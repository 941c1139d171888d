import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import bootstrap, measure


def test_bootstrap_by_patient_is_wider_for_clustered_images():
    patients = np.repeat(np.arange(30), 10)
    # All ten images of a patient are right or wrong together.
    right = np.repeat(np.random.default_rng(0).random(30) < 0.5, 10)

    def width(groups):
        low, high = bootstrap.bootstrap_interval(lambda w: w @ right / w.sum(1), groups)
        assert low < right.mean() < high
        return high - low

    assert 2.5 < width(patients) / width(np.arange(300)) < 4  # sqrt(10) in expectation


def test_bootstrap_matches_the_normal_approximation_and_its_seed():
    right = np.arange(400) % 2
    interval = [
        bootstrap.bootstrap_interval(
            lambda w: w @ right / w.sum(1), np.arange(400), resamples=4000, seed=seed
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_allclose(interval[0], [0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], atol=0.005)
    assert interval[0] == interval[1] != interval[2]


def test_bootstrap_in_chunks_is_the_same_draw(monkeypatch):
    groups = np.repeat(np.arange(7), 3)
    whole = np.concatenate(list(bootstrap.bootstrap_weights(groups, resamples=10, seed=3)))
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_ONCE", 50)
    chunks = list(bootstrap.bootstrap_weights(groups, resamples=10, seed=3))
    assert len(chunks) > 1
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert (whole.sum(1) == 21).all()
    assert (whole.reshape(10, 7, 3) == whole.reshape(10, 7, 3)[:, :, :1]).all()


def test_bootstrap_refuses_nonsense():
    with pytest.raises(ValueError, match="at least one image"):
        bootstrap.bootstrap_interval(lambda w: w.sum(1), np.array([]))
    with pytest.raises(ValueError, match="level must lie"):
        bootstrap.bootstrap_interval(lambda w: w.sum(1), np.arange(3), level=95.0)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap.bootstrap_interval(lambda w: w.sum(1), np.arange(3), resamples=0)


def test_one_patient_has_no_interval():
    right = measure.mean(np.array([True, True, False]))
    found = bootstrap.Bootstrap(np.array(["a", "a", "a"])).estimate(right)
    assert (found.value, found.low, found.high) == (pytest.approx(2 / 3), None, None)
    assert (found.n, found.groups) == (3, 1)
    two = bootstrap.Bootstrap(np.array(["a", "a", "b"])).estimate(right)
    assert 0 < two.low < 1e-6 < two.value < 1 - 1e-6 < two.high < 1  # one degree of freedom


def test_groups_that_add_the_same_are_drawn_as_one_row():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    answers = np.where(rng.random(900) < 0.8, labels, 0)
    one = measure.macro_f1(labels, answers[None], 3)
    draws, rows = bootstrap.resampled_sums(one, np.arange(900), resamples=500, seed=0)
    times = np.concatenate(list(draws))
    # Three classes, right or taken for the first: five kinds of image, drawn 900 times.
    assert times.shape == (500, 5)
    assert (times.sum(1) == 900).all()
    np.testing.assert_allclose(times.mean(0) @ rows, one.parts.sum(0), rtol=0.01)
    plain = [
        one.weighted(chunk, np.arange(900))
        for chunk in bootstrap.bootstrap_weights(np.arange(900), resamples=2000, seed=0)
    ]
    drawn = bootstrap.resample(one, np.arange(900), resamples=2000, seed=0)
    np.testing.assert_allclose(drawn.std(), np.concatenate(plain).std(), rtol=0.08)


def test_a_statistic_that_is_not_finite_gives_no_interval():
    with pytest.raises(ValueError, match="of a resample: 10 of 10 are not finite"):
        bootstrap.bootstrap_interval(lambda w: w.sum(1) * np.nan, np.arange(3), resamples=10)
