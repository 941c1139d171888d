"""Classification metrics of labels and answers; `measure` has those that a bootstrap resamples."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from fetalclip_jax.evaluation.statistics.finite import require_finite


def confusion_matrix(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "n"], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Counts with true classes in rows and predicted classes in columns."""
    labels, predictions = _check(labels, predictions)
    flat = labels * num_classes + predictions
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def f1_per_class(
    labels: np.ndarray | Sequence,
    predictions: np.ndarray | Sequence,
    classes: int | Sequence[str] | None = None,
) -> Float[np.ndarray, "c"]:
    """F1 of every class; 0 for a class that was neither labelled nor predicted.

    Args:
      labels: [n] true class of each image: an index, or a name where `classes` are names.
      predictions: [n] predicted class of each image, likewise.
      classes: the names, in the order of the answer, or how many there are; one more than the
        largest index found if None.

    Raises:
      ValueError: if the arrays are empty, differ in length or hold a class that is none of
        `classes`.
    """
    if classes is not None and not isinstance(classes, (int, np.integer)):
        names = list(classes)
        labels, predictions = (
            _indices("labels", labels, names),
            _indices("predictions", predictions, names),
        )
        classes = len(names)
    labels, predictions = _check(labels, predictions)
    largest = int(max(labels.max(), predictions.max()))
    classes = largest + 1 if classes is None else int(classes)
    if largest >= classes:
        raise ValueError(f"class {largest} found, but there are {classes} classes, from 0")
    counts = confusion_matrix(labels, predictions, classes)
    return _f1(np.diag(counts), counts.sum(1), counts.sum(0))


def recall_per_class(
    hits: np.ndarray, labels: Int[np.ndarray, "n"], num_classes: int
) -> Float[np.ndarray, "c"]:
    """Share of each class's images that are hit; nan for a class without an image.

    Args:
      hits: [n] bool, or the share of runs that hit.
    """
    support = np.bincount(labels, minlength=num_classes)
    found = np.bincount(labels, weights=hits, minlength=num_classes)
    return np.where(support > 0, found / np.maximum(support, 1), np.nan)


def balanced_accuracy(hits: np.ndarray, labels: Int[np.ndarray, "n"]) -> float:
    """Mean of the recalls of the classes in the labels: what the paper calls accuracy.

    Args:
      hits: [n] bool, or the share of runs that hit; of `top_k_hits` for a top-k accuracy.
    """
    return float(np.nanmean(recall_per_class(hits, labels, int(labels.max()) + 1)))


def macro_f1(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "n"], num_classes: int | None = None
) -> float:
    """Mean F1 over the classes that are present in the labels (distractors only cost)."""
    per_class = f1_per_class(labels, predictions, num_classes)
    return float(per_class[np.unique(labels)].mean())


def weighted_median(
    weights: Float[np.ndarray, "r n"], values: Shaped[np.ndarray, "n"]
) -> Float[np.ndarray, "r"]:
    """Lower median of `values` in every resample.

    Args:
      weights: how often each image occurs in each resample.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    return np.asarray(values)[order][(reached >= reached[:, -1:] / 2).argmax(1)]


def top_k_hits(
    scores: Float[np.ndarray, "*m n c"], labels: Int[np.ndarray, "n"], k: int
) -> np.ndarray:
    """Whether the label is among the k best, bool [*m, n]; see `rank_of_label`."""
    return rank_of_label(scores, labels) < k


def rank_of_label(
    scores: Float[np.ndarray, "*m n c"], labels: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "*m n"]:
    """How many candidates are preferred to the label, ties won by the lower class.

    Raises:
      ValueError: scores that are not finite; every comparison with nan is a hit.
    """
    require_finite("scores", np.moveaxis(scores, -2, 0))
    own = np.take_along_axis(scores, np.broadcast_to(labels, scores.shape[:-1])[..., None], -1)
    earlier = np.arange(scores.shape[-1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(-1)


def chance_macro_f1(labels: Int[np.ndarray, "n"], num_candidates: int) -> float:
    """Macro F1 at the expected counts of a uniform guess among `num_candidates` classes."""
    _, support = np.unique(labels, return_counts=True)
    share = 1 / num_candidates
    return float(_f1(support * share, support, np.full(support.shape, len(labels) * share)).mean())


def majority_macro_f1(labels: Int[np.ndarray, "n"]) -> float:
    """Macro F1 of always answering the most frequent label."""
    labels = np.asarray(labels)
    return macro_f1(labels, np.full(labels.shape, np.bincount(labels).argmax()))


def _f1(hits, support, predicted):
    total = support + predicted
    return np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), 0.0)


def _indices(what, values, names):
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted({str(value) for value in values if value not in index})
    if unknown:
        raise ValueError(f"{what} hold {unknown[0]!r}, which is none of the classes {names}")
    return np.array([index[value] for value in values], np.int64)


def _check(labels, predictions):
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or len(labels) == 0:
        raise ValueError(
            "labels and predictions must be equally long, non-empty vectors, "
            f"found shapes {labels.shape} and {predictions.shape}"
        )
    for name, classes in (("labels", labels), ("predictions", predictions)):
        if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0:
            raise ValueError(f"{name} must be class indices from 0, found {classes[:5]}...")
    return labels, predictions
