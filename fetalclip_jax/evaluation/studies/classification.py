"""What every classification study reports, from scores to `Result` fields."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.result import Baseline, Estimate, Predictions
from fetalclip_jax.evaluation.statistics import metrics
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite


@dataclasses.dataclass(frozen=True)
class Classification:
    """Answers of one or several runs to the same images.

    Attributes:
      scores: of every candidate; the highest is the answer, ties won by the earlier candidate.
      labels: index of the true class among the candidates.
      candidates: class names that compete, in order.
      store: the images, in the order of the labels.
      bootstrap: of the images.
      shown: scores of all runs together, for the table of predictions; None for the runs' mean.
    """

    scores: Float[np.ndarray, "runs n c"]
    labels: Int[np.ndarray, "n"]
    candidates: tuple[str, ...]
    store: FeatureStore
    bootstrap: Bootstrap
    shown: Float[np.ndarray, "n c"] | None = None

    def __post_init__(self):
        ids = self.store.columns["example_id"]
        require_finite("the scores", np.moveaxis(self.scores, 1, 0), ids)

    @property
    def predictions(self) -> Int[np.ndarray, "runs n"]:
        return self.scores.argmax(-1)

    def metrics(self, top_k: Sequence[int] = ()) -> dict[str, Estimate]:
        """Means over the runs: macro F1, and accuracies counted by image and by class.

        Accuracy is the share of images, balanced accuracy the mean of the per-class recalls, which
        the paper calls accuracy.
        """
        labels, size = self.labels, len(self.candidates)
        found = {"macro_f1": self.macro_f1()}
        for k in (1, *(k for k in top_k if k <= size)):
            prefix = "" if k == 1 else f"top{k}_"
            # Of runs, the share that hits: the mean over runs commutes with that over images.
            hits = metrics.top_k_hits(self.scores, labels, k).mean(0)
            found[f"{prefix}accuracy"] = self.bootstrap.estimate(
                hits.mean(), lambda w, hits=hits: metrics.weighted_mean(w, hits)
            )
            found[f"balanced_{prefix}accuracy"] = self.bootstrap.estimate(
                metrics.balanced_accuracy(hits, labels),
                lambda w, hits=hits: metrics.weighted_balanced_accuracy(w, hits, labels),
            )
        return found

    def macro_f1(self) -> Estimate:
        labels, predictions, size = self.labels, self.predictions, len(self.candidates)
        return self.bootstrap.estimate(
            self.run_macro_f1().mean(),
            lambda w: metrics.weighted_macro_f1(w, labels, predictions, size).mean(1),
        )

    def run_macro_f1(self) -> Float[np.ndarray, "runs"]:
        size = len(self.candidates)
        return np.array([metrics.macro_f1(self.labels, p, size) for p in self.predictions])

    def baselines(self) -> dict[str, Baseline]:
        """A uniform guess and the most frequent label."""
        chance = metrics.chance_macro_f1(self.labels, len(self.candidates))
        majority = metrics.majority_macro_f1(self.labels)
        return {
            "chance_macro_f1": Baseline(
                "macro_f1",
                self.bootstrap.constant(chance),
                f"a uniform guess among the {len(self.candidates)} candidates",
            ),
            "majority_macro_f1": Baseline(
                "macro_f1", self.bootstrap.constant(majority), "always the most frequent label"
            ),
        }

    def details(self) -> dict[str, Any]:
        """Numbers by class; `confusion` is summed over the runs, with a row per entry of `labels`.

        Rows are the classes in the labels, columns all candidates.
        """
        labels, size = self.labels, len(self.candidates)
        present = np.unique(labels)
        f1 = np.stack([metrics.f1_per_class(labels, p, size) for p in self.predictions])
        hits = (self.predictions == labels).mean(0)
        recall = metrics.recall_per_class(hits, labels, size)
        confusion = sum(metrics.confusion_matrix(labels, p, size) for p in self.predictions)
        names = [self.candidates[i] for i in present]
        return {
            "per_class_f1": {self.candidates[i]: float(f1[:, i].mean()) for i in present},
            "per_class_recall": {self.candidates[i]: float(recall[i]) for i in present},
            "balanced_accuracy_is": "mean of the recalls per class, the paper's accuracy and top-k",
            "classes": list(self.candidates),
            "labels": names,
            "confusion": confusion[present].tolist(),
            "count": len(labels),
            "patients": len(np.unique(self.store.patients())),
        }

    def table(self, top: int = 3) -> Predictions:
        """One row per image: its label and the answer of the runs together.

        Args:
          top: so many candidates with their scores become columns too.
        """
        scores = self.scores.mean(0) if self.shown is None else self.shown
        best = np.argsort(-scores, axis=1, kind="stable")
        names = np.array(self.candidates, np.str_)
        extra = {}
        for place in range(min(top, len(names))):
            extra[f"top{place + 1}"] = names[best[:, place]]
            # As float64 again: what is rounded in float32 is written with all its digits.
            extra[f"score{place + 1}"] = np.round(
                np.take_along_axis(scores, best[:, place : place + 1], 1)[:, 0].astype(float), 4
            )
        return Predictions(
            example_id=self.store.columns["example_id"],
            patient_id=self.store.columns["patient_id"],
            label=names[self.labels],
            prediction=names[best[:, 0]],
            candidates=self.candidates,
            scores=scores,
            extra=extra,
        )
