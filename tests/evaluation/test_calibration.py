"""Calibration and abstention of results: what is fitted on whom, what it gives, what is refused."""

import json

import numpy as np
import pytest
from scipy import special

from fetalclip_jax.evaluation import age
from fetalclip_jax.evaluation.calibration import calibrate
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from tests.evaluation.saved import CLASSES, predictions, result


def _sample(seed, patients=60, images=4, temperature=1.0, groups=None):
    """Zero-shot scores of which the probabilities at `temperature` are true."""
    rng = np.random.default_rng(seed)
    count = patients * images
    logits = 2.5 * rng.normal(size=(count, 3))
    labels = (special.softmax(logits, axis=1).cumsum(1) < rng.random((count, 1))).sum(1)
    owners = np.char.add(f"{seed}-", np.repeat(np.arange(patients), images).astype(str))
    return temperature * logits, labels, owners, groups


@pytest.fixture(scope="module")
def too_sure():
    """Scores three times as large as they should be, at a logit scale of 50."""
    logits, labels, owners, _ = _sample(0, temperature=3.0)
    machine = np.tile(["A", "B", ""], 80)
    found = predictions(2 * logits, labels, owners, groups={"machine": machine})
    details = {"classes": list(CLASSES), "logit_scale": 50.0}
    return calibrate(result(found, details=details))


def test_a_temperature_makes_probabilities_true(too_sure):
    assert len(too_sure.temperatures) == 5  # one for each fold
    np.testing.assert_allclose(too_sure.temperatures, 3.0, rtol=0.25)
    before, after = too_sure.before, too_sure.after
    assert before.expected_error > 0.1
    assert before.rms_error.low > 0.05
    assert after.expected_error < 2 * after.expected_by_chance
    assert after.rms_error.low == 0
    assert after.log_loss.value < 0.8 * before.log_loss.value
    assert after.brier.value < before.brier.value
    assert (after.brier.n, after.brier.groups) == (240, 60)
    assert sum(one["images"] for one in after.bins) == 240
    assert "5 folds" in too_sure.fitted_on
    assert (too_sure.images, too_sure.patients, too_sure.notes) == (240, 60, ())


def test_errors_at_a_coverage(too_sure):
    found = too_sure.abstention
    errors = [found.error_at[coverage] for coverage in (0.8, 0.9, 1.0)]
    assert [e.n for e in errors] == [192, 216, 240]
    assert errors[0].value < errors[1].value < errors[2].value
    assert found.area.low < found.area.value < errors[2].value
    assert found.curve[-1] == (1.0, errors[2].value)
    # The threshold was chosen on other patients: near what was asked, not below it by decree.
    assert 0 < found.error.value < 0.12
    assert found.error.n == round(found.coverage.value * 240)


def test_sets_cover_as_promised(too_sure):
    ninety, more = too_sure.sets
    assert (ninety.level, more.level) == (0.9, 0.95)
    assert ninety.coverage.low < 0.9 < ninety.coverage.high
    assert more.coverage.value > ninety.coverage.value
    assert more.size.value > ninety.size.value
    assert ninety.coverage.value == pytest.approx(ninety.image_coverage.value)  # as many images
    assert not ninety.trivial
    assert set(ninety.of_class) == set(CLASSES)
    assert set(ninety.of_group["machine"]) == {"A", "B", "unknown"}
    images = [e.n for e in ninety.of_group["machine"].values()]
    assert images == [80, 80, 80]
    several = 1 - ninety.single.value - ninety.empty.value
    assert 0 < several < 1


def test_sets_cover_on_average_over_data_sets():
    found = []
    for seed in range(40):
        logits, labels, owners, _ = _sample(seed, patients=25)
        found.append(calibrate(result(predictions(logits, labels, owners))).sets[0])
    assert 0.89 < np.mean([one.coverage.value for one in found]) < 0.95


def test_a_probe_is_calibrated_by_its_validation_patients():
    logits, labels, owners, _ = _sample(1, temperature=0.5)
    learnt, learnt_labels, learnt_owners, _ = _sample(2, patients=200, temperature=0.5)
    found = result(
        predictions(special.softmax(logits, axis=1), labels, owners),
        "probe.planes",
        validation=predictions(special.softmax(learnt, axis=1), learnt_labels, learnt_owners),
    )
    calibrated = calibrate(found)
    assert len(calibrated.temperatures) == 1
    assert calibrated.temperatures[0] == pytest.approx(0.5, rel=0.15)
    assert "800 validation images of 200 patients" in calibrated.fitted_on
    # The judged labels have no say: others give the same temperature.
    other = result(
        predictions(special.softmax(logits, axis=1), (labels + 1) % 3, owners),
        "probe.planes",
        validation=found.validation,
    )
    assert calibrate(other).temperatures == calibrated.temperatures


def test_what_is_applied_to_a_patient_was_chosen_without_him():
    logits, labels, owners, _ = _sample(3, patients=5, images=40)
    first = calibrate(result(predictions(logits, labels, owners)))
    changed = np.where(owners == owners[0], (labels + 1) % 3, labels)
    second = calibrate(result(predictions(logits, changed, owners)))
    same = np.isclose(first.temperatures, second.temperatures)
    assert same.sum() == 1  # that of the fold in which this patient is judged


def test_too_few_patients_for_a_coverage_are_said():
    found = calibrate(result(predictions(*_sample(4, patients=10)[:3])))
    # Eight patients to choose on: 90 % needs nine.
    assert [one.trivial for one in found.sets] == [True, True]
    assert found.sets[0].coverage.value == 1
    assert found.sets[0].size.value == 3


def test_images_are_drawn_where_the_protocol_says_so():
    protocol = {"name": "paper", "resample_by": "image", "resamples": 100, "seed": 0}
    found = calibrate(result(predictions(*_sample(5)[:3]), protocol=protocol))
    assert found.after.brier.groups == 240
    assert found.patients == 60


def test_a_scale_that_was_not_recorded_is_said():
    found = result(predictions(*_sample(6)[:3]), details={"classes": list(CLASSES)})
    assert "logit scale was not recorded: taken as 100" in calibrate(found).notes[0]


def test_a_perfect_model_has_no_certain_temperature_and_no_zero_width():
    labels = np.tile([0, 1, 2], 40)
    found = calibrate(result(predictions(np.eye(3)[labels], labels)))
    assert any("temperature is undecided" in note for note in found.notes)
    assert found.abstention.error_at[1.0].value == 0
    assert found.abstention.error_at[1.0].high > 0
    assert all(one["low"] < 1 for one in found.after.bins)


def test_all_of_it_is_json(too_sure):
    written = json.loads(json.dumps(too_sure.to_json(), allow_nan=False))
    assert written["sets"][0]["coverage"]["value"] == too_sure.sets[0].coverage.value
    assert written["abstention"]["error_at"].keys() == {"0.8", "0.9", "1.0"}


def _age():
    found = Predictions(
        example_id=np.array(["a"]),
        patient_id=np.array(["a"]),
        label=np.array(["150"]),
        prediction=np.array([150]),
        candidates=tuple(map(str, age.DAYS)),
        scores=np.zeros((1, len(age.DAYS))),
    )
    data = {"name": "clinic"}
    return Result("age", {"mae_days": Estimate(0.0)}, {"name": "m"}, data, predictions=found)


def _of_one_patient():
    logits, labels, _, _ = _sample(7, patients=1)
    return result(predictions(logits, labels, np.zeros(4, int)))


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (_age(), "age of m on clinic cannot be calibrated: its candidates are days"),
        (_of_one_patient(), "all images are of one patient"),
        (result(predictions(*_sample(8)[:3]), "probe.planes"), "are no probabilities.*add up to"),
        (result(predictions(*_sample(8)[:3]), "few_shot.planes", curve=[{}]), "a curve"),
        (result(predictions(*_sample(8)[:3]), "classification"), "what its scores mean"),
    ],
)
def test_results_without_probabilities(one, message):
    with pytest.raises(ValueError, match=message):
        calibrate(one)


def test_scores_that_are_not_finite_are_refused():
    logits, labels, owners, _ = _sample(9)
    found = predictions(logits, labels, owners)
    found.scores[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"scores of zero_shot\.planes.*first example 'e3'"):
        calibrate(Result("zero_shot.planes", {}, {"name": "m"}, {"name": "c"}, predictions=found))


def test_answers_are_ranked_across_folds_by_what_the_model_says(too_sure):
    """Folds have temperatures of their own, which would rank one above another."""
    logits, labels, *_ = _sample(0, temperature=3.0)
    confidence = special.softmax(logits, axis=1).max(1)
    surest = np.argsort(-confidence, kind="stable")[: int(0.8 * len(labels))]
    wrong = logits.argmax(1) != labels
    assert too_sure.abstention.error_at[0.8].value == pytest.approx(wrong[surest].mean())


def test_without_a_wrong_answer_the_patients_bound_the_error():
    labels = np.tile([0, 1, 2], 20)
    found = calibrate(
        result(
            predictions(np.eye(3)[labels] * 20, labels, np.arange(60)),
            details={"classes": list(CLASSES), "logit_scale": 100.0},
        )
    )
    assert found.before.expected_error < 1e-6
    assert found.before.rms_error.high == pytest.approx(1 - 0.025 ** (1 / 60))
