import numpy as np
import pytest

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.statistics import intervals, metrics
from fetalclip_jax.evaluation.statistics.bootstrap import bootstrap_weights
from fetalclip_jax.labels import BRAIN_PLANES, PLANES


@pytest.fixture
def study():
    return studies.create("zero_shot.merged", resamples=200)


@pytest.fixture
def model(lookup_model, study):
    """Planes on axes 0 to 8, brain planes on 9 to 11."""
    axes = {}
    for offset, prompts in ((0, study.prompts["planes"]), (9, study.prompts["brain"])):
        for i, texts in enumerate(prompts.values()):
            axes |= dict.fromkeys(texts, offset + i)
    return lookup_model(lambda text: np.eye(12)[axes[text]])


@pytest.fixture
def store(make_store):
    """Every plane and brain plane; some look like others."""
    rng = np.random.default_rng(0)
    judged = [PLANES.index(name) for name in ("abdomen", "brain", "femur", "heart", "cervix")]
    planes = rng.choice(judged, 300)
    brain = np.where(planes == PLANES.index("brain"), rng.integers(0, 3, 300), -1)
    seen = np.where(rng.random(300) < 0.2, rng.choice(9, 300), planes)
    seen_brain = np.where(rng.random(300) < 0.4, rng.integers(0, 3, 300), np.maximum(brain, 0))
    return make_store(
        np.eye(12)[seen] + np.eye(12)[9 + seen_brain],
        plane=np.array(PLANES)[planes],
        brain_plane=np.array([*BRAIN_PLANES, ""])[brain],
        patient_id=(np.arange(300) // 3).astype(str),
    )


def test_the_mean_is_over_eight_classes_each_from_its_own_task(study, model, store):
    result = study.run({"images": store}, model)
    parts = {
        name: studies.create(f"zero_shot.{name}", resamples=5).run({"images": store}, model)
        for name in ("planes", "brain")
    }
    planes, brain = (parts[name].metrics["macro_f1"].value for name in ("planes", "brain"))
    assert result.metrics["macro_f1"].value == pytest.approx((5 * planes + 3 * brain) / 8)
    assert result.metrics["planes_macro_f1"].value == planes
    assert result.metrics["brain_macro_f1"].value == brain
    table = result.details["table"]
    assert [row["task"] for row in table] == ["planes"] * 5 + ["brain"] * 3
    assert {row["class"]: row["f1"] for row in table} == (
        parts["planes"].details["per_class_f1"] | parts["brain"].details["per_class_f1"]
    )
    assert sum(row["count"] for row in table[5:]) == table[1]["count"]  # brain images


def test_the_interval_draws_both_tasks_of_a_patient_together(study, model, store):
    result = study.run({"images": store}, model)
    rows = result.predictions.rows()
    assert len(rows) == 300
    columns = ("label", "prediction", "brain_label", "brain_prediction")
    label, answer, brain_label, brain_answer = (np.array([r[c] for r in rows]) for c in columns)
    values = []
    for weights in bootstrap_weights(store.columns["patient_id"], resamples=200, seed=0):
        for times in weights.astype(int):
            drawn = np.repeat(np.arange(300), times)
            brains = drawn[brain_label[drawn] != ""]
            planes = metrics.f1_per_class(label[drawn], answer[drawn], PLANES)
            brain = metrics.f1_per_class(brain_label[brains], brain_answer[brains], BRAIN_PLANES)
            values.append((planes[[0, 1, 2, 3, 8]].sum() + brain.sum()) / 8)
    found = result.metrics["macro_f1"]
    chance = intervals.Spread(np.var(values, ddof=1) * 100 / 99, 99)
    edges = intervals.interval(found.value, [chance], scale="unit", groups=100)
    np.testing.assert_allclose([found.low, found.high], edges)
    assert (found.n, found.groups) == (300, 100)
