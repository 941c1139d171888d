"""Intervals hold what they say: scales, sources of chance, and no interval of no width."""

import numpy as np
import pytest
from scipy import stats

from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.intervals import Spread


def test_a_difference_is_students_t():
    low, high = intervals.interval(0.1, [Spread(0.04**2, 9)], scale="difference", groups=10)
    expected = stats.t.interval(0.95, 9, loc=0.1, scale=0.04)
    np.testing.assert_allclose([low, high], expected)
    p = intervals.p_value(0.1, [Spread(0.04**2, 9)])
    assert p == pytest.approx(2 * stats.t.sf(0.1 / 0.04, 9))
    # The p is .05 where the interval ends at nothing.
    edge = stats.t.ppf(0.975, 9) * 0.04
    assert intervals.p_value(edge, [Spread(0.04**2, 9)]) == pytest.approx(0.05)


def test_sources_of_chance_add_up_and_share_their_freedom():
    sets, patients = Spread(0.0009, 4), Spread(0.0001, 199)
    both = intervals.joint([sets, patients])
    assert both.variance == pytest.approx(0.001)
    assert both.freedom == pytest.approx(0.001**2 / (0.0009**2 / 4 + 0.0001**2 / 199))
    redraws = Spread.of_redraws([1.0, 2.0, 4.0], copies=5)
    assert (redraws.variance, redraws.freedom) == (pytest.approx(7 / 3 * 5 / 4), 2)
    with pytest.raises(ValueError, match="at least two values, found 1"):
        intervals.variance([1.0])


def test_what_differs_by_rounding_alone_has_no_variance():
    thirds = [(1 / 3 + 1 / 3) + k * 1e-16 for k in range(5)]
    assert intervals.variance(thirds) == 0.0
    assert intervals.variance([0.0, 1e-9]) > 0
    assert intervals.p_value(0.4, [Spread(intervals.variance(thirds), 4)]) == 1.0


def test_a_rate_stays_between_nothing_and_all():
    low, high = intervals.interval(0.98, [Spread(0.02**2, 20)], scale="unit", groups=21)
    assert 0 < low < 0.95 < 0.98 < high < 1
    low, high = intervals.interval(3.0, [Spread(4.0, 20)], scale="positive", groups=21)
    assert 0 < low < 3 < high


@pytest.mark.parametrize(("groups", "low"), [(1, 0.025), (30, 0.025 ** (1 / 30))])
def test_a_perfect_score_is_as_sure_as_its_patients_are_many(groups, low):
    perfect = intervals.interval(1.0, [Spread(0.0, groups)], scale="unit", groups=groups)
    assert perfect == (pytest.approx(low), 1.0)  # Clopper and Pearson
    nothing = intervals.interval(0.0, [Spread(0.0, groups)], scale="unit", groups=groups)
    assert nothing == (0.0, pytest.approx(1 - low))
    same = intervals.interval(0.0, [Spread(0.0, groups)], scale="difference", groups=groups)
    assert same == (pytest.approx(low - 1), pytest.approx(1 - low))
    assert intervals.p_value(0.0, [Spread(0.0, groups)]) == 1.0


def test_an_error_without_spread_has_no_interval():
    assert intervals.interval(2.0, [Spread(0.0, 5)], scale="positive", groups=6) == (None, None)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (0.5, {"scale": "percent"}, "scale must be one of .* found 'percent'"),
        (0.5, {"scale": "unit", "level": 95.0}, "level must lie between 0 and 1, found 95"),
        (14.0, {"scale": "unit"}, "14.0 is no value of scale 'unit'"),
        (-1.0, {"scale": "positive"}, "-1.0 is no value of scale 'positive'"),
        (1.5, {"scale": "difference"}, "1.5 is no value of scale 'difference'"),
    ],
)
def test_nonsense_is_refused(value, options, message):
    with pytest.raises(ValueError, match=message):
        intervals.interval(value, [Spread(0.1, 5)], groups=6, **options)
