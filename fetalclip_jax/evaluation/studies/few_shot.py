"""The few-shot study: how a linear probe grows with the number of training patients."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax.evaluation import metrics, splits
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.probes import TUNED, ProbeConfig, ProbeData

# The published protocol of the six planes; brain planes were trained at 1e-4.
PAPER = ProbeConfig(batch_size=16, epochs=100)
PAPER_BRAIN = dataclasses.replace(PAPER, learning_rates=(1e-4,))
TUNED = dataclasses.replace(TUNED, batch_size=16, epochs=100)

SIZES = (2, 4, 8, 16, 32)


def evaluate(
    train_store: FeatureStore,
    test_store: FeatureStore,
    task: str = "planes",
    *,
    patients: Sequence[int] = SIZES,
    support_sets: int = 5,
    runs: int = 5,
    patient_splits: Mapping[int, Sequence[splits.Split]] | None = None,
    inputs: str = "features",
    config: ProbeConfig | None = None,
    resample_by: str = "patient",
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Macro F1 against the number of training patients, on all clean images of `test_store`.

    Each support set has as many validation as training patients. All support sets x runs of one
    size are one jitted program. Patients are drawn among those with an image of the task.

    The interval holds the chance of the support set, of the run and of the test set: every
    resample draws support sets with replacement, runs of each with replacement, and test patients
    with replacement.

    Args:
      train_store: the pool of patients.
      test_store: other patients, encoded by the same model.
      task: "planes" (six) or "brain" (three).
      patients: sizes of the support sets.
      support_sets: draws per size.
      runs: seeds per draw.
      patient_splits: official support sets by size; replaces `patients` and `support_sets`.
      inputs: "features" or "raw_pixels".
      config: None is the published protocol of the task for features, `TUNED` for raw pixels.
      resample_by: "patient", or "image" to match the paper.
      resamples: bootstrap samples.
      seed: of the draws, the probes and the bootstrap.
      progress: show a progress bar over the epochs of each size.

    Returns:
      {"2": {mean, low, high, deviation, runs, support_sets, train_images, feature_scaling}, ...};
      `runs` lists the macro F1 of every run, support set by support set.

    Raises:
      ValueError: if the pool has too few patients, or for stores that do not fit together.
    """
    data = ProbeData(train_store, test_store, task, inputs)
    if config is None:
        published = PAPER_BRAIN if task == "brain" else PAPER
        config = published if inputs == "features" else TUNED
    if patient_splits is None:
        patient_splits = {
            size: splits.support_sets(data.patients, size, support_sets, seed) for size in patients
        }
    groups = data.test.bootstrap_groups(resample_by)
    labels, classes = data.test_labels, len(data.task.candidates)
    # All sizes share one compiled program, padded to the largest support set.
    rows = [data.rows(draw) for draws in patient_splits.values() for draw in draws]
    pad_to = max(len(train) for train, _ in rows), max(len(held_out) for _, held_out in rows)
    curve = {}
    for size, draws in patient_splits.items():
        probes = data.fit(draws, runs, config, seed=seed, pad_to=pad_to, progress=progress)
        predictions = probes.logits(data.test_features).argmax(-1)
        scores = np.array([metrics.macro_f1(labels, p, classes) for p in predictions])
        rng = np.random.default_rng([seed, size])

        def statistic(weights, predictions=predictions, rng=rng, draws=draws):
            test_scores = metrics.weighted_macro_f1(weights, labels, predictions, classes)
            times = _nested_draws(rng, len(weights), len(draws), runs)
            return (test_scores * times).sum(1) / times.sum(1)

        low, high = metrics.bootstrap_interval(statistic, groups, resamples=resamples, seed=seed)
        curve[str(size)] = {
            "mean": float(scores.mean()),
            "low": low,
            "high": high,
            "deviation": float(scores.std(ddof=1)) if len(scores) > 1 else None,
            "runs": scores.tolist(),
            "support_sets": len(draws),
            "train_images": float(np.mean([len(data.rows(draw)[0]) for draw in draws])),
            "feature_scaling": config.feature_scaling,
        }
    return curve


def _nested_draws(rng, resamples, sets, runs):
    """How often each run [resamples, sets x runs] is drawn: sets first, then runs within each."""
    chosen_sets = rng.integers(0, sets, (resamples, sets, 1))
    chosen_runs = rng.integers(0, runs, (resamples, sets, runs))
    drawn = (chosen_sets * runs + chosen_runs).reshape(resamples, -1)
    flat = drawn + sets * runs * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * sets * runs).reshape(resamples, -1)
