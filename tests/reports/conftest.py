"""A finished run and its results, saved as `evaluate` saves them, with known answers."""

import json
import pathlib

import numpy as np
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation import examples
from fetalclip_jax.evaluation.result import Baseline, Estimate, Predictions, Result
from fetalclip_jax.labels import BRAIN_PLANES, PLANES, SIX_PLANES

ZERO_SHOT_LABELS = ("abdomen", "brain", "femur", "heart", "cervix")
MODEL = {"name": "quickstart", "fingerprint": "f00d"}
STORE = {
    "split": "test",
    "images": 400,
    "patients": 67,
    "copies": 0,
    "transform": "clip",
    "missing_files": 0,
}
DATA = {
    "name": "phantom",
    "kind": "phantom",
    "simulated": True,
    "ages_from": "recorded",
    "citation": "",
    "licence": "",
    "stores": {"images": STORE},
    "left_out": {},
}
REAL = DATA | {"name": "clinic", "kind": "image_text", "simulated": False, "ages_from": ""}
PROTOCOL = {"name": "default", "resample_by": "patient", "resamples": 1000, "seed": 0}


def cost(seconds: float, peak: float) -> dict[str, float]:
    """What every study records about itself."""
    return {"seconds": seconds, "peak_rss_gib": peak}


def classification(study, classes, labels=None, *, accuracy=0.9, count=120, runs=1, **fields):
    """A result of a classifier that is right `accuracy` of the time."""
    rng = np.random.default_rng(len(study))
    labels = labels or classes
    true = np.array([classes.index(labels[i % len(labels)]) for i in range(count)])
    wrong = (true + 1 + rng.integers(0, 2, count)) % len(classes)
    predicted = np.where(rng.random(count) < accuracy, true, wrong)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (true, predicted), 1)
    judged = [classes.index(name) for name in labels]
    right = np.diag(confusion)
    f1 = (2 * right / np.maximum(confusion.sum(0) + confusion.sum(1), 1))[judged]
    scores = rng.normal(20, 2, (count, len(classes)))
    scores[np.arange(count), predicted] = 30
    if not study.startswith("zero_shot."):  # probabilities
        scores = np.exp(scores - 30) / np.exp(scores - 30).sum(1, keepdims=True)
    names = np.array(classes)
    macro_f1, groups = float(f1.mean()), count // 6
    fields = {
        "model": MODEL,
        "data": DATA,
        "protocol": PROTOCOL,
        "cost": cost(2.0, 1.2),
        "metrics": {
            "macro_f1": Estimate(macro_f1, macro_f1 - 0.03, macro_f1 + 0.025, count, groups),
            "accuracy": Estimate(float(right.sum() / count), n=count, groups=groups),
        },
        "baselines": {
            "chance_macro_f1": Baseline("macro_f1", Estimate(1 / len(classes)), "chance"),
            "majority_macro_f1": Baseline(
                "macro_f1", Estimate(0.3 / len(classes)), "always the most frequent class"
            ),
        },
        "details": {
            "per_class_f1": dict(zip(labels, f1.tolist(), strict=True)),
            "classes": list(classes),
            "labels": list(labels),
            "confusion": (runs * confusion[judged]).tolist(),
            "runs": runs,
            "scores": "100 x cosine",
            "logit_scale": 20.0,
        },
        "predictions": Predictions(
            example_id=np.array([f"p{i:04d}" for i in range(count)]),
            patient_id=np.array([str(i // 6) for i in range(count)]),
            label=names[true],
            prediction=names[predicted],
            candidates=tuple(classes),
            scores=scores,
            groups={"machine": np.array(["A", "B"])[np.arange(count) // 6 % 2]},
        ),
    } | fields
    return Result(study, **fields)


def age_result(**fields):
    """Ages off by a week or so, with constant ages beside them."""
    rng = np.random.default_rng(7)
    days = rng.integers(16 * 7, 38 * 7, 80)
    hc_mm = who_chart.hc_mm(days / 7) * np.exp(0.035 * rng.normal(size=days.size))
    predicted = np.clip(days + rng.normal(0, 8, days.size).round(), 98, 272).astype(int)
    valid = who_chart.is_valid(predicted, hc_mm)
    rate, error = float(valid.mean()), float(np.abs(predicted - days).mean())
    fields = {
        "model": MODEL,
        "data": DATA,
        "protocol": PROTOCOL,
        "cost": cost(9.4, 1.6),
        "metrics": {
            "valid_prediction_rate": Estimate(rate, rate - 0.07, rate + 0.06, days.size, 14),
            "mae_days": Estimate(error, error - 1.2, error + 1.4, days.size, 14),
        },
        "baselines": {
            "constant_baseline": Baseline(
                "valid_prediction_rate",
                Estimate(0.213, 0.15, 0.28),
                "best constant age for these images",
            ),
            "train_constant_baseline": Baseline(
                "valid_prediction_rate", Estimate(0.199), "best constant age of the fit images"
            ),
            "mae_constant_days": Baseline(
                "mae_days", Estimate(38.4), "best constant age for these images"
            ),
        },
        "details": {
            "constant_baseline_days": 159,
            "train_constant_days": 163,
            "left_out": {"without_hc_mm": 3, "without_spacing": 0},
        },
        "predictions": Predictions(
            example_id=np.array([f"p{i:04d}" for i in range(days.size)]),
            patient_id=np.array([str(i // 6) for i in range(days.size)]),
            label=days.astype(str),
            prediction=predicted,
            extra={"hc_mm": hc_mm, "ga_days": days.astype(np.float64), "valid": valid},
            groups={"machine": np.array(["A", "B"])[np.arange(days.size) // 6 % 2]},
        ),
    } | fields
    return Result("age", **fields)


def merged_result(**fields):
    """Classes of two tasks in one table, without a confusion."""
    table = [
        {"class": name, "task": task, "f1": f1, "recall": 0.5, "count": 12}
        for name, task, f1 in (("brain", "planes", 0.9125), ("trans-thalamic", "brain", 0.6))
    ]
    fields = {
        "metrics": {"macro_f1": Estimate(0.756, 0.7, 0.8, 120, 20)},
        "model": MODEL,
        "data": DATA,
        "protocol": PROTOCOL,
        "details": {"table": table, "per_class_f1": {row["class"]: row["f1"] for row in table}},
        "cost": cost(3.0, 1.1),
    } | fields
    return Result("zero_shot.merged", **fields)


def few_shot_result(**fields):
    """A curve that rises with the patients."""
    curve = [
        {"patients": p, "mean": m, "low": m - 0.1, "high": m + 0.05, "support_sets": 5}
        for p, m in zip((2, 4, 8, 16), (0.61, 0.74, 0.83, 0.88), strict=True)
    ]
    fields = {
        "metrics": {"macro_f1": Estimate(0.88, 0.78, 0.93, 120, 20)},
        "model": MODEL,
        "data": DATA,
        "protocol": PROTOCOL | {"name": "tuned"},
        "curve": curve,
        "cost": cost(30.5, 1.5),
    } | fields
    return Result("few_shot.planes", **fields)


def all_results(**fields) -> list[Result]:
    """One result of every kind of study."""
    tuned = {"protocol": PROTOCOL | {"name": "tuned"}} | fields
    return [
        classification("zero_shot.planes", PLANES, ZERO_SHOT_LABELS, **fields),
        classification("zero_shot.brain", BRAIN_PLANES, accuracy=0.7, **fields),
        age_result(**fields),
        classification("probe.planes", SIX_PLANES, accuracy=0.95, runs=25, **tuned),
        classification("probe.raw_pixels", SIX_PLANES, accuracy=0.5, runs=25, **tuned),
        few_shot_result(**tuned),
    ]


def save(results, folder: pathlib.Path) -> pathlib.Path:
    """Writes results where `evaluate` does: <folder>/<model>/<data>/<study>.json."""
    for result in results:
        result.save(folder / result.model["name"] / result.data["name"])
    return folder


def save_examples(result: Result, folder: pathlib.Path) -> None:
    """Stores example images of a result that `save` wrote into `folder`."""
    rows = examples.pick(result.predictions)
    images = [np.full((24, 24), 10 * k, np.uint8) for k in range(len(rows))]
    beside = folder / result.model["name"] / result.data["name"]
    examples.save(beside, result.study, rows, images)


def write_run(workdir: pathlib.Path) -> pathlib.Path:
    """What training leaves: configuration, metrics and its cost."""
    config = {
        "name": "quickstart",
        "data": {"source": "phantom"},
        "train": {"global_batch_size": 64, "steps": 1200},
        "loss": {"name": "softmax"},
    }
    (workdir / "results").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config))
    with (workdir / "metrics.jsonl").open("w") as file:
        for step in range(100, 1201, 100):
            entry = {"step": step, "loss": 0.9 + 3.2 * np.exp(-step / 260), "learning_rate": 1e-3}
            file.write(json.dumps(entry) + "\n")
            if step % 400 == 0:
                file.write(json.dumps({"step": step, "val_loss": entry["loss"] + 0.1}) + "\n")
    train = {"steps": 1200, "images_seen": 76800, "parameters": 3_214_593, **cost(412.7, 2.31)}
    seconds = {"step": 372.0, "data_wait": 3.0, "compile": 25.0, "lost": 0.0}
    train |= {"goodput": {"share": 0.93, "data_wait_share": 0.008, "seconds": seconds}}
    train |= {"skipped_steps": 3, "loss_spikes": 1}
    (workdir / "results" / "train.json").write_text(json.dumps(train))
    return workdir


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """A run that was trained and not evaluated."""
    return write_run(tmp_path / "run")


@pytest.fixture
def evaluated(workdir) -> pathlib.Path:
    """A run with a result of every kind of study, and example images of one."""
    results = all_results()
    save(results, workdir / "results")
    save_examples(results[0], workdir / "results")
    return workdir
