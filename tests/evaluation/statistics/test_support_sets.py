"""Support sets of one pool: their spread alone hides what another pool would change."""

import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics.support_sets import SupportSets, over_sizes


def test_the_variance_over_pools_is_found_from_one_pool():
    rng = np.random.default_rng(0)
    patients, size, sets = 100, 40, 5
    means, guesses = [], []
    for _ in range(3000):
        effects = rng.normal(size=patients)
        drawn = [effects[rng.permutation(patients)[:size]].mean() for _ in range(sets)]
        means.append(np.mean(drawn))
        guesses.append(SupportSets(np.array(drawn), size / patients).spread.variance)
    assert np.mean(guesses) == pytest.approx(np.var(means), rel=0.1)
    # Of sets that were independent it would be four times too small.
    assert np.mean([g for g in guesses]) > 3 * SupportSets(np.array(drawn), 0.0).of_sets / 2


def test_what_another_pool_changes_it_changes_at_every_size():
    small = SupportSets(np.array([0.1, 0.3, 0.2]), 0.2)
    large = SupportSets(np.array([0.5, 0.8, 0.5]), 0.5)
    *sets, pool = over_sizes([0.25, 0.75], [small, large])
    assert [one.variance for one in sets] == pytest.approx([0.01 / 3 / 16, 0.03 / 3 * 9 / 16])
    # The standard deviations add up, not the variances.
    expected = 0.25 * np.sqrt(0.01 * 0.25) + 0.75 * np.sqrt(0.03)
    assert pool.variance == pytest.approx(expected**2)
    assert {one.freedom for one in (*sets, pool)} == {2}
    known, unknown = SupportSets(small.means, 0.0), SupportSets(small.means)
    assert known.spread == unknown.spread


def test_a_share_beyond_the_pool_is_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), found 1.0"):
        SupportSets(np.array([0.1, 0.2]), 1.0)
    with pytest.raises(ValueError, match="at least two values, found 1"):
        _ = SupportSets(np.array([0.1])).spread
