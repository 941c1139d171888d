"""A working directory such as a finished run leaves, with realistic figures and known answers."""

import csv
import json
import pathlib

import numpy as np
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.data.example import Example
from fetalclip_jax.labels import BRAIN_PLANES, PLANES, SIX_PLANES

IMAGE_SIZE = 48
ZERO_SHOT_LABELS = ("abdomen", "brain", "femur", "heart", "cervix")


def write_workdir(workdir: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Fills `workdir` with everything but the records."""
    rng = np.random.default_rng(seed)
    results = workdir / "results"
    results.mkdir(parents=True)
    config = {
        "name": "quickstart",
        "seed": 0,
        "data": {"source": "phantom", "image_size": IMAGE_SIZE},
        "train": {"global_batch_size": 64, "steps": 1200},
        "loss": {"name": "softmax"},
    }
    _write(workdir / "config.json", config)
    _write_metrics(workdir / "metrics.jsonl", rng)
    planes, rows = classification(rng, PLANES, 0.92, 360, ZERO_SHOT_LABELS)
    _write(results / "zero_shot_planes.json", planes | cost(14.2, 1.4))
    _write_csv(results / "predictions_planes.csv", rows)
    brain, rows = classification(rng, BRAIN_PLANES, 0.71, 120)
    _write(results / "zero_shot_brain.json", brain | cost(2.1, 1.3))
    _write_csv(results / "predictions_brain.csv", rows)
    probe, _ = classification(rng, SIX_PLANES, 0.95, 360, runs=25)
    _write(results / "probe_planes.json", probe | cost(21.5, 1.9))
    raw, _ = classification(rng, SIX_PLANES, 0.55, 360, runs=25)
    _write(results / "probe_raw_pixels.json", raw | cost(8.0, 1.2))
    curve = {
        str(p): {"mean": m, "low": m - 0.2 / p**0.7, "high": min(m + 0.16 / p**0.7, 1)}
        for p, m in zip((2, 4, 8, 16, 32), (0.61, 0.74, 0.83, 0.88, 0.92), strict=True)
    }
    _write(results / "few_shot_planes.json", curve | cost(30.5, 1.5))
    _write_age(results, rng)
    train = {"steps": 1200, "images_seen": 76800, "parameters": 3_214_593, **cost(412.7, 2.31)}
    _write(results / "train.json", train)
    return workdir


def cost(seconds: float, peak: float) -> dict[str, float]:
    """What every program records about itself."""
    return {"seconds": seconds, "peak_rss_gib": peak}


def classification(rng, classes, accuracy, count, labels=None, runs=1):
    """A result and its prediction rows for a classifier that is right `accuracy` of the time."""
    labels = labels or classes
    confusion = np.zeros((len(classes), len(classes)), int)
    rows = []
    for i in range(count):
        true = classes.index(labels[int(rng.integers(len(labels)))])
        near = (true + 1 + int(rng.integers(2))) % len(classes)
        predicted = true if rng.random() < accuracy else near
        confusion[true, predicted] += 1
        others = list(dict.fromkeys([true, near, *range(len(classes))]))
        others = [c for c in others if c != predicted][:2]
        scores = np.sort(22 + 4 * rng.normal(size=3))[::-1]
        row = {"example_id": f"p{i:04d}", "patient_id": f"{i // 6}", "label": classes[true]}
        row["prediction"] = classes[predicted]
        for k, c in enumerate([predicted, *others]):
            row |= {f"top{k + 1}": classes[c], f"score{k + 1}": f"{scores[k]:.4f}"}
        rows.append(row)
    right = np.diag(confusion)
    judged = [classes.index(name) for name in labels]
    f1 = (2 * right / np.maximum(confusion.sum(0) + confusion.sum(1), 1))[judged]
    result = {
        "macro_f1": float(f1.mean()),
        "macro_f1_interval": [float(f1.mean() - 0.03), float(min(f1.mean() + 0.025, 1))],
        "accuracy": float(right.sum() / count),
        "per_class_f1": dict(zip(labels, f1.tolist(), strict=True)),
        "classes": list(classes),
        "labels": list(labels),
        "confusion": (runs * confusion[judged]).tolist(),
        "runs": runs,
        "count": count,
        "patients": count // 6,
        "chance_macro_f1": 1 / len(classes),
        "majority_macro_f1": 0.3 / len(classes),
    }
    return result, rows


def _write_metrics(path: pathlib.Path, rng) -> None:
    with path.open("w") as file:
        for step in range(10, 1201, 10):
            falling = np.exp(-step / 260)
            entry = {
                "step": step,
                "loss": 0.9 + 3.2 * falling + 0.08 * rng.normal(),
                "logit_scale": 14.3 + 22 * (1 - falling),
                "learning_rate": 1e-3 * min(step / 100, 0.5 * (1 + np.cos(np.pi * step / 1200))),
                "images_per_second": 182 + 6 * rng.normal(),
                "duplicate_caption_share": abs(0.03 + 0.01 * rng.normal()),
                "seconds": step * 0.35,
            }
            file.write(json.dumps(entry) + "\n")
            if step % 200 == 0:
                val = {"step": step, "val_loss": 1.2 + 3.0 * falling}
                file.write(json.dumps(val) + "\n")


def _write_age(results: pathlib.Path, rng) -> None:
    days = rng.integers(14 * 7, 39 * 7, 150)
    hc = who_chart.hc_mm(days / 7) * np.exp(0.035 * rng.normal(size=days.size))
    predicted = np.clip(days + rng.normal(0, 8, days.size).round(), 98, 272).astype(int)
    kept = (hc >= 100) & (hc <= 342)
    valid = who_chart.is_valid(predicted, hc)[kept]
    rows = [
        {"example_id": f"p{i:04d}", "patient_id": str(i // 6), "ga_days": int(d), "hc_mm": f"{h}",
         "prediction": int(p)}
        for i, (d, h, p) in enumerate(zip(days[kept], hc[kept], predicted[kept], strict=True))
    ]  # fmt: skip
    _write_csv(results / "predictions_age.csv", rows)
    error = np.abs(predicted - days)[kept]
    age = {
        "valid_prediction_rate": float(valid.mean()),
        "valid_prediction_rate_interval": [float(valid.mean() - 0.07), float(valid.mean() + 0.06)],
        "constant_baseline": 0.213,
        "constant_baseline_days": 159,
        "train_constant_baseline": 0.199,
        "train_constant_days": 163,
        "train_median_baseline": 0.174,
        "train_median_days": 178,
        "mae_days": float(error.mean()),
        "mae_constant_days": 38.4,
        "median_implied_hc_error_percent": 3.1,
        "count": int(kept.sum()),
        "patients": 25,
        "seconds": 9.4,
        "peak_rss_gib": 1.6,
    }
    _write(results / "age.json", age)


def _write(path: pathlib.Path, value) -> None:
    path.write_text(json.dumps(value))


def _write_csv(path: pathlib.Path, rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


class Images:
    """Synthetic examples with the ids of the predictions; a source as preparation takes it."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        y, x = np.mgrid[-1 : 1 : IMAGE_SIZE * 1j, -1 : 1 : IMAGE_SIZE * 1j]
        ring = np.abs(np.hypot(x / 0.8, y / (0.5 + 0.3 * rng.random())) - 0.8) < 0.12
        grey = (40 + 150 * ring) * rng.gamma(4, 0.25, ring.shape)
        return Example(f"p{index:04d}", np.clip(grey, 0, 255).astype(np.uint8), patient_id="0")


@pytest.fixture
def image_source() -> Images:
    """Images of the first predictions, ready to be prepared as records."""
    return Images(60)


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """A finished phantom run without records."""
    return write_workdir(tmp_path / "run")
