import numpy as np
import pytest

from fetalclip_jax.evaluation import text_features, zero_shot
from fetalclip_jax.labels import PLANES

FIVE = ("abdomen", "brain", "femur", "heart", "cervix")


def test_classify_normalises_then_averages_then_normalises():
    prompts = np.array([[[10.0, 0], [0, 1]], [[0, 3], [0, 5]]], np.float32)
    images = np.array([[2.0, 0], [0, 0.5]], np.float32)
    scores = np.asarray(zero_shot.classify(images, prompts))
    root = 100 / np.sqrt(2)  # a long prompt counts no more than a short one
    np.testing.assert_allclose(scores, [[root, 0], [root, 100]], rtol=1e-6)


def test_padding_of_classes_with_fewer_prompts_does_not_count(lookup_model):
    vectors = {"a1": [1.0, 0], "a2": [0, 1.0], "b1": [0, 2.0]}
    model = lookup_model(lambda text: np.array(vectors[text]))
    features, exists = zero_shot.encode_prompts(
        model, {"b": ["b1"], "a": ["a1", "a2"], "unused": ["x"]}, ["a", "b"]
    )
    assert exists.tolist() == [[True, True], [True, False]]
    features[1, 1] = 1e3  # whatever stands in the padding
    scores = np.asarray(zero_shot.classify(np.array([[0.0, 1]], np.float32), features, exists))
    np.testing.assert_allclose(scores, [[100 / np.sqrt(2), 100]], rtol=1e-6)


def test_texts_are_encoded_in_batches_of_one_size(lookup_model):
    model = lookup_model(lambda text: np.array([float(text)]))
    found = text_features.encode_texts(model, [str(i) for i in range(10)], batch_size=4)
    assert found[:, 0].tolist() == list(range(10))
    assert model.calls == [4, 4, 4]
    with pytest.raises(ValueError, match="no text"):
        text_features.encode_texts(model, [])


@pytest.fixture
def plane_model(lookup_model):
    """Every prompt of a class points along that class's own axis."""
    return lookup_model(lambda text: np.eye(9)[PLANES.index(text.split(":")[0])])


PROMPTS = {name: [f"{name}: {i}" for i in range(5)] for name in PLANES}


def test_planes_with_distractors(make_store, plane_model):
    shown = ["abdomen", "brain", "femur", "heart", "cervix", "kidney", "", "other"]
    looks_like = ["abdomen", "spine", "femur", "heart", "cervix", "kidney", "brain", "brain"]
    features = np.eye(9)[[PLANES.index(name) for name in looks_like]]
    features[1, PLANES.index("brain")] = 0.5  # second best
    store = make_store(features, plane=shown, patient_id=list("aabbcddd"))
    result = zero_shot.evaluate(store, plane_model, PROMPTS)
    # Kidney is a candidate, but FETAL_PLANES_DB does not label it: five images are judged.
    assert (result["count"], result["patients"]) == (5, 3)
    assert result["accuracy"] == 0.8
    assert result["top2_accuracy"] == 1
    assert result["macro_f1"] == pytest.approx(0.8)
    assert result["per_class_f1"] == {name: float(name != "brain") for name in FIVE}
    assert result["classes"] == list(PLANES)
    assert result["labels"] == list(FIVE)
    confusion = np.array(result["confusion"])
    assert confusion.shape == (5, 9)
    assert confusion[1, PLANES.index("spine")] == 1
    assert confusion.sum() == 5
    low, high = result["macro_f1_interval"]
    assert low < 0.8 <= high
    wrong = result["predictions"][1]
    assert (wrong["label"], wrong["prediction"], wrong["top2"]) == ("brain", "spine", "brain")
    assert wrong["score1"] == pytest.approx(100 / np.sqrt(1.25), abs=1e-3)


def test_augmented_copies_are_not_judged(make_store, plane_model):
    store = make_store(np.eye(9)[[0, 1, 1]], copy=[0, 1, 0], plane=["abdomen", "brain", "brain"])
    assert zero_shot.evaluate(store, plane_model, PROMPTS)["count"] == 2


def test_interval_by_patient_is_wider(make_store, plane_model):
    rng = np.random.default_rng(0)
    shown = np.repeat(rng.integers(0, 2, 40), 8)
    seen = np.where(np.repeat(rng.random(40) < 0.3, 8), 1 - shown, shown)
    store = make_store(
        np.eye(9)[seen],
        plane=np.array(PLANES)[shown],
        patient_id=np.repeat(np.arange(40), 8).astype(str),
    )
    widths = []
    for unit in ("patient", "image"):
        result = zero_shot.evaluate(store, plane_model, PROMPTS, resample_by=unit)
        low, high = result["macro_f1_interval"]
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]


def test_brain_planes(make_store, lookup_model):
    names = ["trans-thalamic", "trans-cerebellum", "trans-ventricular"]
    model = lookup_model(lambda text: np.eye(3)[names.index(text)])
    store = make_store(np.eye(3)[[0, 1, 2, 2]], brain_plane=[*names, ""])
    result = zero_shot.evaluate(store, model, {name: [name] for name in names}, "brain")
    assert (result["count"], result["macro_f1"]) == (3, 1.0)
    assert result["classes"] == names


def test_refuses(make_store, plane_model):
    store = make_store(np.eye(9)[:1], plane=["abdomen"])
    with pytest.raises(ValueError, match=r"store has no brain_plane .*no value at all"):
        zero_shot.evaluate(store, plane_model, PROMPTS, "brain")
    with pytest.raises(ValueError, match=r"no prompt for \['spine'\]"):
        zero_shot.evaluate(store, plane_model, PROMPTS | {"spine": []})
    with pytest.raises(ValueError, match="task 'plane' is unknown"):
        zero_shot.evaluate(store, plane_model, PROMPTS, "plane")
    with pytest.raises(ValueError, match="'patient' or 'image', found 'fold'"):
        zero_shot.evaluate(store, plane_model, PROMPTS, resample_by="fold")
    plane_model.fingerprint = "another"
    with pytest.raises(ValueError, match="encode the data set again"):
        zero_shot.evaluate(store, plane_model, PROMPTS)
