"""Subgroups: figures of each, gaps that stay honest about having been picked, and what is said."""

import numpy as np
import pytest

from fetalclip_jax.evaluation import age, subgroups
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from fetalclip_jax.evaluation.studies import measures
from tests.evaluation.saved import CLASSES, DATA, answered, result

RNG = np.random.default_rng(0)


def _split(labels, answers, patients, machine, column="machine", **fields):
    found = answered(labels, answers, patients, groups={"machine": machine})
    return subgroups.split(result(found, **fields), column)


def _two_machines(shared: bool):
    """60 patients with an image by each machine, both right or both wrong."""
    labels = RNG.integers(0, 3, 120)
    patients = np.repeat(np.arange(60), 2)
    labels = labels[2 * (np.arange(120) // 2)]
    missed = RNG.random(60)[patients] < 0.3
    answers = np.where(missed, (labels + 1) % 3, labels)
    machine = np.tile(["A", "B"], 60)
    ids = patients if shared else np.arange(120)
    return _split(labels, answers, ids, machine, metrics=("accuracy",))


def test_every_metric_in_every_subgroup():
    labels = np.tile([0, 1, 2], 20)
    answers = np.where(np.arange(60) < 15, 0, labels)  # machine A misses two thirds of 15
    machine = np.array(["A"] * 15 + ["B"] * 30 + [""] * 15)
    found = _split(labels, answers, np.arange(60) // 3, machine)
    assert [group.name for group in found.groups] == ["A", "B", "unknown"]
    assert [(group.images, group.patients) for group in found.groups] == [
        (15, 5),
        (30, 10),
        (15, 5),
    ]
    first, second, unknown = (group.metrics for group in found.groups)
    assert list(first) == list(measures(result(answered(labels, answers))))
    assert first["accuracy"].value == pytest.approx(1 / 3)
    assert first["macro_f1"].value == pytest.approx(1 / 6)
    assert second["accuracy"].value == unknown["accuracy"].value == 1
    assert (second["accuracy"].n, second["accuracy"].groups) == (30, 10)
    assert second["accuracy"].low < 1
    gap = found.largest["accuracy"]
    assert (gap.better, gap.worse, gap.pairs) == ("B", "A", 1)  # the unknown one is not compared
    assert gap.value == pytest.approx(2 / 3)
    assert gap.low < gap.value < gap.high


def test_a_gap_picked_among_many_pairs_covers_none():
    """Four machines alike: their largest gap must rarely be taken for one."""
    beyond = unadjusted = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(80), 3)
        hit = rng.random(80)[patients] * 0.4 + rng.random(240) * 0.6 < 0.65
        answers = np.where(hit, 0, 1)
        machine = np.array(list("ABCD"))[patients % 4]
        found = _split(np.zeros(240, int), answers, patients, machine, metrics=("accuracy",))
        beyond += found.largest["accuracy"].beyond_chance
        values = [group.metrics["accuracy"] for group in found.groups]
        least, most = min(values, key=lambda e: e.value), max(values, key=lambda e: e.value)
        unadjusted += most.low > least.value and least.high < most.value
    assert beyond <= 6  # of 60, where 3 are expected at most
    assert unadjusted > 15  # each interval by itself would have said so far too often


def test_a_true_gap_is_found_and_its_interval_holds_it():
    covered = clear = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        machine = np.repeat(["A", "B", "C"], 100)
        hit = rng.random(300) < np.repeat([0.95, 0.9, 0.6], 100)
        answers = np.where(hit, 0, 1)
        found = _split(np.zeros(300, int), answers, np.arange(300), machine, metrics=("accuracy",))
        gap = found.established["accuracy"]
        truth = {"A": 0.95, "B": 0.9, "C": 0.6}
        covered += gap.low <= truth[gap.better] - truth[gap.worse] <= gap.high
        clear += gap.worse == "C"
    assert covered >= 37
    assert clear == 40


def test_patients_of_both_subgroups_are_drawn_together():
    together, apart = _two_machines(shared=True), _two_machines(shared=False)
    first, second = together.largest["accuracy"], apart.largest["accuracy"]
    assert (first.shared_patients, second.shared_patients) == (60, 0)
    # Both images of a patient are hit or missed alike: the difference hardly varies.
    assert first.high - first.low < 0.2 * (second.high - second.low)


def test_a_class_absent_in_a_subgroup_is_stated_and_kept_out_of_the_gap():
    labels = np.array([0, 1, 2] * 10 + [0, 1] * 15)
    answers = labels.copy()
    answers[:30][labels[:30] == 2] = 0  # A misses every heart, and B has none
    machine = np.repeat(["A", "B"], 30)
    found = _split(labels, answers, np.arange(60), machine)
    assert [group.lacking for group in found.groups] == [(), ("heart",)]
    gap = found.largest["macro_f1"]
    assert gap.classes == ("brain", "femur")
    assert gap.value == 0  # over brain and femur both are perfect
    assert found.largest["accuracy"].value == pytest.approx(1 / 3)
    assert found.largest["accuracy"].classes == ()
    assert any("lack classes" in note for note in found.notes)


def test_subgroups_without_a_class_in_common_have_no_gap_of_means_over_classes():
    labels = np.repeat([0, 1], 20)
    found = _split(labels, labels, np.arange(40), np.repeat(["A", "B"], 20))
    assert "macro_f1" not in found.largest
    assert "accuracy" in found.largest


def test_a_single_patient_has_no_interval_and_no_part_in_the_gap():
    labels = np.tile([0, 1, 2], 20)
    answers = labels.copy()
    answers[:6] = (labels[:6] + 1) % 3
    machine = np.array(["A"] * 6 + ["B"] * 27 + ["C"] * 27)
    patients = np.array([0] * 6 + list(range(1, 55)))
    found = _split(labels, answers, patients, machine)
    assert found.groups[0].metrics["accuracy"] == Estimate(0.0, None, None, 6, 1)
    assert found.largest["accuracy"].pairs == 1
    assert {found.largest["accuracy"].better, found.largest["accuracy"].worse} == {"B", "C"}
    assert any("a single patient in A" in note for note in found.notes)


def test_of_errors_the_lower_one_is_better():
    days = np.repeat([150.0, 150.0], 30)
    error = np.repeat([5, 20], 30) + np.tile([0, 1, 2], 20)
    found = Predictions(
        example_id=np.arange(60).astype(str),
        patient_id=np.arange(60).astype(str),
        label=days.astype(int).astype(str),
        prediction=(days + error).astype(int),
        candidates=tuple(map(str, age.DAYS)),
        extra={"hc_mm": np.full(60, 170.0)},
        groups={"trimester": np.repeat(["second", "third"], 30)},
    )
    metrics = {name: Estimate(0.5) for name in ("valid_prediction_rate", "mae_days")}
    data = DATA | {"ages_from": "head circumference"}
    split = subgroups.split(Result("age", metrics, data=data, predictions=found), "trimester")
    gap = split.largest["mae_days"]
    assert (gap.better, gap.worse) == ("second", "third")
    assert gap.value == pytest.approx(15)
    assert gap.beyond_chance
    assert all(group.lacking == () for group in split.groups)
    implied = "no ages are recorded: they are those that the head circumference implies"
    assert split.notes == (implied,)


def test_errors_of_either_sign_have_no_better_subgroup():
    true = np.linspace(100.0, 300.0, 60)
    found = Predictions(
        example_id=np.arange(60).astype(str),
        patient_id=np.arange(60).astype(str),
        label=true,
        prediction=true + np.repeat([5.0, -20.0], 30) + np.tile([0, 1, 2], 20),
        groups={"machine": np.repeat(["A", "B"], 30)},
    )
    metrics = {name: Estimate(0.5) for name in ("mae_mm", "bias_mm", "upper_limit_mm")}
    split = subgroups.split(
        Result("regression.hc_mm", metrics, data=DATA, predictions=found), "machine"
    )
    assert set(split.groups[0].metrics) == set(metrics)
    assert set(split.largest) == set(split.established) == {"mae_mm"}


@pytest.mark.parametrize(
    ("column", "groups", "message"),
    [
        ("centre", {"machine": ["A", "B"] * 3}, "no group column 'centre'; there are machine"),
        ("machine", {"machine": ["A"] * 5 + [""]}, r"'machine' is 'A' wherever.*\(5 of 6 images\)"),
        ("machine", {"machine": [""] * 6}, r"'machine' is nowhere known \(0 of 6"),
        ("machine", {}, "keeps no group columns.*evaluate again"),
    ],
)
def test_a_column_that_gives_no_subgroups(column, groups, message):
    labels = np.tile([0, 1, 2], 2)
    one = result(answered(labels, labels, groups=groups))
    with pytest.raises(ValueError, match=f"zero_shot.planes of m on clinic.*{message}"):
        subgroups.split(one, column)


def test_a_column_of_too_many_values():
    labels = np.tile([0, 1, 2], 30)
    one = result(answered(labels, labels, groups={"id": np.arange(90).astype(str)}))
    assert subgroups.columns(one) == []
    with pytest.raises(ValueError, match="'id' has 90 values, such as '0'; subgroups need at most"):
        subgroups.split(one, "id")


def test_the_columns_of_a_result_are_those_with_two_values_and_not_its_labels():
    labels = np.tile([0, 1, 2], 2)
    names = np.array(CLASSES)[labels]
    groups = {"machine": ["A", "B"] * 3, "centre": ["C"] * 6, "view": names}
    assert subgroups.columns(result(answered(labels, labels, groups=groups))) == ["machine"]


def test_values_are_in_the_order_of_their_numbers():
    labels = np.tile([0, 1, 2], 12)
    operator = np.array(["Op. 10", "Op. 2", "Other", "Op. 1"])[np.arange(36) % 4]
    found = _split(labels, labels, np.arange(36), operator)
    assert [group.name for group in found.groups] == ["Op. 1", "Op. 2", "Op. 10", "Other"]


def _on(name, simulated=False, share=1.0, model="m", **fields):
    labels = np.tile([0, 1, 2], 20)
    answers = np.where(RNG.random(60) < share, labels, (labels + 1) % 3)
    data = {"name": name, "simulated": simulated}
    return result(answered(labels, answers), data=data, model={"name": model}, **fields)


def test_data_sets_beside_one_another():
    found = subgroups.across_data([_on("internal"), _on("external", share=0.5)])
    assert [group.name for group in found.groups] == ["internal", "external"]
    assert found.column == subgroups.DATA_SET
    gap = found.largest["accuracy"]
    assert (gap.better, gap.worse, gap.shared_patients) == ("internal", "external", 0)
    assert gap.beyond_chance
    assert found.notes == ()


def test_simulated_images_stand_beside_real_ones_and_are_not_compared():
    found = subgroups.across_data([_on("phantom", simulated=True, share=0.2), _on("clinic")])
    assert [group.simulated for group in found.groups] == [True, False]
    assert found.largest == {}
    assert "simulated images are not compared with real ones" in found.notes


def test_data_sets_by_other_protocols_are_said():
    other = {"name": "paper", "resample_by": "image", "resamples": 50, "seed": 0}
    found = subgroups.across_data([_on("a"), _on("b", protocol=other)])
    assert "protocols differ in name: a default, b paper" in found.notes


@pytest.mark.parametrize("second", [_on("a"), _on("b", model="other")])
def test_only_one_study_of_one_model_on_several_data_sets(second):
    with pytest.raises(ValueError, match=r"two or more of them; found zero_shot\.planes of m on a"):
        subgroups.across_data([_on("a"), second])
