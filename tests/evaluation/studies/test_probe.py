import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.statistics import splits
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread, interval
from fetalclip_jax.evaluation.studies.probe_data import ProbeData
from fetalclip_jax.labels import SIX_PLANES

# AdamW as the published protocol, made quick.
FAST = {
    "solver": "adamw",
    "learning_rates": (0.02,),
    "batch_size": 16,
    "epochs": 10,
    "feature_scaling": "standardise",
    "runs": 2,
}
QUICK = {"penalties": (1e-2, 1e-4), "resamples": 100}
SIX = "classification_six_fetal_planes"


@pytest.fixture(scope="module")
def pool(make_classes):
    return make_classes(20, prefix="pool", copies=1, distance=12)


@pytest.fixture(scope="module")
def held_out(make_classes):
    return make_classes(15, prefix="test", distance=12, seed=1)


def run(pool, held_out, model, name="probe.planes", **options):
    study = studies.create(name, progress=False, **options)
    return study.run({"fit": pool, "test": held_out}, model)


def test_separable_planes_are_learnt_by_the_tuned_protocol(pool, held_out, model):
    result = run(pool, held_out, model, **QUICK)
    metrics, details = result.metrics, result.details
    assert next(iter(metrics)) == "macro_f1"
    assert metrics["macro_f1"].value == metrics["top2_accuracy"].value == 1
    assert metrics["balanced_accuracy"].value == metrics["standard_planes_macro_f1"].value == 1
    assert metrics["standard_planes_macro_f1"].n == 75  # without the 15 "other"
    # 15 kidneys count as "other"; one probe of all patients, its penalty chosen on five folds.
    np.testing.assert_array_equal(details["confusion"], np.eye(6) * 15)
    assert (details["runs"], details["folds"], details["count"]) == (1, 5, 90)
    assert details["macro_f1_deviation_over_runs"] is None
    assert (details["patients"], details["train_patients"]) == (15, 20)
    assert sum(details["penalties_chosen"].values()) == 1
    assert result.protocol["name"] == "tuned, changed: penalties"
    assert result.predictions.candidates == SIX_PLANES
    np.testing.assert_allclose(result.predictions.scores.sum(1), 1, rtol=1e-6)
    assert (result.predictions.prediction == result.predictions.label).all()
    json.dumps(result.to_json(), allow_nan=False)


def test_adamw_trains_folds_times_runs(pool, held_out, model):
    result = run(pool, held_out, model, **FAST)
    details = result.details
    assert result.metrics["macro_f1"].value == 1
    np.testing.assert_array_equal(details["confusion"], np.eye(6) * 15 * 10)
    assert (details["runs"], details["folds"]) == (10, 5)
    assert details["macro_f1_deviation_over_runs"] == 0
    assert details["learning_rates_chosen"] == {"0.02": 10}
    assert result.protocol["epochs"] == 10


def test_shuffled_labels_are_not_learnt(make_classes, held_out, model):
    shuffled = make_classes(20, prefix="pool", copies=1, shuffle_labels=True)
    result = run(shuffled, held_out, model, **QUICK)
    found = result.metrics["macro_f1"]
    chance = result.baselines["chance_macro_f1"].estimate.value
    assert found.value < chance + 0.12
    assert found.low < found.value < found.high


def test_raw_pixels_are_a_study_of_their_own(pool, held_out, model):
    result = run(pool, held_out, model, "probe.raw_pixels", **QUICK)
    assert (result.study, result.details["inputs"]) == ("probe.raw_pixels", "raw_pixels")
    assert result.metrics["macro_f1"].value == 1  # the thumbnails give the plane away


def test_any_column_is_a_task(make_store, model):
    rng = np.random.default_rng(0)

    def store(prefix, machines):
        shown = np.arange(60) % 2
        return make_store(
            np.eye(2, 4)[shown] * 8 + rng.normal(size=(60, 4)),
            label=np.array(machines)[shown],
            patient_id=np.char.add(prefix, (np.arange(60) // 2).astype(str)),
        )

    result = run(store("a", ["Aloka", "Voluson"]), store("b", ["Aloka", "Other"]), model,
                 "probe.label", **QUICK)  # fmt: skip
    assert result.details["classes"] == ["Aloka", "Voluson"]
    assert result.details["left_out"] == {"Other": 30}
    assert result.details["per_class_recall"] == {"Aloka": 1}
    assert "standard_planes_macro_f1" not in result.metrics


def test_trains_on_copies_and_validates_on_clean_images_of_others(pool, held_out):
    settings = studies.create("probe.planes").settings
    data = ProbeData(pool, held_out, "planes", settings, "features")
    train, validation = data.rows((np.array(["pool0", "pool1"]), np.array(["pool2"])))
    assert (pool.copy[train] == 1).all()
    assert (pool.copy[validation] == 0).all()
    assert (len(train), len(validation)) == (12, 6)
    assert set(data.owners[train]) == {"pool0", "pool1"}
    np.testing.assert_allclose(np.linalg.norm(data.features, axis=1), 1, rtol=1e-5)
    alone = ProbeData(pool.clean(), held_out, "planes", settings, "features")
    assert len(alone.rows((np.array(["pool0"]), np.array(["pool2"])))[0]) == 6


def names(prefix, numbers):
    return [f"{prefix}{i}" for i in numbers]


def test_official_folds_are_met_by_counts(pool, held_out, model, write_splits):
    folds = {
        "0": [names("pool", range(10)), [*names("pool", range(10, 16)), "absent"]],
        "1": [[*names("pool", range(6, 16)), "absent"], names("pool", range(6))],
    }
    root = write_splits("probing", SIX, folds, [*names("test", range(5)), "gone", "lost"])
    result = run(pool, held_out, model, splits=root, **QUICK)
    details = result.details
    assert details["folds"] == 2
    assert details["train_patients"] == 16
    assert details["patients"] == 5
    assert details["lacking"] == {
        "patients to learn from that the data lacks, such as 'absent'": 1,
        "patients to test that the data lacks, such as 'gone'": 2,
    }
    assert details["unlisted"] == {
        "patients to learn from that no list names": 4,
        "patients to test that no list names": 10,
    }
    # The folder itself and the file do as well.
    for path in (root / "probing" / SIX, root / "probing" / SIX / "train_val_split.json"):
        again = run(pool, held_out, model, splits=path, **QUICK)
        assert again.metrics["macro_f1"] == result.metrics["macro_f1"]


def test_a_listed_patient_may_be_there_without_an_image_of_the_task(
    make_classes, held_out, model, write_splits
):
    pool = make_classes(6, prefix="pool", distance=12)
    pool.columns["plane"][pool.columns["patient_id"] == "pool5"] = ""
    folds = {"0": [names("pool", (0, 1, 2)), names("pool", (3, 4, 5))]}
    details = run(
        pool, held_out, model, splits=write_splits("probing", SIX, folds), **QUICK
    ).details
    assert details["lacking"] == {
        "patients to learn from without an image of the task, such as 'pool5'": 1
    }
    assert details["train_patients"] == 5


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["pool0", "test3"], ["test0"], "'test3', are to be learnt from and are in the test image"),
        (["pool0", "test0"], ["test0"], "'test0', are to be learnt from"),
        (["pool0", "far"], ["test0", "far"], "'far', are to be learnt from .* its own test list"),
        (["pool0"], ["test0", "pool7"], "'pool7', .* the test list and in the fit images"),
        (["Patient00002"], ["test0"], "any of its 2 patients, such as 'Patient00002', whose ids"),
        (["pool0"], ["Patient9"], "no test image of any of its 1 patients, such as 'Patient9'"),
    ],
)
def test_lists_that_leak_or_are_of_other_data(pool, held_out, model, write_splits, train, test,
                                              message):  # fmt: skip
    validation = ["Patient1"] if train == ["Patient00002"] else ["pool1"]
    root = write_splits("probing", SIX, {"0": [train, validation]}, test)
    with pytest.raises(ValueError, match=message):
        run(pool, held_out, model, splits=root, **QUICK)


def test_no_split_file_names_what_was_tried(pool, held_out, model, tmp_path):
    with pytest.raises(ValueError, match=rf"no train_val_split.json there, nor in .*probing/{SIX}"):
        run(pool, held_out, model, splits=tmp_path, **QUICK)


def test_refuses(pool, held_out, model, make_store):
    with pytest.raises(ValueError, match=r"20 patients are in the images to learn from.*'pool0'"):
        run(pool, pool, model)
    with pytest.raises(ValueError, match="task 'brain' judges brain_plane"):
        run(pool, held_out, model, "probe.brain")
    with pytest.raises(ValueError, match="encoded by model 'm2', not by 'm'"):
        run(pool, make_store([[0.0] * 8], plane=["brain"], model="m2"), model)
    with pytest.raises(ValueError, match="no clean image"):
        run(pool.select(pool.copy == 1), held_out, model)
    with pytest.raises(ValueError, match="'label' has no value alone: a probe needs two classes"):
        run(pool, held_out, model, "probe.label")
    broken = held_out.select(np.arange(90))
    broken.image_features[3] = np.inf
    with pytest.raises(ValueError, match=r"of 1 of 90 images are nan or infinite.* of test-3"):
        run(pool, broken, model)


def test_another_draw_of_copies_is_part_of_the_interval(make_classes, model):
    pool = make_classes(12, prefix="pool", copies=3, distance=2)
    held_out = make_classes(15, prefix="test", distance=2, seed=1)
    result = run(pool, held_out, model, copies=3, redraws=4, **FAST, resamples=200)
    values = result.details["redraws"]["macro_f1"]
    assert len(values) == 4
    assert len(set(values)) > 1
    measured = studies.measures(result)["macro_f1"].measure
    patients = Bootstrap(result.predictions.patients(), resamples=200).spread(measured)
    copies = Spread(np.var(values, ddof=1) * 3 / 2, 3)
    edges = interval(measured.value, [patients, copies], scale="unit", groups=15)
    found = result.metrics["macro_f1"]
    np.testing.assert_allclose([found.low, found.high], edges)
    # Of one copy there is nothing to draw, and a result without intervals needs no redraws.
    single = run(pool, held_out, model, copies=1, **FAST).details
    assert single["redraws"] == {}
    assert "lack the chance of the augmented copies" in single["notes"][0]
    assert run(pool, held_out, model, copies=3, **FAST, resamples=1).details["redraws"] == {}
    with pytest.raises(ValueError, match="redraws=1 must be 0, or 2 and more"):
        studies.create("probe.planes", redraws=1)


@pytest.mark.parametrize("solver", ["adamw", "logistic"])
def test_redrawn_rows_are_copies_of_the_same_images(make_classes, model, solver):
    pool = make_classes(10, prefix="pool", copies=3, distance=8)
    held_out = make_classes(5, prefix="test", distance=8, seed=1)
    options = FAST if solver == "adamw" else QUICK
    settings = studies.create("probe.planes", copies=3, progress=False, **options).settings
    data = ProbeData(pool, held_out, "planes", settings, "features")
    folds = splits.folds_by_patient(data.owners, 2)
    train, validation = data.rows(folds[0])
    number = np.random.default_rng(0).integers(1, 4, len(data.labels))
    drawn, same = data._redraw((train, validation), number)
    assert (same == validation).all()
    assert (pool.copy[drawn] > 0).all()
    assert (drawn // 4 == train // 4).all()  # four rows an image: clean, and three copies
    assert (drawn != train).any()
    # In every split of one draw an image has the same copies, as of one encoding.
    other, _ = data._redraw(data.rows(folds[1]), number)
    everyone, _ = data._redraw((data._all(folds),) * 2, number)
    assert sorted([*drawn, *other]) == sorted(everyone)
    answers = data.redrawn(folds, 2)
    assert [one.predictions.shape for one in answers] == [(2 if solver == "adamw" else 1, 30)] * 2


@pytest.mark.parametrize("solver", ["adamw", "logistic"])
def test_validation_holds_what_probes_say_of_patients_they_had_not_seen(
    make_classes, model, solver
):
    # Labels are drawn by lot: a probe is right about those alone that it was trained on.
    pool = make_classes(12, prefix="pool", distance=3, shuffle_labels=True)
    held_out = make_classes(5, prefix="test", distance=3, seed=1)
    options = FAST | {"epochs": 3} if solver == "adamw" else QUICK
    found = run(pool, held_out, model, **options).validation
    assert sorted(found.example_id) == sorted(pool.columns["example_id"])
    np.testing.assert_allclose(found.scores.sum(1), 1)
    assert (found.label == found.prediction).mean() < 0.4
    assert found.candidates == SIX_PLANES
