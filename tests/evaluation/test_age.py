import numpy as np
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation import age

DAYS = age.DAYS


def test_the_candidates_are_175_days():
    assert (len(DAYS), DAYS[0], DAYS[-1]) == (175, 14 * 7, 38 * 7 + 6)


class TestDaysFromSimilarity:
    def test_middle_of_the_best_days_not_the_best_day(self):
        scores = np.zeros((1, 175), np.float32)
        # Best days 98..104 and 200..207: the eighth of fifteen in order of day is 200.
        scores[0, :7] = 2
        scores[0, 102:110] = 1
        assert age.days_from_similarity(scores).tolist() == [200]

    def test_even_count_takes_the_upper_middle(self):
        scores = np.zeros((1, 175))
        scores[0, [10, 20, 30, 40]] = [4, 3, 2, 1]
        assert age.days_from_similarity(scores, top_n=4).tolist() == [98 + 30]
        assert age.days_from_similarity(scores, top_n=1).tolist() == [98 + 10]

    def test_ties_go_to_the_earlier_day(self):
        # All equal: the first fifteen days, of which index 7 is the middle.
        scores = np.ones((2, 175), np.float32)
        scores[1, 174] = 2  # and one better day at the end: 0..13 and 174
        assert age.days_from_similarity(scores).tolist() == [105, 105]
        scores[1, 160:174] = 1.5
        assert age.days_from_similarity(scores)[1] == 98 + 167

    def test_double_precision_differences_are_not_ties(self):
        scores = np.ones((1, 175))
        scores[0, 100:115] += 1e-12
        assert age.days_from_similarity(scores).tolist() == [98 + 107]

    @pytest.mark.parametrize(
        ("scores", "top_n", "message"),
        [
            (np.zeros((2, 174)), 15, r"shape \[n, 175\], found \(2, 174\)"),
            (np.zeros(175), 15, r"found \(175,\)"),
            (np.zeros((1, 175)), 176, "top_n must lie between 1 and 175, found 176"),
            (np.full((1, 175), np.nan), 15, "scores: 1 of 1 are not finite"),
        ],
    )
    def test_refuses(self, scores, top_n, message):
        with pytest.raises(ValueError, match=message):
            age.days_from_similarity(scores, top_n)


class TestValidPredictionRate:
    def test_counts_at_the_edges_of_band_and_range(self):
        low, high = who_chart.hc_mm(20.0, 2.5), who_chart.hc_mm(20.0, 97.5)
        hc = np.array([low, high, low - 0.01, high + 0.01, 99.99, 342.01, np.nan])
        found = age.valid_prediction_rate(np.full(7, 140), hc)
        assert (found.count, found.total, found.rate) == (2, 4, 0.5)
        assert found.interval[0] < 0.5 < found.interval[1]

    def test_unpacks_and_resamples_patients(self):
        hc = np.full(4, who_chart.hc_mm(20.0))
        days = np.array([140, 140, 250, 250])
        rate, count, total, (low, high) = age.valid_prediction_rate(
            days, hc, np.array(list("aabb"))
        )
        assert (rate, count, total) == (0.5, 2, 4)
        assert low < 1e-6 < 1 - 1e-6 < high  # of two patients nothing is known
        assert age.valid_prediction_rate(days, hc, np.array(list("aaaa"))).interval == (None, None)

    def test_range_includes_its_ends(self):
        found = age.valid_prediction_rate(np.array([98, 280]), np.array([100.0, 342.0]))
        assert found.total == 2

    def test_refuses(self):
        with pytest.raises(ValueError, match="one age per head"):
            age.valid_prediction_rate(np.array([140]), np.array([170.0, 180.0]))
        with pytest.raises(ValueError, match="days: 1 of 1 are not finite"):
            age.valid_prediction_rate(np.array([np.nan]), np.array([170.0]))
        with pytest.raises(ValueError, match="no head circumference"):
            age.valid_prediction_rate(np.array([140]), np.array([50.0]))


def test_best_constant_is_the_best_of_all_days():
    hc = np.random.default_rng(0).normal(180, 40, 300)
    best = age.best_constant_days(hc)
    valid = [who_chart.is_valid(np.full(300, day), hc).sum() for day in DAYS]
    assert best == DAYS[int(np.argmax(valid))]
