"""What intervals do not cover is said, and nothing where they do."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.evaluation.caveats import caveats
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result


def _result(patients, labels, *, resample_by="patient", low=0.1):
    count = len(labels)
    metrics = {
        name: Estimate(0.5, low, 0.9 if low else None, count, 2)
        for name in ("macro_f1", "balanced_accuracy", "mae_days")
    }
    predictions = Predictions(
        example_id=np.arange(count).astype(str),
        patient_id=np.asarray(patients).astype(str),
        label=np.asarray(labels),
        prediction=np.asarray(labels),
    )
    return Result(
        "zero_shot.planes",
        metrics,
        protocol={"resample_by": resample_by},
        predictions=predictions,
    )


MANY = ["brain"] * 60 + ["femur"] * 60
OWN = np.arange(120)


def test_few_support_sets_are_said():
    points = [{"patients": 2, "support_sets": 5}, {"patients": 8, "support_sets": 2}]
    (found,) = caveats(dataclasses.replace(_result(OWN, MANY), curve=points))
    assert "fewer than 5 support sets (8 patients)" in found


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (_result(OWN, MANY), []),
        (_result(OWN // 2, MANY, resample_by="image"), ["120 of 60 patients"]),
        (_result(OWN, MANY, resample_by="image"), []),
        (_result(OWN, ["brain"] * 115 + ["femur"] * 5), ["femur (5)"]),
        (_result(OWN // 10, MANY), ["brain (6), femur (6)", "12 patients: about 90 %"]),
        (_result(OWN // 10, MANY, resample_by="image", low=None), []),
    ],
)
def test_each_weakness_is_a_sentence(result, words):
    found = caveats(result)
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert word in sentence
