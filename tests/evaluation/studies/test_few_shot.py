import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.statistics import splits
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread, interval

QUICK = {"penalties": (1e-2, 1e-3), "resamples": 100}
SIX = "classification_six_fetal_planes"


@pytest.fixture(scope="module")
def pool(make_classes):
    return make_classes(20, prefix="pool", distance=4)


@pytest.fixture(scope="module")
def held_out(make_classes):
    return make_classes(15, prefix="test", distance=4, seed=1)


def run(pool, held_out, model, **options):
    study = studies.create("few_shot.planes", progress=False, **(QUICK | options))
    return study.run({"fit": pool, "test": held_out}, model)


def test_more_patients_are_better(make_classes, model):
    pool = make_classes(40, prefix="pool", copies=1, distance=2)
    held_out = make_classes(30, prefix="test", distance=2, seed=1)
    result = run(pool, held_out, model, sizes=(16, 1), support_sets=3)
    first, last = result.curve
    assert (first["patients"], last["patients"]) == (1, 16)
    assert last["mean"] > first["mean"] + 0.1
    for point in result.curve:
        assert len(point["runs"]) == point["support_sets"] == 3
        assert point["mean"] == pytest.approx(np.mean(point["runs"]))
        assert point["deviation"] == pytest.approx(np.std(point["runs"], ddof=1))
        assert point["low"] < point["mean"] < point["high"]
    assert last["train_images"] == 16 * 6
    headline = result.metrics["macro_f1"]
    assert (headline.value, headline.low, headline.high) == (
        last["mean"], last["low"], last["high"],
    )  # fmt: skip
    assert (headline.n, headline.groups) == (180, 30)
    assert result.details["macro_f1_patients"] == 16
    assert set(result.predictions.extra) == {"prediction_1", "prediction_16"}
    assert (result.predictions.extra["prediction_16"] == result.predictions.prediction).all()
    json.dumps(result.to_json(), allow_nan=False)


def test_adamw_runs_every_support_set_with_several_seeds(pool, held_out, model):
    options = {"solver": "adamw", "learning_rates": (0.02,), "batch_size": 16, "epochs": 5,
               "feature_scaling": "standardise", "runs": 2, "support_sets": 3}  # fmt: skip

    def curve(sizes):
        study = studies.create("few_shot.planes", progress=False, sizes=sizes, **options)
        return study.run({"fit": pool, "test": held_out}, model).curve

    alone, together = curve((2,)), curve((2, 8))
    assert len(alone[0]["runs"]) == 6
    assert alone[0]["runs"] == together[0]["runs"]  # a size does not depend on the others


def test_sizes_beyond_the_pool_are_said(pool, held_out, model):
    result = run(pool, held_out, model, sizes=(2, 64), support_sets=2)
    assert [point["patients"] for point in result.curve] == [2]
    (reason,) = result.details["lacking"]
    assert reason == (
        "support sets of 64 patients and as many to validate on, more than the 20 there are"
    )
    assert result.details["lacking"][reason] == 2  # support sets


def test_the_interval_holds_the_chance_of_support_sets_and_of_patients(pool, held_out, model):
    result = run(pool, held_out, model, sizes=(2,), support_sets=4)
    (point,) = result.curve
    answers = Answers.of(result.predictions, "2")
    bootstrap = Bootstrap(result.predictions.patients(), resamples=100)
    patients = bootstrap.spread(answers.macro_f1())
    # Each set has two of the pool's twenty patients.
    sets = Spread(float(np.var(point["runs"], ddof=1)) * (1 / 4 + 2 / 18), 3)
    edges = interval(point["mean"], [patients, sets], scale="unit", groups=15)
    np.testing.assert_allclose([point["low"], point["high"]], edges)
    assert len(set(point["draws"])) == 4  # another set of patients each
    again = run(pool, held_out, model, sizes=(2,), support_sets=4)
    assert again.curve[0]["draws"] == point["draws"]
    single = run(pool, held_out, model, sizes=(2,), support_sets=1).curve[0]
    assert (single["low"], single["high"]) == (None, None)


def names(prefix, numbers):
    return [f"{prefix}{i}" for i in numbers]


def test_a_support_set_that_lacks_a_patient_is_dropped_whole(pool, held_out, model, write_splits):
    whole = [names("pool", (0, 1)), names("pool", (2, 3))]
    other = [names("pool", (4, 5)), names("pool", (6, 7))]
    torn = [["pool8", "absent"], names("pool", (9, 10))]
    torn_too = [names("pool", (8, 9)), ["pool10", "absent"]]
    fours = [[[*names("pool", (0, 1, 2)), "absent"], names("pool", (4, 5, 6, 7))]]
    root = write_splits(
        "few_data_training", SIX, {"2": [whole, torn, other, torn_too], "4": fours},
        names("test", range(6)),
    )  # fmt: skip
    result = run(pool, held_out, model, splits=root, sizes=(2, 4, 8))
    (point,) = result.curve
    assert (point["patients"], point["support_sets"], len(point["runs"])) == (2, 2, 2)
    assert result.details["lacking"] == {
        "patients to learn from that the data lacks, such as 'absent'": 1,
        "support sets of 2 patients of which one is missing": 2,
        "support sets of 4 patients of which one is missing": 1,
        "sizes, 8 patients, of which the file has no support set": 1,
    }
    assert result.details["sizes_without_support_set"] == [4, 8]
    assert result.details["unlisted"] == {"patients to test that no list names": 9}
    assert result.details["patients"] == 6


def test_no_complete_support_set_is_an_error(pool, held_out, model, write_splits):
    torn = [["pool8", "absent"], names("pool", (9, 10))]
    root = write_splits("few_data_training", SIX, {"2": [torn]})
    with pytest.raises(ValueError, match=r"no complete support set of \[2\] patients: it lacks"):
        run(pool, held_out, model, splits=root, sizes=(2,))
    with pytest.raises(ValueError, match=r"holds no support set of \[8\] patients; .* sizes \[2\]"):
        run(pool, held_out, model, splits=root, sizes=(8,))


def test_a_patient_without_an_image_of_the_task_is_told_from_a_missing_one(
    make_classes, held_out, model, write_splits
):
    pool = make_classes(8, prefix="pool", distance=4)
    pool.columns["plane"][pool.columns["patient_id"] == "pool1"] = ""
    draws = [[names("pool", (0, 1)), names("pool", (2, 3))],
             [names("pool", (4, 5)), names("pool", (6, 7))]]  # fmt: skip
    root = write_splits("few_data_training", SIX, {"2": draws})
    result = run(pool, held_out, model, splits=root, sizes=(2,))
    assert result.curve[0]["support_sets"] == 1
    assert result.details["lacking"] == {
        "patients to learn from without an image of the task, such as 'pool1'": 1,
        "support sets of 2 patients of which one has no image of the task": 1,
    }


def test_official_files_of_both_tasks_are_found(shared_reference):
    from fetalclip_jax.evaluation.statistics import official

    for task in ("planes", "brain"):
        for root in (shared_reference, shared_reference / "splits"):
            path, tests = official.find(root, "few_data_training", task)
            assert 64 in splits.read_support_sets(path)
            assert len(official.test_ids(tests)) == 896
            assert len(splits.read_folds(official.find(root, "probing", task)[0])) == 5


def test_too_large_for_the_pool(pool, held_out, model):
    with pytest.raises(ValueError, match="pool has 20: choose sizes up to 10"):
        run(pool, held_out, model, sizes=(16,))
