import dataclasses
import json

import numpy as np
import pytest

from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import NO_IMAGE, Example
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.studies.retrieval import captions


def run(store, model, **options):
    options = {"resamples": 50, "progress": False} | options
    return studies.create("retrieval", **options).run({"images": store}, model)


def letters(text):
    """A direction for every text; texts of the same letters have the same."""
    return np.random.default_rng(list(text.casefold().encode())).normal(size=6)


@pytest.fixture
def captioned(make_store):
    texts = np.array(["A heart.", "a  HEART.", "A femur.", "A spine.", "A kidney.", "A femur."])
    features = np.stack([letters(text) for text in texts])
    features[3] = letters("A kidney.")  # one image is taken for another
    return make_store(
        features, caption=texts, patient_id=np.array(["p0", "p0", "p1", "p2", "p3", "p4"])
    )


def test_captions_that_mean_the_same_are_hits(captioned, lookup_model):
    model = lookup_model(letters)
    result = run(captioned, model)
    found = result.predictions
    # Another wording, in the same letters but for case and spaces, is the first and a hit.
    np.testing.assert_array_equal(found.extra["rank_image_to_text"][[0, 1, 2, 4, 5]], 1)
    assert found.extra["rank_image_to_text"][3] > 1
    assert found.prediction[3] == "image4"
    assert found.extra["nearest_caption"][3] == "A kidney."
    np.testing.assert_array_equal(found.prediction[[0, 1, 5]], found.label[[0, 1, 5]])
    # The caption of the kidney finds two images alike, and the wrong one counts before the right.
    assert found.extra["rank_text_to_image"][4] == 2
    assert result.metrics["image_to_text_recall_at_1"].value == pytest.approx(5 / 6)
    assert result.metrics["image_to_text_median_rank"].value == 1
    assert "image_to_text_recall_at_10" not in result.metrics  # of six, all would be hits
    assert len(model.texts) == 5  # each distinct caption once
    assert result.details["captions_of_the_data"] == 6
    assert (result.details["captions"], result.details["meanings"]) == (5, 4)
    chance = result.baselines["chance_image_to_text_recall_at_1"].estimate.value
    assert chance == pytest.approx((2 + 2 + 2 + 1 + 1 + 2) / 36)
    json.dumps(result.to_json(), allow_nan=False)


def test_made_captions_are_those_of_training_and_match_by_facts(make_store):
    store = make_store(
        np.ones((4, 2)),
        plane=np.array(["femur", "femur", "heart", ""]),
        ga_days=np.array([140.0, 140.0, np.nan, np.nan]),
        resized_spacing_mm=np.array([0.5, 0.501, np.nan, np.nan]),
        example_id=np.array(["a", "b", "c", "d"]),
    )
    texts, meanings, kept, left_out = captions(store, seed=3)
    assert left_out == {"nothing is known": 1}
    assert kept.columns["example_id"].tolist() == ["a", "b", "c"]
    again, _, _, _ = captions(store, seed=3)
    other, _, _, _ = captions(store, seed=4)
    np.testing.assert_array_equal(texts, again)
    assert (texts != other).any()
    assert meanings[2] not in meanings[:2]
    drawn = [captions(store, seed)[:2] for seed in range(20)]
    pairs = {(one[0] == one[1], found[0] == found[1]) for one, found in drawn}
    assert (False, True) in pairs  # two wordings, one meaning
    assert (False, False) in pairs  # one of them leaves the age or the spacing unsaid


def test_a_collapsed_model_is_worse_than_chance(captioned, lookup_model):
    flat = dataclasses.replace(captioned, image_features=np.ones((6, 6), np.float32))
    result = run(flat, lookup_model(lambda text: np.ones(6)))
    assert result.metrics["image_to_text_recall_at_1"].value == 0
    assert result.metrics["text_to_image_recall_at_5"].value == pytest.approx(4 / 6)


def test_knowing_the_plane_alone_is_a_baseline(make_store, lookup_model):
    names = np.array(["heart one", "heart two", "femur one", "femur two"])
    store = make_store(
        np.stack([letters(name) for name in names]),
        caption=names,
        plane=np.array(["heart", "heart", "femur", "femur"]),
    )
    baselines = run(store, lookup_model(letters)).baselines
    assert baselines["plane_image_to_text_recall_at_1"].estimate.value == pytest.approx(0.5)
    assert baselines["chance_image_to_text_recall_at_1"].estimate.value == pytest.approx(0.25)
    assert baselines["plane_image_to_text_median_rank"].estimate.value == 1


def test_texts_of_like_length_are_encoded_together_and_come_back_in_order(make_store):
    texts = np.array([f"{'long ' * (i % 5)}text {i}" for i in range(40)])

    class Model:
        fingerprint = "m"

        def tokenize(self, given):
            tokens = np.zeros((len(given), 8), np.int32)
            for row, text in zip(tokens, given, strict=True):
                row[len(text.split())] = 99
                row[0] = int(text.split()[-1])
            return tokens

        def encode_text(self, tokens):
            lengths = tokens[:, 1:].argmax(1)
            assert np.ptp(lengths) <= 1
            return np.eye(40, dtype=np.float32)[tokens[:, 0]]

    store = make_store(np.eye(40), caption=texts)
    result = run(store, Model(), batch_size=4)
    assert result.metrics["image_to_text_recall_at_1"].value == 1


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, "none of 3 images has a caption, or a plane, an age"),
        (
            {"caption": ["Heart", "heart", "HEART "]},
            "of all 3 images mean the same, such as 'Heart'",
        ),
        ({"caption": ["Heart", "", ""]}, "of all 1 images mean the same"),
    ],
)
def test_nothing_to_tell_apart_is_refused(make_store, lookup_model, known, message):
    with pytest.raises(ValueError, match=message):
        run(make_store(np.ones((3, 6)), **known), lookup_model(letters))


def test_features_of_another_model_or_of_a_broken_text_tower_are_refused(captioned, lookup_model):
    with pytest.raises(ValueError, match=r"the text features of the prompts: .* not finite"):
        run(captioned, lookup_model(lambda text: np.full(6, np.nan)))
    model = lookup_model(letters)
    model.fingerprint = "other"
    with pytest.raises(ValueError, match="was encoded by model 'm', not by 'other'"):
        run(captioned, model)


def test_captions_become_a_column_but_no_group():
    def example(number, caption):
        return Example(f"e{number}", NO_IMAGE, caption=caption, extra={"machine": "A"})

    known = columns([(example(0, "One"), None), (example(1, None), 0.5)])
    assert known["caption"].tolist() == ["One", ""]
    assert "caption" not in columns([(example(0, None), None)])  # data without: tables as before


def test_captions_are_no_groups(make_store):
    store = make_store(
        np.ones((6, 2)), caption=np.repeat("The same.", 6), machine=np.repeat("A", 6)
    )
    assert list(group_columns(store)) == ["machine"]
