import re

import numpy as np
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation import gestational_age

DAYS = gestational_age.DAYS


def test_the_candidates_are_175_days():
    assert (len(DAYS), DAYS[0], DAYS[-1]) == (175, 14 * 7, 38 * 7 + 6)


class TestDaysFromSimilarity:
    def test_middle_of_the_best_days_not_the_best_day(self):
        scores = np.zeros((1, 175), np.float32)
        # Best days 98..104 and 200..207: the eighth of fifteen in order of day is 200.
        scores[0, :7] = 2
        scores[0, 102:110] = 1
        assert gestational_age.days_from_similarity(scores).tolist() == [200]

    def test_even_count_takes_the_upper_middle(self):
        scores = np.zeros((1, 175))
        scores[0, [10, 20, 30, 40]] = [4, 3, 2, 1]
        assert gestational_age.days_from_similarity(scores, top_n=4).tolist() == [98 + 30]
        assert gestational_age.days_from_similarity(scores, top_n=1).tolist() == [98 + 10]

    def test_ties_go_to_the_earlier_day(self):
        # All equal: the first fifteen days, of which index 7 is the middle.
        scores = np.ones((2, 175), np.float32)
        scores[1, 174] = 2  # and one better day at the end: 0..13 and 174
        assert gestational_age.days_from_similarity(scores).tolist() == [105, 105]
        scores[1, 160:174] = 1.5
        assert gestational_age.days_from_similarity(scores)[1] == 98 + 167

    def test_double_precision_differences_are_not_ties(self):
        scores = np.ones((1, 175))
        scores[0, 100:115] += 1e-12
        assert gestational_age.days_from_similarity(scores).tolist() == [98 + 107]

    @pytest.mark.parametrize(
        ("scores", "top_n", "message"),
        [
            (np.zeros((2, 174)), 15, r"shape \[n, 175\], found \(2, 174\)"),
            (np.zeros(175), 15, r"found \(175,\)"),
            (np.zeros((1, 175)), 176, "top_n must lie between 1 and 175, found 176"),
            (np.full((1, 175), np.nan), 15, "hold nan"),
        ],
    )
    def test_refuses(self, scores, top_n, message):
        with pytest.raises(ValueError, match=message):
            gestational_age.days_from_similarity(scores, top_n)


class TestValidPredictionRate:
    def test_counts_at_the_edges_of_band_and_range(self):
        low, high = who_chart.hc_mm(20, 2.5), who_chart.hc_mm(20, 97.5)
        hc = np.array([low, high, low - 0.01, high + 0.01, 99.99, 342.01, np.nan])
        found = gestational_age.valid_prediction_rate(np.full(7, 140), hc)
        assert (found.count, found.total, found.rate) == (2, 4, 0.5)
        assert found.interval[0] < 0.5 < found.interval[1]

    def test_range_includes_its_ends(self):
        found = gestational_age.valid_prediction_rate(np.array([98, 280]), np.array([100.0, 342.0]))
        assert found.total == 2

    def test_refuses(self):
        with pytest.raises(ValueError, match="one age per head"):
            gestational_age.valid_prediction_rate(np.array([140]), np.array([170.0, 180.0]))
        with pytest.raises(ValueError, match="no head circumference"):
            gestational_age.valid_prediction_rate(np.array([140]), np.array([50.0]))


def test_best_constant_is_the_best_of_all_days():
    hc = np.random.default_rng(0).normal(180, 40, 300)
    best = gestational_age.best_constant_days(hc)
    valid = [who_chart.is_valid(np.full(300, day), hc).sum() for day in DAYS]
    assert best == DAYS[int(np.argmax(valid))]


def embed(text):
    """Days lie on an arc in two dimensions; spacings on an axis of their own."""
    weeks, days = re.search(r"(\d+) weeks? (?:and )?(\d+) days?", text).groups()
    spacing = float(re.search(r"(\d+\.\d\d)", text).group(1))
    angle = (int(weeks) * 7 + int(days) - 98) / 174 * 2
    return np.array([np.cos(angle), np.sin(angle), spacing]) * 7


@pytest.fixture
def brain_store(make_store):
    ages = np.array([120, 150, 180, 210, 240, 140, 141])
    angles = (ages - 98) / 174 * 2
    features = np.stack([np.cos(angles), np.sin(angles), np.zeros(7)], 1)
    return make_store(
        features,
        plane=["brain"] * 6 + ["femur"],
        patient_id=list("aabbccc"),
        hc_mm=who_chart.hc_mm(ages / 7) + np.array([0, 0, 0, 0, -80, 0, 0]),
        ga_days=[120.0, 150, 180, 213, np.nan, 140, 141],
        resized_spacing_mm=[0.5, 0.501, 0.499, 0.25, 0.25, np.nan, 0.5],
    )


def test_evaluation_end_to_end(brain_store, lookup_model):
    model = lookup_model(embed)
    train_hc = who_chart.hc_mm(np.full(9, 150) / 7)
    result = gestational_age.evaluate(
        brain_store, model, train_hc, np.array([150.0, 152, np.nan, 160]), progress=False
    )
    # The femur is not judged, nor the brain without spacing; 0.499 to 0.501 print alike.
    assert result["count"] == 5
    assert result["distinct_spacings"] == 2
    assert result["left_out"] == {
        "without_hc_mm": 0,
        "hc_mm_out_of_range": 0,
        "without_spacing": 1,
    }
    assert len(model.texts) == 2 * 175 * 5
    assert len(set(model.calls)) == 1  # one compiled shape
    assert [row["prediction"] for row in result["predictions"]] == [120, 150, 180, 210, 240]
    assert [row["valid"] for row in result["predictions"]] == [True, True, True, True, False]
    assert result["valid_prediction_rate"] == 0.8
    assert result["mae_days"] == pytest.approx(3 / 4)
    # Ages 120, 150, 180, 213 about their median 165.
    assert result["mae_constant_days"] == pytest.approx((45 + 15 + 15 + 48) / 4)
    expected_error = 80 / (who_chart.hc_mm(240 / 7) - 80) * 100 / 5
    assert result["mean_implied_hc_error_percent"] == pytest.approx(expected_error)
    assert result["median_implied_hc_error_percent"] == pytest.approx(0, abs=1e-9)
    assert result["train_median_days"] == 152
    assert who_chart.is_valid(result["train_constant_days"], train_hc[0])
    assert result["train_constant_baseline"] <= result["constant_baseline"]
    low, high = result["valid_prediction_rate_interval"]
    assert low <= 0.8 <= high


def test_similarity_is_the_mean_cosine_over_templates(brain_store, lookup_model):
    rng = np.random.default_rng(0)
    table = {}
    model = lookup_model(lambda text: table.setdefault(text, rng.normal(size=3)))
    store = brain_store.select([3])
    found = gestational_age.similarity(store, model, progress=False)
    texts = np.stack([table[text] for text in model.texts]).reshape(5, 175, 3)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    expected = 100 * (texts @ store.image_features[0]).mean(0)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_without_baselines_or_ages(brain_store, lookup_model):
    store = brain_store.select([4])  # an age that nobody knows
    result = gestational_age.evaluate(store, lookup_model(embed), progress=False)
    assert result["train_constant_baseline"] is None
    assert result["train_median_days"] is None
    assert result["mae_days"] is None


def test_refuses_what_cannot_be_judged(brain_store, lookup_model):
    with pytest.raises(ValueError, match=r"of 1 images 0 show the brain"):
        gestational_age.evaluate(brain_store.select([6]), lookup_model(embed))
    model = lookup_model(embed)
    model.fingerprint = "another"
    with pytest.raises(ValueError, match="encoded by model 'm', not by 'another'"):
        gestational_age.evaluate(brain_store, model)
