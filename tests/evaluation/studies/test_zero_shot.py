import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.studies import zero_shot
from fetalclip_jax.labels import BRAIN_PLANES, PLANES

FIVE = ("abdomen", "brain", "femur", "heart", "cervix")


@pytest.fixture
def write(tmp_path):
    def write(prompts):
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(prompts))
        return path

    return write


@pytest.fixture
def axes_model(lookup_model):
    """Every prompt "class: ..." points along that class's own axis."""

    def make(names):
        names = list(names)
        return lookup_model(lambda text: np.eye(len(names))[names.index(text.split(":")[0])])

    return make


def prompts_of(names):
    return {name: [f"{name}: {i}" for i in range(5)] for name in names}


def test_a_class_is_the_direction_of_the_mean_of_its_unit_prompts(lookup_model):
    vectors = {"a1": [10.0, 0], "a2": [0, 1.0], "b1": [0, 3.0]}
    model = lookup_model(lambda text: np.array(vectors[text]))
    classes = zero_shot.embed_classes(model, {"a": ["a1", "a2"], "b": ["b1"]})
    root = 1 / np.sqrt(2)  # a long prompt counts no more than a short one
    np.testing.assert_allclose(classes, [[root, root], [0, 1]], rtol=1e-6)
    images = np.array([[2.0, 0], [0, 0.5]], np.float32)
    found = np.asarray(zero_shot.similarity(images, classes))
    np.testing.assert_allclose(found, [[100 * root, 0], [100 * root, 100]], rtol=1e-6)


def planes_store(make_store, **columns):
    shown = ["abdomen", "brain", "femur", "heart", "cervix", "kidney", "", "other"]
    looks_like = ["abdomen", "spine", "femur", "heart", "cervix", "kidney", "brain", "brain"]
    features = np.eye(9)[[PLANES.index(name) for name in looks_like]]
    features[1, PLANES.index("brain")] = 0.5  # second best
    return make_store(features, plane=shown, patient_id=list("aabbcddd"), **columns)


def test_planes_with_distractors(make_store, axes_model, write):
    study = studies.create("zero_shot.planes", prompts=write(prompts_of(PLANES)))
    result = study.run({"images": planes_store(make_store)}, axes_model(PLANES))
    metrics, details = result.metrics, result.details
    # Kidney competes, but FETAL_PLANES_DB does not label it: five images are judged.
    assert (details["count"], details["patients"]) == (5, 3)
    assert details["left_out"] == {"kidney": 1, "no label": 1, "other": 1}
    assert next(iter(metrics)) == "macro_f1"
    assert metrics["macro_f1"].value == pytest.approx(0.8)
    assert metrics["macro_f1"].low < 0.8 <= metrics["macro_f1"].high
    assert (metrics["macro_f1"].n, metrics["macro_f1"].groups) == (5, 3)
    assert metrics["accuracy"].value == metrics["balanced_accuracy"].value == 0.8
    assert metrics["top2_accuracy"].value == metrics["balanced_top2_accuracy"].value == 1
    assert details["per_class_f1"] == {name: float(name != "brain") for name in FIVE}
    assert details["classes"] == list(PLANES)
    assert details["labels"] == list(FIVE)
    confusion = np.array(details["confusion"])
    assert confusion.shape == (5, 9)
    assert confusion[1, PLANES.index("spine")] == 1
    assert confusion.sum() == 5
    assert result.baselines["chance_macro_f1"].estimate.value == pytest.approx(0.142, abs=0.03)
    wrong = result.predictions.rows()[1]
    assert (wrong["label"], wrong["prediction"], wrong["top2"]) == ("brain", "spine", "brain")
    assert wrong["score1"] == pytest.approx(100 / np.sqrt(1.25), abs=1e-3)
    assert result.predictions.scores.shape == (5, 9)
    json.dumps(result.to_json(), allow_nan=False)


def test_accuracy_counts_images_and_balanced_accuracy_classes(make_store, axes_model, write):
    shown = ["brain"] * 8 + ["femur"] * 2
    seen = ["brain"] * 8 + ["femur", "brain"]
    store = make_store(np.eye(9)[[PLANES.index(name) for name in seen]], plane=shown)
    study = studies.create("zero_shot.planes", prompts=write(prompts_of(PLANES)))
    found = study.run({"images": store}, axes_model(PLANES)).metrics
    assert found["accuracy"].value == pytest.approx(0.9)
    assert found["balanced_accuracy"].value == pytest.approx(0.75)


def test_the_classes_of_the_file_compete_however_many(make_store, axes_model, write):
    ten = (*PLANES, "other")
    store = planes_store(make_store)
    features = np.concatenate([store.image_features, np.zeros((8, 1), np.float32)], axis=1)
    features[7] = np.eye(10)[9]
    store = make_store(features, plane=store.columns["plane"])
    found = studies.create("zero_shot.planes", prompts=write(prompts_of(ten))).run(
        {"images": store}, axes_model(ten)
    )
    assert found.details["classes"] == list(ten)
    assert found.details["per_class_f1"]["other"] == 1
    assert found.details["count"] == 6
    five = studies.create("zero_shot.planes", prompts=write(prompts_of(FIVE)))
    store = make_store(np.eye(5), plane=FIVE)
    assert five.run({"images": store}, axes_model(FIVE)).metrics["macro_f1"].value == 1


def test_a_column_and_prompts_of_ones_own(make_store, axes_model, write):
    prompts = prompts_of(["calm", "moving", "unheard of"])
    study = studies.create("zero_shot.label", prompts=write(prompts), top_k=[2])
    assert study.needs[0].columns == ("label",)
    store = make_store(np.eye(3)[[0, 1, 2, 0]], label=["calm", "moving", "calm", "strange"])
    result = study.run({"images": store}, axes_model(prompts))
    assert result.study == "zero_shot.label"
    assert result.details["labels"] == ["calm", "moving"]
    assert result.details["confusion"] == [[1, 0, 1], [0, 1, 0]]
    assert result.details["left_out"] == {"strange": 1}
    assert "top3_accuracy" not in result.metrics


def test_shipped_brain_planes(make_store, lookup_model):
    study = studies.create("zero_shot.brain")
    texts = {text: i for i, name in enumerate(BRAIN_PLANES) for text in study.prompts[name]}
    model = lookup_model(lambda text: np.eye(3)[texts[text]])
    store = make_store(np.eye(3)[[0, 1, 2, 2]], brain_plane=[*BRAIN_PLANES, ""])
    result = study.run({"images": store}, model)
    assert (result.details["count"], result.metrics["macro_f1"].value) == (3, 1)
    assert result.details["classes"] == list(BRAIN_PLANES)


def test_official_prompts_keep_their_order(shared_reference):
    study = studies.create(
        "zero_shot.planes", prompts=shared_reference / "five_planes_prompts.json"
    )
    assert tuple(study.prompts) == PLANES


def test_augmented_copies_are_not_judged(make_store, axes_model, write):
    study = studies.create("zero_shot.planes", prompts=write(prompts_of(PLANES)))
    store = make_store(np.eye(9)[[0, 1, 1]], copy=[0, 1, 0], plane=["abdomen", "brain", "brain"])
    assert study.run({"images": store}, axes_model(PLANES)).details["count"] == 2


def test_interval_by_patient_is_wider(make_store, axes_model, write):
    rng = np.random.default_rng(0)
    shown = np.repeat(rng.integers(0, 2, 40), 8)
    seen = np.where(np.repeat(rng.random(40) < 0.3, 8), 1 - shown, shown)
    store = make_store(
        np.eye(9)[seen],
        plane=np.array(PLANES)[shown],
        patient_id=np.repeat(np.arange(40), 8).astype(str),
    )
    path, widths = write(prompts_of(PLANES)), []
    for unit in ("patient", "image"):
        study = studies.create("zero_shot.planes", prompts=path, resample_by=unit)
        found = study.run({"images": store}, axes_model(PLANES)).metrics["macro_f1"]
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1]


def test_one_patient_has_no_interval(make_store, axes_model, write):
    store = make_store(np.eye(9)[:2], plane=["abdomen", "brain"], patient_id=["p", "p"])
    study = studies.create("zero_shot.planes", prompts=write(prompts_of(PLANES)))
    for found in study.run({"images": store}, axes_model(PLANES)).metrics.values():
        assert (found.value, found.low, found.high) == (1, None, None)


class _CutModel:
    """Reads the first four letters of a text."""

    fingerprint = "m"

    def tokenize(self, texts):
        return np.array([[ord(c) for c in text[:4].ljust(4)] for text in texts], np.int32)

    def encode_text(self, tokens):
        return tokens.astype(np.float32)


def test_prompts_that_differ_behind_the_context_are_refused():
    prompts = {"heart": ["the heart", "a heart"], "spine": ["the spine", "a spine"]}
    assert len(zero_shot.embed_classes(_CutModel(), prompts)) == 2  # "a he" is not "a sp"
    prompts = {"heart": ["the heart"], "brain": ["a brain"], "spine": ["the spine"]}
    with pytest.raises(ValueError, match="'heart' and 'spine' are the same within the 4 tokens"):
        zero_shot.embed_classes(_CutModel(), prompts)


def test_refuses(make_store, axes_model, write):
    study = studies.create("zero_shot.planes", prompts=write(prompts_of(PLANES)))
    model = axes_model(PLANES)
    store = make_store(np.eye(9)[:2], brain_plane=["", ""], plane=["other", "kidney"])
    with pytest.raises(ValueError, match=r"none of 2 images has one \(found kidney, other\)"):
        study.run({"images": store}, model)
    broken = make_store([[1.0] * 9] * 3, plane=["brain"] * 3)
    broken.image_features[1:] = [[np.nan] * 9, [np.inf] * 9]
    with pytest.raises(ValueError, match=r"of 2 of 3 images are nan or infinite.* of image1"):
        study.run({"images": broken}, model)
    nothing = axes_model(PLANES)
    nothing.embed = lambda text: np.full(9, np.nan)
    with pytest.raises(ValueError, match="text features of the prompts: 45 of 45 are not finite"):
        study.run({"images": planes_store(make_store)}, nothing)
    model.fingerprint = "another"
    with pytest.raises(ValueError, match="encode the data set again"):
        study.run({"images": store}, model)
    machine = studies.create("zero_shot.machine", prompts=write(prompts_of("ab")))
    with pytest.raises(ValueError, match=r"no column 'machine'; it has .*plane"):
        machine.run({"images": store}, axes_model("ab"))
