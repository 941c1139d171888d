"""Heart defects on stores made by hand, and on clips from end to end."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fetalclip_jax.evaluation import calibration, result, studies, subgroups
from fetalclip_jax.evaluation.comparison import compare
from fetalclip_jax.evaluation.studies import chd

FRAMES, WIDTH = 4, 6
FINDINGS = ("normal", "normal", "normal", "septal_defect", "hypoplastic")


@pytest.fixture(scope="session")
def make_clips(make_store):
    """A store of clips, two a patient; of an abnormal heart the frames lean to one side."""

    def make(patients, prefix="p", strength=1.0, seed=0, findings=FINDINGS, **columns):
        rng = np.random.default_rng([seed, patients])
        finding = np.repeat([findings[k % len(findings)] for k in range(patients)], 2)
        count = len(finding)
        features = rng.normal(size=(count, FRAMES, WIDTH))
        features[..., 0] += strength * (finding != "normal")[:, None]
        pixels = rng.integers(0, 255, (count, FRAMES * 256)).astype(np.uint8)
        known = {
            "label": finding,
            "patient_id": np.char.add(prefix, np.repeat(np.arange(patients), 2).astype(str)),
            "example_id": np.char.add(f"{prefix}clip", np.arange(count).astype(str)),
            "frames": np.full(count, 12.0),
        }
        return make_store(features.reshape(count, -1), raw_pixels=pixels, **(known | columns))

    return make


def options(**changed):
    return {"num_frames": FRAMES, "resamples": 100, "progress": False} | changed


def run(name, stores, model, **changed):
    if changed.get("protocol") != "paper":
        changed = {"penalties": (1e-2, 1e-4)} | changed
    return studies.create(name, **options(**changed)).run(stores, model)


@pytest.fixture(scope="module")
def stores(make_clips):
    return {"fit": make_clips(60, "a"), "test": make_clips(40, "b", seed=1)}


@pytest.fixture(scope="module")
def tuned(stores, model):
    return run("chd.mean", stores, model)


@pytest.fixture(scope="module")
def rotated(make_clips, model):
    return run("chd.mean", {"fit": make_clips(50)}, model, protocol="paper", runs=2, epochs=3)


def probability(found):
    predictions = found.predictions
    return predictions.scores[:, predictions.candidates.index("abnormal")]


def test_metrics_equal_scikit_learn(tuned):
    abnormal, scores = tuned.predictions.label == "abnormal", probability(tuned)
    auroc = sklearn_metrics.roc_auc_score(abnormal, scores)
    assert tuned.metrics["auroc"].value == pytest.approx(auroc, abs=1e-9)
    auprc = sklearn_metrics.average_precision_score(abnormal, scores)
    assert tuned.metrics["auprc"].value == pytest.approx(auprc, abs=1e-9)
    false_alarms, hits, _ = sklearn_metrics.roc_curve(abnormal, scores)
    for specificity in (0.9, 0.95):
        best = hits[false_alarms <= 1 - specificity + 1e-9].max()
        found = tuned.metrics[f"sensitivity_at_{round(100 * specificity)}_specificity"]
        assert found.value == pytest.approx(best)
    assert next(iter(tuned.metrics)) == "auroc"
    assert tuned.metrics["auroc"].value > 0.75
    for one in tuned.metrics.values():
        assert one.low < one.value < one.high
        assert (one.n, one.groups) == (80, 40)


def test_every_metric_stands_beside_a_guess_and_raw_pixels(tuned):
    names = {baseline.metric for baseline in tuned.baselines.values()}
    assert names == set(tuned.metrics)
    assert tuned.baselines["chance_auroc"].estimate.value == 0.5
    assert tuned.baselines["chance_auprc"].estimate.value == pytest.approx(0.4)
    assert tuned.baselines["chance_sensitivity_at_95_specificity"].estimate.value == 0.05
    raw = tuned.baselines["raw_pixels_auroc"].estimate
    assert 0.3 < raw.value < 0.7  # they are noise here
    assert raw.low < raw.value < raw.high
    paired = tuned.details["against_raw_pixels"]["auroc"]
    assert paired["value"] == pytest.approx(tuned.metrics["auroc"].value - raw.value)
    assert 0 < paired["low"] < paired["value"] < paired["high"]


def test_concatenated_frames_know_their_order_and_the_mean_does_not(make_clips, model):
    def ordered(patients, prefix, seed):
        store = make_clips(patients, prefix, strength=0.0, seed=seed)
        frames = store.image_features.reshape(len(store), FRAMES, WIDTH).copy()
        sign = np.where(store.columns["label"] == "normal", 1, -1)[:, None]
        frames[:, :2, 0] += 2 * sign
        frames[:, 2:, 0] -= 2 * sign
        return dataclasses.replace(store, image_features=frames.reshape(len(store), -1))

    both = {"fit": ordered(60, "a", 0), "test": ordered(40, "b", 1)}
    assert run("chd.concatenated", both, model).metrics["auroc"].value > 0.95
    assert run("chd.mean", both, model).metrics["auroc"].value < 0.7


def test_what_is_kept_gives_every_metric_again(tuned, rotated, tmp_path):
    for found in (tuned, rotated):
        found = dataclasses.replace(found, environment={"python": "3"})
        again = result.load(found.save(tmp_path / found.protocol["name"]))
        studies.check_predictions(again)
        measured = studies.measures(again)
        assert set(measured) == set(found.metrics)
        for name, one in measured.items():
            assert one.measure.value == pytest.approx(found.metrics[name].value, abs=1e-12)


def test_without_a_test_split_every_fold_is_tested_by_heads_that_had_not_seen_it(rotated):
    predictions = rotated.predictions
    fold = predictions.extra["fold"]
    assert sorted(set(fold.tolist())) == [0, 1, 2, 3, 4]
    for number in range(5):
        own = set(predictions.patient_id[fold == number].tolist())
        assert not own & set(predictions.patient_id[fold != number].tolist())
        assert set(predictions.label[fold == number].tolist()) == {"normal", "abnormal"}
    # The mean over five folds and two runs, each on its own clips.
    abnormal = predictions.label == "abnormal"
    expected = [
        sklearn_metrics.roc_auc_score(abnormal[fold == k], predictions.extra[name][fold == k])
        for k in range(5)
        for name in ("log_odds_1", "log_odds_2")
    ]
    assert rotated.details["run_auroc"] == pytest.approx(expected)
    assert rotated.metrics["auroc"].value == pytest.approx(np.mean(expected))
    assert rotated.details["auroc_deviation_over_runs"] == pytest.approx(np.std(expected, ddof=1))
    assert rotated.details["tested"] == "each fold once"
    assert rotated.details["runs"] == 10
    assert rotated.validation is None
    # Thresholds are then read off the judged clips: what was asked for is reached.
    assert rotated.details["thresholds_from"] == "the judged clips"
    for point in rotated.details["operating_points"]:
        assert point["specificity"]["value"] >= point["asked"]


def test_the_papers_protocol_has_five_runs_of_five_folds(model, stores):
    study = studies.create("chd.concatenated", protocol="paper")
    settings = study.settings
    assert (settings.folds, settings.runs, settings.solver) == (5, 5, "adamw")
    assert (settings.feature_scaling, settings.transform) == ("none", "opencv")
    assert (settings.epochs, settings.batch_size, settings.weight_decay) == (50, 64, 0.01)
    fit, test = study.needs
    assert (fit.level, fit.role, test.role, test.optional) == ("frames", "fit", "test", True)
    assert fit.how == test.how == {"num_frames": 8, "sampling": "uniform"}
    found = run("chd.mean", stores, model, protocol="paper", epochs=2, runs=2)
    assert found.details["runs"] == len(found.details["run_auroc"]) == 10
    scores = [found.predictions.extra[f"log_odds_{k + 1}"] for k in range(10)]
    abnormal = found.predictions.label == "abnormal"
    expected = np.mean([sklearn_metrics.roc_auc_score(abnormal, one) for one in scores])
    assert found.metrics["auroc"].value == pytest.approx(expected)


def test_thresholds_are_chosen_on_patients_that_are_not_judged(tuned):
    details, validation = tuned.details, tuned.validation
    assert details["thresholds_from"] == "validation patients"
    assert not set(validation.patient_id.tolist()) & set(tuned.predictions.patient_id.tolist())
    scores = validation.scores[:, validation.candidates.index("abnormal")]
    judged, abnormal = probability(tuned), tuned.predictions.label == "abnormal"
    for point in details["operating_points"]:
        normal = scores[validation.label == "normal"]
        assert (normal <= point["threshold"]).mean() >= point["asked"]
        assert (normal < point["threshold"]).mean() < point["asked"]
        called = judged > point["threshold"]
        assert point["sensitivity"]["value"] == pytest.approx(called[abnormal].mean())
        assert point["specificity"]["value"] == pytest.approx((~called[~abnormal]).mean())
    called = judged > details["operating_points"][0]["threshold"]
    assert set(details["findings"]) == {"septal_defect", "hypoplastic"}
    for name, found in details["findings"].items():
        own = tuned.predictions.extra["finding"] == name
        assert (found["value"], found["n"]) == (pytest.approx(called[own].mean()), own.sum())


def test_other_words_for_normal_and_clips_without_a_label(make_clips, model):
    words = ("healthy", "healthy", "", "vsd")
    both = {
        name: make_clips(40, name, findings=words, seed=k, label=np.full(80, ""),
                         diagnosis=np.repeat([words[k % 4] for k in range(40)], 2))
        for k, name in enumerate(("fit", "test"))
    }  # fmt: skip
    found = run("chd.mean", both, model, column="diagnosis", normal="healthy")
    assert found.details["left_out"] == {"no label": 20}
    assert found.metrics["auroc"].n == 60
    assert set(found.details["findings"]) == {"vsd"}
    # What was found is no group to judge by itself.
    assert "diagnosis" not in found.predictions.groups
    with pytest.raises(
        ValueError, match="no clip has the diagnosis 'normal', found healthy, vsd: s"
    ):
        run("chd.mean", both, model, column="diagnosis")


def test_clips_that_are_too_short_are_counted(make_clips, model):
    both = {
        name: make_clips(30, name, frames=np.r_[2.0, np.full(59, 40)]) for name in ("fit", "test")
    }
    details = run("chd.mean", both, model).details
    assert details["clips"] == {"shortest": 2, "longest": 40, "frames": FRAMES}
    # One to learn from and one to test.
    assert details["lacking"] == {"clips of fewer than 4 frames, some read twice": 2}


@pytest.mark.parametrize(
    ("fit", "test", "changed", "message"),
    [
        ({"patients": 4}, {"patients": 20}, {}, r"folds must lie between 2 and .*\(4\), found 5"),
        ({"patients": 20, "findings": ["normal"] * 19 + ["vsd"]}, {"patients": 20}, {},
         "what fold 1 of 5 learns from has no abnormal clip among 32: there are too few patients"),
        ({"patients": 20}, {"patients": 20, "findings": ["normal"]}, {},
         "all 40 clips to test are normal: normal and abnormal ones are needed"),
        ({"patients": 20, "findings": ["normal"]}, None, {},
         "fold 1 of 5, to be tested, has no abnormal clip among 8"),
        ({"patients": 20, "findings": ["normal"] * 18 + ["vsd"] * 2}, None, {},
         r"fold \d of 5, to be tested, has no abnormal clip"),
        ({"patients": 20}, None, {"folds": 2}, "folds=2 leaves nothing to learn from"),
        ({"patients": 20, "findings": ["vsd"]}, None, {}, "the label 'normal', found vsd: say"),
    ],
)  # fmt: skip
def test_folds_and_splits_that_lack_something_are_refused(
    make_clips, model, fit, test, changed, message
):
    given = {"fit": make_clips(**fit, prefix="a")}
    if test is not None:
        given["test"] = make_clips(**test, prefix="b")
    with pytest.raises(ValueError, match=message):
        run("chd.mean", given, model, **changed)


def test_a_rare_class_is_in_every_fold(make_clips, model):
    # Five of sixty patients are abnormal: dealt by chance alone, some fold would have none.
    rare = make_clips(60, findings=["normal"] * 11 + ["vsd"], strength=6.0)
    found = run("chd.mean", {"fit": rare}, model)
    assert found.details["run_auroc"] == pytest.approx([1.0] * 5)


def test_two_abnormal_patients_are_in_two_folds_whatever_the_seed(make_clips, model):
    both = {
        "fit": make_clips(12, "a", findings=["normal"] * 5 + ["vsd"]),
        "test": make_clips(20, "b"),
    }
    for seed in (6, 11):  # dealt by chance alone, both would be in one fold
        assert run("chd.mean", both, model, folds=2, seed=seed).metrics["auroc"].n == 40


def test_patients_in_both_splits_and_features_of_another_model_are_refused(make_clips, model):
    store = make_clips(20)
    with pytest.raises(ValueError, match="20 patients are in the images to learn from and in the"):
        run("chd.mean", {"fit": store, "test": store}, model)
    other = dataclasses.replace(make_clips(20, "b"), fingerprint={"model": "other"})
    with pytest.raises(ValueError, match="encoded by model 'other'"):
        run("chd.mean", {"fit": store, "test": other}, model)
    with pytest.raises(ValueError, match=r"features of 40 of 40 images are nan or infinite"):
        dataclasses.replace(store, image_features=store.image_features * np.nan)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"specificities": (0.5,)}, r"specificities=\(0.5,\) must be some of 0.8, 0.85"),
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"sampling": "random"}, "sampling='random' is not one of uniform, every"),
        ({"epochs": 3}, "epochs belongs to solver='adamw'"),
        ({"copies": 3}, "chd.mean has no option 'copies'"),
    ],
)
def test_options_that_cannot_be_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        studies.create("chd.mean", **changed)


def named(found, name):
    return dataclasses.replace(
        found,
        model={"name": name, "fingerprint": name},
        data={"name": "clips", "kind": "clips", "stores": {}},
        environment={"python": "3"},
    )


def test_two_models_are_compared_on_the_same_clips(tuned, make_clips, model):
    both = {"fit": make_clips(60, "a", strength=0), "test": make_clips(40, "b", strength=0, seed=1)}
    poor = run("chd.mean", both, model)
    found = compare(named(tuned, "good"), named(poor, "poor"))
    auroc = next(one for one in found.differences if one.metric == "auroc")
    assert auroc.value == pytest.approx(tuned.metrics["auroc"].value - poor.metrics["auroc"].value)
    assert auroc.verdict() == "better"
    assert auroc.low < auroc.value < auroc.high


def test_probabilities_are_calibrated_on_validation_patients(tuned, rotated):
    found = calibration.calibrate(named(tuned, "m"))
    assert "validation images of 60 patients" in found.fitted_on
    assert found.before.expected_error < 0.3
    assert "the judged patients themselves" in calibration.calibrate(named(rotated, "m")).fitted_on


def test_subgroups_of_one_class_have_no_ranks(make_clips, model, stores):
    finding = stores["test"].columns["label"]
    machine = np.where(np.arange(80) % 4 < 2, "A", "B").astype("U20")
    machine[60:] = np.where(finding[60:] == "normal", "normal only", "A")
    columns = stores["test"].columns | {"machine": machine}
    test = dataclasses.replace(stores["test"], columns=columns)
    found = named(run("chd.mean", stores | {"test": test}, model), "m")
    groups = {one.name: one for one in subgroups.split(found, "machine").groups}
    assert groups["normal only"].metrics == {}
    assert set(groups["A"].metrics) == set(found.metrics)
    assert groups["normal only"].lacking == ("abnormal",)
    split = subgroups.split(found, "machine")
    assert split.headline == "auroc"


def test_resamples_that_lack_a_class_are_drawn_again_and_counted(make_clips, model):
    few = make_clips(12, "b", findings=["normal"] * 10 + ["vsd"] * 2, seed=3)
    found = run("chd.mean", {"fit": make_clips(40, "a"), "test": few}, model, resamples=400)
    # Of 12 patients 2 are abnormal: (10 / 12) ** 12 = 11 % of the resamples hold none.
    assert 20 < found.details["resamples_drawn_again"] < 80
    assert found.metrics["auroc"].low is not None


def test_measures_names_follow_the_specificities():
    assert chd.SPECIFICITIES == (0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
    study = studies.create("chd.mean", specificities=[0.8])
    assert study.settings.specificities == (0.8,)
