"""The linear-probe study: folds by patient x seeds, tested on a fixed set of patients."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation import metrics, splits
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.linear_probe import LinearProbes, ProbeConfig, fit
from fetalclip_jax.evaluation.tasks import PROBE_TASKS, Task, find_task

# The published protocol: features as they are.
PAPER = ProbeConfig()
# The strongest probe a linear layer makes of features of any scale; raw pixels always get it.
TUNED = ProbeConfig(learning_rates=(3e-4, 3e-3), feature_scaling="standardise")

INPUTS = ("features", "raw_pixels")

__all__ = ["INPUTS", "PAPER", "TUNED", "LinearProbes", "ProbeConfig", "evaluate", "fit"]


class ProbeData:
    """A pool and a test store, ready for one task.

    Attributes:
      task: the classification task.
      features: inputs of the pool's judged rows.
      labels: their classes.
      patients: their patients.
      trains: whether a row may train: augmented copies, or clean images where there are none.
      validates: whether a row may validate: clean images.
      test: the clean, judged rows of the test store.
      test_features: their inputs.
      test_labels: their classes.
    """

    def __init__(self, train_store: FeatureStore, test_store: FeatureStore, task: str, inputs: str):
        if inputs not in INPUTS:
            raise ValueError(f"inputs must be one of {INPUTS}, found {inputs!r}")
        test_store.check_model(train_store.fingerprint.get("model"))
        leaked = np.intersect1d(train_store.patients(), test_store.patients())
        if len(leaked):
            raise ValueError(
                f"{len(leaked)} patients are in the pool and in the test set, such as "
                f"{str(leaked[0])!r}: a probe would be tested on patients it trained on"
            )
        self.task: Task = find_task(PROBE_TASKS, task)
        rows, self.labels = self.task.select(train_store)
        pool = train_store.select(rows)
        pool.clean()  # validation needs clean images
        self.features = _inputs(pool, inputs)
        self.patients = pool.patients()
        self.validates = pool.copy == 0
        self.trains = pool.copy > 0 if (pool.copy > 0).any() else self.validates
        test_rows, self.test_labels = self.task.select(test_store.clean())
        self.test = test_store.clean().select(test_rows)
        self.test_features = _inputs(self.test, inputs)

    def rows(self, split: splits.Split) -> tuple[Int[np.ndarray, "a"], Int[np.ndarray, "b"]]:
        """Training and validation rows of a split of patients."""
        train, validation = split
        return (
            np.flatnonzero(self.trains & np.isin(self.patients, train)),
            np.flatnonzero(self.validates & np.isin(self.patients, validation)),
        )

    def fit(
        self,
        patient_splits: Sequence[splits.Split],
        runs: int,
        config: ProbeConfig,
        *,
        seed: int,
        pad_to: tuple[int, int] = (0, 0),
        progress: bool = False,
    ) -> LinearProbes:
        """`runs` probes of every split, ordered split by split."""
        pairs = [self.rows(split) for split in patient_splits for _ in range(runs)]
        return fit(
            self.features,
            self.labels,
            [train for train, _ in pairs],
            [validation for _, validation in pairs],
            num_classes=len(self.task.candidates),
            config=config,
            seeds=_run_seeds(seed, len(pairs)),
            pad_to=pad_to,
            progress=progress,
        )


def evaluate(
    train_store: FeatureStore,
    test_store: FeatureStore,
    task: str = "planes",
    *,
    inputs: str = "features",
    config: ProbeConfig | None = None,
    folds: int = 5,
    runs: int = 5,
    patient_splits: Sequence[splits.Split] | None = None,
    resample_by: str = "patient",
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Train `folds` x `runs` linear probes and test each on all clean images of `test_store`.

    Probes train on augmented copies (on clean images if the store has no copies), and the best
    epoch is chosen on clean images of the held-out patients.

    Args:
      train_store: the pool of patients that is folded.
      test_store: other patients, encoded by the same model.
      task: "planes" (six) or "brain" (three).
      inputs: "features", or "raw_pixels" for the baseline on 16 x 16 thumbnails.
      config: None is `PAPER` for features and `TUNED` for raw pixels, the fair baseline.
      folds: number of folds, where no splits are given.
      runs: seeds per fold.
      patient_splits: official folds; replaces `folds`.
      resample_by: "patient", or "image" to match the paper.
      resamples: bootstrap samples of the test set.
      seed: of the folds, the probes and the bootstrap.
      progress: show a progress bar.

    Returns:
      A JSON-able dict. Metrics are means over all runs; their intervals resample the test set.
      `confusion` is the sum over the runs.

    Raises:
      ValueError: if the stores share patients, come from two models or lack the labels.
    """
    data = ProbeData(train_store, test_store, task, inputs)
    if config is None:
        config = PAPER if inputs == "features" else TUNED
    if patient_splits is None:
        patient_splits = splits.folds_by_patient(data.patients, folds, seed)
    probes = data.fit(patient_splits, runs, config, seed=seed, progress=progress)
    logits = probes.logits(data.test_features)
    predictions, labels = logits.argmax(-1), data.test_labels
    classes = data.task.candidates
    groups = data.test.bootstrap_groups(resample_by)

    def interval(statistic):
        return list(metrics.bootstrap_interval(statistic, groups, resamples=resamples, seed=seed))

    per_class = np.stack([metrics.f1_per_class(labels, p, len(classes)) for p in predictions])
    present = np.unique(labels)
    run_f1 = per_class[:, present].mean(1)
    top = {k: metrics.top_k_hits(logits, labels, k).mean(0) for k in (1, 2)}
    confusion = sum(metrics.confusion_matrix(labels, p, len(classes)) for p in predictions)
    return {
        "macro_f1": float(run_f1.mean()),
        "macro_f1_interval": interval(
            lambda w: metrics.weighted_macro_f1(w, labels, predictions, len(classes)).mean(1)
        ),
        "macro_f1_deviation_over_runs": float(run_f1.std(ddof=1)) if len(run_f1) > 1 else None,
        "accuracy": float(top[1].mean()),
        "accuracy_interval": interval(lambda w: metrics.weighted_mean(w, top[1])),
        "top2_accuracy": float(top[2].mean()),
        "top2_accuracy_interval": interval(lambda w: metrics.weighted_mean(w, top[2])),
        "per_class_f1": {classes[i]: float(per_class[:, i].mean()) for i in present},
        "classes": list(classes),
        "labels": list(classes),
        "confusion": confusion.tolist(),
        "runs": len(predictions),
        "folds": len(patient_splits),
        "run_macro_f1": run_f1.tolist(),
        "inputs": inputs,
        "feature_scaling": config.feature_scaling,
        "learning_rates_chosen": _times_chosen(probes, config),
        "median_best_epoch": float(np.median(probes.best_epoch)),
        "count": len(labels),
        "patients": len(np.unique(data.test.patients())),
        "train_patients": len(np.unique(data.patients)),
        "chance_macro_f1": metrics.chance_macro_f1(labels, len(classes)),
        "majority_macro_f1": metrics.majority_macro_f1(labels),
        "resample_by": resample_by,
    }


def _inputs(store: FeatureStore, inputs: str) -> Float[np.ndarray, "n d"]:
    if inputs == "features":
        return store.image_features
    return store.raw_pixels.astype(np.float32) / 255


def _run_seeds(seed: int, count: int) -> np.ndarray:
    """Seeds that differ between runs and between studies of another `seed`."""
    return np.random.default_rng([seed, count]).integers(0, 2**32, count, dtype=np.uint32)


def _times_chosen(probes: LinearProbes, config: ProbeConfig) -> dict[str, int]:
    return {
        f"{rate:g}": int((probes.learning_rate == rate).sum()) for rate in config.learning_rates
    }
