"""Results of two models on the same images, with known answers."""

import dataclasses

import numpy as np

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result

CLASSES = ("brain", "femur", "heart")
DATA = {
    "name": "clinic",
    "kind": "image_text",
    "simulated": False,
    "stores": {
        "images": {"split": "test", "images": 120, "patients": 40, "copies": 0, "transform": "clip"}
    },
    "left_out": {},
}
PROTOCOL = {"name": "default", "resample_by": "patient", "resamples": 200, "seed": 0}


def predictions(wrong, *, patients=40, per_patient=3, seed=0, **fields) -> Predictions:
    """Answers that miss the images of a mask; classes take turns.

    Args:
      wrong: [n] bool.
    """
    count = patients * per_patient
    labels = np.arange(count) % len(CLASSES)
    answers = np.where(wrong, (labels + 1) % len(CLASSES), labels)
    scores = np.eye(len(CLASSES))[answers] + np.random.default_rng(seed).random((count, 3)) / 10
    names = np.array(CLASSES)
    return Predictions(
        example_id=np.array([f"image{k:04d}" for k in range(count)]),
        patient_id=np.array([f"p{k // per_patient}" for k in range(count)]),
        label=names[labels],
        prediction=names[answers],
        candidates=CLASSES,
        scores=scores,
        **fields,
    )


def misses(share, *, count=120, seed=0):
    """A mask of missed images."""
    return np.random.default_rng(seed).random(count) < share


def zero_shot(name, wrong, study="zero_shot.view", **fields) -> Result:
    """A result of one model; metrics are those that can be measured again."""
    found = predictions(wrong) if "predictions" not in fields else fields.pop("predictions")
    metrics = ("macro_f1", "accuracy", "balanced_accuracy")
    return Result(
        study,
        **{
            "metrics": dict.fromkeys(metrics, Estimate(0.5)),
            "model": {"name": name, "fingerprint": f"print of {name}"},
            "data": DATA,
            "protocol": PROTOCOL,
            "predictions": found,
        }
        | fields,
    )


def few_shot(name, shares, *, sets=5, draws="abcde", sizes=(2, 4, 8), seed=0, **fields) -> Result:
    """A curve whose runs miss a share of the images at each size; `draws` names its sets."""
    runs, ranks, curve = {}, {}, []
    count = 120
    labels = np.arange(count) % 3
    # What makes an image hard is the same for all models.
    hard = np.random.default_rng(9).random((sets, count))
    luck = np.random.default_rng(7).normal(0, 0.08, (len(sizes), sets))
    for k, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        noise = np.random.default_rng([seed, size]).normal(0, 0.01, (sets, 1))
        wrong = hard < share + luck[k][:, None] + noise
        answers = np.where(wrong, (labels + 1) % 3, labels)
        runs[str(size)], ranks[str(size)] = answers.astype(np.int8), wrong.astype(np.int8)
        value = float((~wrong).mean())
        curve.append(
            {
                "patients": size,
                "mean": value,
                "low": value - 0.1,
                "high": min(value + 0.1, 1.0),
                "support_sets": sets,
                "draws": [f"{draw}{size}" for draw in draws],
            }
        )
    found = predictions(wrong[0])
    result = zero_shot(
        name,
        None,
        fields.pop("study", "few_shot.view"),
        predictions=dataclasses.replace(found, runs=runs, ranks=ranks),
        metrics={"macro_f1": Estimate(0.5)},
        protocol=PROTOCOL | {"name": "tuned", "sizes": list(sizes), "support_sets": sets},
        curve=curve,
    )
    for point in curve:
        point["mean"] = Answers.of(result.predictions, str(point["patients"])).macro_f1().value
    return dataclasses.replace(result, **fields)
