import json
import re

import numpy as np
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.studies import age


def embed(text):
    """Days lie on an arc in two dimensions; spacings on an axis of their own."""
    weeks, days = re.search(r"(\d+) weeks? (?:and )?(\d+) days?", text).groups()
    spacing = float(re.search(r"(\d+\.\d\d)", text).group(1))
    angle = (int(weeks) * 7 + int(days) - 98) / 174 * 2
    return np.array([np.cos(angle), np.sin(angle), spacing]) * 7


@pytest.fixture
def train_store(make_store):
    def make(hc_mm, ga_days):
        return make_store(np.zeros((len(hc_mm), 0)), hc_mm=hc_mm, ga_days=ga_days)

    return make


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


def run(store, model, train=None, **options):
    stores = {"images": store} | ({} if train is None else {"train": train})
    return studies.create("age", progress=False, resamples=200, **options).run(stores, model)


def test_evaluation_end_to_end(brain_store, lookup_model, train_store):
    model = lookup_model(embed)
    train_hc = who_chart.hc_mm(np.full(4, 150) / 7)
    train = train_store(train_hc, np.array([150.0, 152, np.nan, 160]))
    result = run(brain_store, model, train)
    metrics, details, baselines = result.metrics, result.details, result.baselines
    # The femur is not judged, nor the brain without spacing; 0.499 to 0.501 print alike.
    assert (details["count"], details["valid_count"], details["distinct_spacings"]) == (5, 4, 2)
    assert details["left_out"] == {
        "without_hc_mm": 0,
        "hc_mm_out_of_range": 0,
        "without_spacing": 1,
    }
    assert len(model.texts) == 2 * 175 * 5
    assert len(set(model.calls)) == 1
    predictions = result.predictions
    assert predictions.prediction.tolist() == [120, 150, 180, 210, 240]
    assert predictions.label.tolist() == ["120", "150", "180", "213", ""]
    assert predictions.extra["valid"].tolist() == [True, True, True, True, False]
    assert predictions.scores.shape == (5, 175)
    assert metrics["valid_prediction_rate"].value == 0.8
    assert metrics["valid_prediction_rate"].low <= 0.8 <= metrics["valid_prediction_rate"].high
    assert metrics["mae_days"].value == pytest.approx(3 / 4)
    assert metrics["mae_days"].n == details["ages_known"] == 4
    # Ages 120, 150, 180, 213 about their median 165.
    constant = result.baselines["mae_constant_days"]
    assert constant.metric == "mae_days"
    assert constant.estimate.value == pytest.approx((45 + 15 + 15 + 48) / 4)
    expected_error = 80 / (who_chart.hc_mm(240 / 7) - 80) * 100 / 5
    assert metrics["mean_implied_hc_error_percent"].value == pytest.approx(expected_error)
    assert metrics["median_implied_hc_error_percent"].value == pytest.approx(0, abs=1e-9)
    assert details["train_median_days"] == 152
    assert who_chart.is_valid(np.array([details["train_constant_days"]]), train_hc[:1]).all()
    best, chosen = (
        baselines[name].estimate.value for name in ("constant_baseline", "train_constant_baseline")
    )
    assert chosen <= best < 0.8
    json.dumps(result.to_json(), allow_nan=False)


def test_similarity_is_the_mean_cosine_over_templates(brain_store, lookup_model):
    rng = np.random.default_rng(0)
    table = {}
    model = lookup_model(lambda text: table.setdefault(text, rng.normal(size=3)))
    store = brain_store.select(np.array([3]))
    found = age.similarity(store, model, progress=False)
    texts = np.stack([table[text] for text in model.texts]).reshape(5, 175, 3)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    expected = 100 * (texts @ store.image_features[0]).mean(0)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_templates_of_a_file_are_what_the_model_reads(brain_store, lookup_model, tmp_path):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps(["A head of {weeks} weeks and {days} days, {pixel_spacing} mm."]))
    model = lookup_model(embed)
    result = run(brain_store, model, templates=path)
    assert len(model.texts) == 2 * 175
    assert model.texts[0] == "A head of 14 weeks and 0 days, 0.25 mm."
    assert model.texts[1] == "A head of 14 weeks and 1 days, 0.25 mm."
    assert result.metrics["valid_prediction_rate"].value == 0.8
    assert result.protocol["templates"] == str(path)


def test_without_training_images_or_ages(brain_store, lookup_model):
    store = brain_store.select(np.array([4]))  # an age that nobody knows
    result = run(store, lookup_model(embed))
    assert result.details["train_constant_baseline"] is None
    assert result.details["train_median_days"] is None
    assert result.details["mae_days"] is None
    assert "train_constant_baseline" not in result.baselines
    assert "no training images" in result.details["notes"][0]
    assert result.metrics["valid_prediction_rate"].low is None  # one patient


def test_training_heads_that_are_all_too_small_are_said(brain_store, lookup_model, train_store):
    result = run(brain_store, lookup_model(embed), train_store([80.0, 90], [90.0, 95]))
    assert result.details["train_constant_days"] is None
    assert result.details["notes"] == [
        "no training image has a head circumference of 100 to 342 mm"
    ]
    assert result.details["train_median_days"] == 92


def test_templates_whose_age_is_cut_off_are_refused(brain_store, tmp_path):
    class CutModel:
        fingerprint = "m"

        def tokenize(self, texts):
            return np.array([[ord(c) for c in text[:12]] for text in texts], np.int32)

    path = tmp_path / "templates.txt"
    path.write_text("A head, {age}\n")  # 8 letters, then "14 w": days of a week are one text
    with pytest.raises(
        ValueError, match=r"within the 12 tokens .* 175 days are 25 different texts"
    ):
        run(brain_store, CutModel(), templates=path)


def test_refuses_what_cannot_be_judged(brain_store, lookup_model):
    with pytest.raises(ValueError, match=r"of 1 images 0 show the brain"):
        run(brain_store.select(np.array([6])), lookup_model(embed))
    brain_store.image_features[:] = np.nan
    with pytest.raises(ValueError, match="of 7 of 7 images are nan or infinite"):
        run(brain_store, lookup_model(embed))
    model = lookup_model(embed)
    model.fingerprint = "another"
    with pytest.raises(ValueError, match="encoded by model 'm', not by 'another'"):
        run(brain_store, model)
