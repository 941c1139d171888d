"""Answers of one or several runs to the same images, and the measures of them.

Studies make them of scores; analyses make them again of saved predictions, so that a metric is
defined once, wherever it is computed.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.evaluation.statistics import measure, metrics
from fetalclip_jax.evaluation.statistics.measure import Measured, OfSums


@dataclasses.dataclass(frozen=True)
class Answers:
    """Classes that were answered.

    Attributes:
      labels: index of the true class among the candidates.
      predictions: the answer of every run.
      ranks: how many candidates each run preferred to the true class.
      candidates: class names that compete.
    """

    labels: Int[np.ndarray, "n"]
    predictions: Int[np.ndarray, "m n"]
    ranks: Int[np.ndarray, "m n"]
    candidates: tuple[str, ...]

    @classmethod
    def of_scores(
        cls,
        scores: Float[np.ndarray, "m n c"],
        labels: Int[np.ndarray, "n"],
        candidates: tuple[str, ...],
    ) -> "Answers":
        """The highest score is the answer, ties won by the earlier candidate."""
        return cls(labels, scores.argmax(-1), metrics.rank_of_label(scores, labels), candidates)

    @classmethod
    def of(cls, predictions: Predictions, run: str = "") -> "Answers":
        """Those that a result keeps.

        Args:
          run: key of `Predictions.runs`.

        Raises:
          ValueError: a label or an answer that is no candidate, or no such key.
        """
        candidates = tuple(predictions.candidates)
        labels = _indices("label", predictions.label, candidates)
        if run in predictions.runs:
            answered = predictions.runs[run].astype(np.int64)
            return cls(labels, answered, predictions.ranks[run].astype(np.int64), candidates)
        if run or predictions.scores is None:
            raise ValueError(
                f"the predictions hold no answers of runs {run!r} (they have "
                f"{', '.join(map(repr, predictions.runs)) or 'none'}); evaluate again"
            )
        scores = predictions.scores[None]
        answered = _indices("prediction", predictions.prediction, candidates)[None]
        return cls(labels, answered, metrics.rank_of_label(scores, labels), candidates)

    def kept(self, run: str = "") -> dict[str, Mapping[str, np.ndarray]]:
        """`runs` and `ranks` of `Predictions`, small."""
        kind = np.int8 if len(self.candidates) < 128 else np.int32
        return {
            "runs": {run: self.predictions.astype(kind)},
            "ranks": {run: self.ranks.astype(kind)},
        }

    def select(self, rows: np.ndarray) -> "Answers":
        """Those to some of the images (indices or a mask)."""
        return dataclasses.replace(
            self,
            labels=self.labels[rows],
            predictions=self.predictions[:, rows],
            ranks=self.ranks[:, rows],
        )

    def top_k(self) -> tuple[int, ...]:
        """The k of top-k accuracies that make sense of so many candidates."""
        return tuple(k for k in (2, 3) if k < len(self.candidates))

    def measures(self, top_k: tuple[int, ...] | None = None) -> dict[str, Measured]:
        """Means over the runs: macro F1, and accuracies counted by image and by class.

        Accuracy is the share of images, balanced accuracy the mean of the per-class recalls, which
        the paper calls accuracy.

        Args:
          top_k: accuracies beside that of the first answer; None for `top_k()`. One of all
            candidates is 1 whatever was answered: it is no metric, and left out.
        """
        found = {"macro_f1": self.macro_f1()}
        top_k = self.top_k() if top_k is None else top_k
        for k in (1, *(k for k in top_k if k < len(self.candidates))):
            prefix = "" if k == 1 else f"top{k}_"
            # Of runs, the share that hits: the mean over runs commutes with that over images.
            hits = (self.ranks < k).mean(0)
            found[f"{prefix}accuracy"] = measure.mean(hits)
            found[f"balanced_{prefix}accuracy"] = measure.balanced_accuracy(hits, self.labels)
        rows = np.arange(len(self.labels))
        return {name: Measured(one, rows) for name, one in found.items()}

    def macro_f1(self) -> OfSums:
        return measure.macro_f1(self.labels, self.predictions, len(self.candidates))

    def run_macro_f1(self) -> Float[np.ndarray, "m"]:
        """Macro F1 of each run."""
        size = len(self.candidates)
        return np.array([metrics.macro_f1(self.labels, p, size) for p in self.predictions])


def _indices(what: str, names: np.ndarray, candidates: tuple[str, ...]) -> np.ndarray:
    index = {name: i for i, name in enumerate(candidates)}
    unknown = sorted(set(names.tolist()) - index.keys())
    if unknown:
        raise ValueError(f"{what} {unknown[0]!r} is none of the candidates {list(candidates)}")
    return np.array([index[name] for name in names.tolist()], np.int64)
