import dataclasses
import json
import types

import numpy as np
import pytest

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.heads import logistic

QUICK = {"resamples": 50, "penalties": (1e-2, 1e-4), "progress": False}


def run(pool, judged, model, **options):
    study = studies.create("mislabels.planes", **QUICK | options)
    return study.run({"pool": pool, "judged": judged}, model)


def with_labels(store, rows, plane):
    labels = store.columns["plane"].copy()
    labels[rows] = plane
    return dataclasses.replace(store, columns=store.columns | {"plane": labels})


@pytest.fixture(scope="module")
def stores(make_classes):
    pool = make_classes(20, prefix="pool", distance=12)
    return pool, make_classes(12, prefix="test", distance=12, seed=1)


def test_wrong_labels_of_both_splits_are_listed(stores, model):
    pool, judged = stores
    # Images 1, 7, ... show an abdomen, 2, 8, ... a brain.
    wrong = {f"pool-{i}" for i in (2, 8, 50)} | {f"test-{i}" for i in (1, 25)}
    pool = with_labels(pool, [2, 8, 50], "cervix")
    judged = with_labels(judged, [1, 25], "femur")
    result = run(pool, judged, model)
    listed = result.details["list"]
    found = {row["example_id"] for row in listed}
    assert len(found & wrong) >= 4
    assert len(found - wrong) <= 1
    assert {row["suggested"] for row in listed[:4]} == {"brain", "abdomen"}
    first = listed[0]
    assert first["probability_of_label"] < 0.1 < 0.5 < first["probability_of_suggested"]
    assert {row["split"] for row in listed[:4]} == {"fit", "test"}
    noise = result.metrics["label_noise"]
    assert noise.value == pytest.approx(5 / 192, abs=0.012)
    assert noise.low < noise.value < noise.high
    assert noise.value <= result.baselines["disagreement"].estimate.value + 0.01
    joint = np.array(result.details["joint"])
    assert joint.sum() == pytest.approx(192, abs=0.1)
    json.dumps(result.to_json(), allow_nan=False)


def test_planted_errors_measure_what_is_found(stores, model):
    result = run(*stores, model, planted=0.1)
    extra = result.predictions.extra
    assert result.details["planted"] == extra["planted"].sum() == 19
    hits = (extra["planted"] & extra["flagged_of_planted"]).sum()
    assert hits / 19 > 0.85
    assert result.metrics["planted_recall"].value == pytest.approx(hits / 19)
    assert next(iter(result.metrics)) == "planted_f1"
    f1 = 2 * hits / (19 + extra["flagged_of_planted"].sum())
    assert result.metrics["planted_f1"].value == pytest.approx(f1)
    precision = hits / extra["flagged_of_planted"].sum()
    assert precision > 0.85
    assert result.metrics["planted_precision"].value == pytest.approx(precision)
    assert result.baselines["chance_precision"].estimate.value == pytest.approx(19 / 192)
    chance = extra["flagged_of_planted"].mean()
    assert result.baselines["chance_recall"].estimate.value == pytest.approx(chance)
    # What was planted stays in the control.
    assert (result.predictions.label == np.concatenate(
        [np.where(s.columns["plane"] == "kidney", "other", s.columns["plane"]) for s in stores]
    )).all()  # fmt: skip
    none = run(*stores, model, planted=0.0)
    assert list(none.metrics) == ["label_noise"]
    assert none.metrics["label_noise"].value == result.metrics["label_noise"].value


def test_the_probes_of_the_control_learn_the_planted_labels(stores, model, monkeypatch):
    learnt, fit = [], logistic.fit_cross_validated

    def watched(features, labels, *arguments, **options):
        learnt.append(labels)
        return fit(features, labels, *arguments, **options)

    monkeypatch.setattr(logistic, "fit_cross_validated", watched)
    result = run(*stores, model, planted=0.1)
    of_pool = result.predictions.extra["planted"][result.predictions.extra["split"] == "fit"]
    np.testing.assert_array_equal(learnt[0] != learnt[1], of_pool)


def test_an_image_is_judged_by_probes_that_have_not_seen_its_patient(make_classes, model):
    # Labels that only the patient itself explains: every probe that had seen it would be right.
    pool = make_classes(12, prefix="pool", distance=0)
    judged = make_classes(6, prefix="test", distance=0, seed=1)
    result = run(pool, judged, model, planted=0.0, penalties=(1e-6,))
    right = (result.predictions.prediction == result.predictions.label).mean()
    assert right < 0.4


def test_a_class_of_one_patient_is_not_judged(stores, model):
    pool, judged = stores
    alone = with_labels(pool, np.arange(6), "spine")
    study = studies.create("mislabels.plane", **QUICK)
    assert study.needs[0].columns == ("plane",)
    result = study.run({"pool": alone, "judged": judged}, model)
    assert result.details["left_out"]["no other patient to learn its label from"] == 6
    assert "spine" not in result.predictions.label


def test_flagged_images_are_shown(stores, model):
    pool, judged = stores
    pool = with_labels(pool, [2], "cervix")
    shown = types.SimpleNamespace(image=lambda name: np.full((9, 7), 30, np.uint8))
    study = studies.create("mislabels.planes", **QUICK | {"planted": 0.0})
    found = {"pool": pool, "judged": judged, "pool_images": shown, "judged_images": shown}
    (picture,) = study.run(found, model).pictures
    assert picture.name == "flagged"
    assert "not a finding" in picture.caption
    assert {need.level for need in study.needs} == {"feature", "images"}


def test_refusals(stores, model):
    pool, judged = stores
    with pytest.raises(ValueError, match="all 120 images to learn from are of class 'brain'; two"):
        run(with_labels(pool, slice(None), "brain"), judged, model)
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of patients"):
        run(pool, judged, model, folds=21)
    moved = dataclasses.replace(
        judged, columns=judged.columns | {"patient_id": pool.columns["patient_id"][:72]}
    )
    with pytest.raises(ValueError, match="patients are in the images to learn from and in the"):
        run(pool, moved, model)
    with pytest.raises(ValueError, match=r"planted=0\.5 must be a share below 0.5"):
        studies.create("mislabels.planes", planted=0.5)
    with pytest.raises(ValueError, match="column 'ga_days' holds numbers, not class names"):
        studies.create("mislabels.ga_days", **QUICK).run({"pool": pool, "judged": judged}, model)
