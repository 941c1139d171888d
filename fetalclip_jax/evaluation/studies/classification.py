"""What every classification study reports, from scores to `Result` fields."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.result import Baseline, Estimate, Predictions
from fetalclip_jax.evaluation.statistics import metrics
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.intervals import Spread


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

    @functools.cached_property
    def answers(self) -> Answers:
        return Answers.of_scores(self.scores, self.labels, self.candidates)

    def metrics(
        self, top_k: Sequence[int] = (), others: Mapping[str, Sequence[Spread]] | None = None
    ) -> dict[str, Estimate]:
        """The estimates of `Answers.measures`.

        Args:
          others: further sources of chance, by metric.
        """
        return self.bootstrap.estimates(self.answers.measures(tuple(top_k)), others)

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
        predictions = self.answers.predictions
        present = np.unique(labels)
        f1 = np.stack([metrics.f1_per_class(labels, p, size) for p in predictions])
        recall = metrics.recall_per_class((predictions == labels).mean(0), labels, size)
        confusion = sum(metrics.confusion_matrix(labels, p, size) for p in predictions)
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
            groups=group_columns(self.store),
            **(self.answers.kept() if len(self.scores) > 1 else {}),
        )
