"""Results made by hand, as analyses read them from disk."""

import types

import numpy as np

from fetalclip_jax.data.example import Example
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result

CLASSES = ("brain", "femur", "heart")
DATA = {"name": "clinic", "simulated": False}


def predictions(scores, labels, patients=None, classes=CLASSES, groups=None) -> Predictions:
    """Of scores [n, c] and labels, indices of the classes."""
    names = np.array(classes)
    patients = np.arange(len(labels)) if patients is None else np.asarray(patients)
    return Predictions(
        example_id=np.array([f"e{i}" for i in range(len(labels))]),
        patient_id=patients.astype(str),
        label=names[labels],
        prediction=names[np.argmax(scores, 1)],
        candidates=tuple(classes),
        scores=np.asarray(scores, np.float64),
        groups={name: np.asarray(values) for name, values in (groups or {}).items()},
    )


def result(found: Predictions, study="zero_shot.planes", *, metrics=None, **fields) -> Result:
    """Zero-shot scores at a logit scale of 100, unless said otherwise; 200 resamples."""
    measured = Answers.of(found).measures()
    names = measured if metrics is None else metrics
    fields = {
        "model": {"name": "m", "fingerprint": "f"},
        "data": DATA,
        "protocol": {"name": "default", "resample_by": "patient", "resamples": 200, "seed": 0},
        "details": {"classes": list(found.candidates), "logit_scale": 100.0},
    } | fields
    values = {name: Estimate(measured[name].measure.value) for name in names}
    return Result(study, values, predictions=found, **fields)


def answered(labels, answers, patients=None, classes=CLASSES, groups=None) -> Predictions:
    """Of answers, indices of the classes, each of them sure."""
    return predictions(np.eye(len(classes))[answers], labels, patients, classes, groups)


def source(ids, columns=None, first=0):
    """Images whose pixels are their number."""

    class Source:
        facts = types.SimpleNamespace(group_columns=())

        def __len__(self):
            return len(ids)

        def __getitem__(self, index):
            return Example(ids[index], np.full((2, 3), first + index, np.uint8))

        def metadata(self):
            return {"example_id": np.array(ids)} | (columns or {})

    return Source()
