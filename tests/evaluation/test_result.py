"""A result on disk: what lies beside it must be its own."""

import dataclasses
import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import result as results
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.result import Estimate
from tests.evaluation.saved import answered, result

LABELS = np.tile([0, 1, 2], 10)
ANSWERS = np.where(np.arange(30) < 24, LABELS, 0)


def _whole(**fields):
    """Twenty-six of thirty right, with the metrics that its predictions give."""
    found = answered(LABELS, ANSWERS)
    metrics = {
        name: Estimate(one.measure.value, n=30)
        for name, one in Answers.of(found).measures().items()
    }
    made = result(found, "probe.brain", environment={"python": "3"})
    return dataclasses.replace(made, metrics=metrics, validation=found, **fields)


@pytest.fixture
def saved(tmp_path):
    return _whole().save(tmp_path)


def test_everything_comes_back(saved):
    groups = {"machine": np.repeat(["A", ""], 15)}
    made = _whole()
    made = dataclasses.replace(
        made, predictions=dataclasses.replace(made.predictions, groups=groups)
    )
    made.save(saved.parent)
    found = results.load(saved)
    assert found.environment == {"python": "3"}
    assert found.validation.example_id.tolist() == made.validation.example_id.tolist()
    np.testing.assert_array_equal(found.predictions.groups["machine"], groups["machine"])
    assert "machine" in saved.with_suffix(".csv").read_text().splitlines()[0]
    # A result that replaces it takes its validation away.
    dataclasses.replace(made, validation=None).save(saved.parent)
    assert results.load(saved).validation is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("environment", "x", "environment is a str, not an object"),
        ("protocol", [1], "protocol is a list, not an object"),
        ("data", {"stores": [1]}, "data.stores is no object"),
        ("details", 1, "details is a int, not an object"),
    ],
)
def test_fields_of_another_kind_are_refused(saved, name, value, message):
    fields = json.loads(saved.read_text()) | {name: value}
    saved.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=rf"probe\.brain\.json is no result .*{message}"):
        results.load(saved)


def test_predictions_of_another_result_are_refused(saved, tmp_path):
    other = result(answered(LABELS[:20], ANSWERS[:20]), "probe.brain")
    npz = other.save(tmp_path / "other").with_suffix(".npz")
    saved.with_suffix(".npz").write_bytes(npz.read_bytes())
    with pytest.raises(ValueError, match=r"judges 30 images, the \.npz beside it holds 20"):
        results.load(saved)


def test_validation_of_other_classes_is_refused(saved, tmp_path):
    other = answered(LABELS, ANSWERS, classes=("a", "b", "c"))
    made = result(other, "probe.brain")
    path = dataclasses.replace(made, validation=other).save(tmp_path / "other")
    beside = "probe.brain.validation.npz"
    saved.with_name(beside).write_bytes(path.with_name(beside).read_bytes())
    with pytest.raises(ValueError, match=r"validation\.npz has the classes \['a', 'b', 'c'\]"):
        results.load(saved)


@pytest.mark.parametrize("ending", [".npz", ".validation.npz"])
def test_a_damaged_archive_is_named(saved, ending):
    path = saved.with_name(saved.stem + ending)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"probe\.brain\{ending} beside it is damaged"):
        results.load(saved)


def test_metrics_that_the_predictions_do_not_give_are_refused(saved):
    studies.check_predictions(results.load(saved))
    fields = json.loads(saved.read_text())
    fields["metrics"]["macro_f1"]["value"] = 0.5
    saved.write_text(json.dumps(fields))
    with pytest.raises(
        ValueError, match=r"macro_f1 is 0\.5 and the predictions beside it give 0\.8"
    ):
        studies.check_predictions(results.load(saved))
    # Older results did not keep the answers of every run: theirs need not agree.
    saved.write_text(json.dumps(fields | {"environment": {}}))
    studies.check_predictions(results.load(saved))
