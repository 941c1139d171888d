import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import studies

NAMES = ("nearest_centroid.planes", "knn.planes")


@pytest.fixture(scope="module")
def pool(make_classes):
    return make_classes(20, prefix="pool", copies=1, distance=12)


@pytest.fixture(scope="module")
def held_out(make_classes):
    return make_classes(15, prefix="test", distance=12, seed=1)


def run(name, fit, test, model, **options):
    study = studies.create(name, **{"resamples": 50} | options)
    return study.run({"fit": fit, "test": test}, model)


@pytest.mark.parametrize("name", NAMES)
def test_separable_planes_are_told_apart(pool, held_out, model, name):
    result = run(name, pool, held_out, model)
    assert next(iter(result.metrics)) == "macro_f1"
    assert result.metrics["macro_f1"].value == result.metrics["top2_accuracy"].value == 1
    assert result.metrics["standard_planes_macro_f1"].n == 75  # without the 15 "other"
    assert result.baselines["raw_pixels_macro_f1"].estimate.value == 1  # thumbnails tell too
    assert 0.1 < result.baselines["chance_macro_f1"].estimate.value < 0.2
    # Of a store with augmented copies, the clean images alone.
    assert (result.details["train_images"], result.details["train_patients"]) == (120, 20)
    np.testing.assert_array_equal(result.details["confusion"], np.eye(6) * 15)
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_labels_are_not_learnt(make_classes, held_out, model, name):
    result = run(name, make_classes(20, prefix="pool", shuffle_labels=True), held_out, model)
    chance = result.baselines["chance_macro_f1"].estimate.value
    assert result.metrics["macro_f1"].value < chance + 0.15


def test_held_out_patients_choose_the_neighbours(make_classes, held_out, model):
    fit = make_classes(20, prefix="pool", distance=1.5)
    result = run("knn.planes", fit, held_out, model, ks=(1, 30))
    scores = result.details["macro_f1_of_held_out_patients"]
    assert result.details["neighbours"] == 30
    assert scores["30"] > scores["1"]
    fixed = run("knn.planes", fit, held_out, model, ks=(1,))
    assert fixed.details["neighbours"] == 1
    assert "macro_f1_of_held_out_patients" not in fixed.details
    assert fixed.metrics["macro_f1"].value < result.metrics["macro_f1"].value


def test_numbers_of_neighbours_beyond_the_images_are_not_tried(make_classes, held_out, model):
    few = make_classes(3, prefix="few", distance=12)
    result = run("knn.planes", few, held_out, model, folds=3)
    assert list(result.details["macro_f1_of_held_out_patients"]) == ["1", "3", "5", "10"]
    with pytest.raises(ValueError, match="k=19 neighbours cannot be found among 18 images"):
        run("knn.planes", few, held_out, model, ks=(19,))
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of patients"):
        run("knn.planes", few, held_out, model, folds=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_nobody_to_learn_from_shows_is_said_and_never_answered(
    pool, held_out, model, name
):
    without = pool.select(pool.columns["plane"] != "femur")
    result = run(name, without, held_out, model)
    assert result.details["notes"] == ["no image to learn from, so never answered: femur"]
    assert "femur" not in result.predictions.prediction
    assert result.details["per_class_recall"]["femur"] == 0


def test_lengths_matter_to_unscaled_centroids_alone(make_store, model):
    fit = make_store(
        [[1.0, 0], [10, 0]], plane=np.array(["femur", "brain"]), patient_id=np.array(["a", "b"])
    )
    test = make_store([[9.0, 0]], plane=np.array(["brain"]), patient_id=np.array(["c"]),
                      example_id=np.array(["new"]))  # fmt: skip
    free = run("nearest_centroid.planes", fit, test, model, feature_scaling="none")
    assert free.predictions.prediction.tolist() == ["brain"]
    assert "feature_scaling" not in run("knn.planes", fit, test, model, ks=(1,)).protocol


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("knn.planes", {"ks": ()}, "must be numbers from 1"),
        ("knn.planes", {"temperature": -1.0}, "temperature=-1 at least 0"),
        ("knn.planes", {"feature_scaling": "unit"}, "has no option 'feature_scaling'"),
        ("nearest_centroid.planes", {"feature_scaling": "big"}, "is not one of none, unit"),
        ("nearest_centroid.planes", {"transform": "raw"}, "transform='raw' is not one of"),
        ("knn.brain", {"top_k": (1,)}, "must be at least 2"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        studies.create(name, **options)
