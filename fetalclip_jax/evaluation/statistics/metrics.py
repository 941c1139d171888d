"""Classification metrics, each with a weighted form for the bootstrap.

`weights[r, i]` says how often image i occurs in resample r. A thousand resamples of a macro F1 are
then two matrix products instead of a thousand evaluations.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

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


def weighted_balanced_accuracy(
    weights: Float[np.ndarray, "r n"], hits: np.ndarray, labels: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "r"]:
    """`balanced_accuracy` in every resample, over the classes that were drawn."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]  # n c
    support = weights @ one_hot
    recalls = (weights @ (one_hot * np.asarray(hits, np.float64)[:, None])) / np.maximum(support, 1)
    present = support > 0
    return (recalls * present).sum(-1) / present.sum(-1)


def macro_f1(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "n"], num_classes: int | None = None
) -> float:
    """Mean F1 over the classes that are present in the labels (distractors only cost)."""
    per_class = f1_per_class(labels, predictions, num_classes)
    return float(per_class[np.unique(labels)].mean())


def weighted_macro_f1(
    weights: Float[np.ndarray, "r n"],
    labels: Int[np.ndarray, "n"],
    predictions: Int[np.ndarray, "m n"],
    num_classes: int,
) -> Float[np.ndarray, "r m"]:
    """`macro_f1` of m sets of predictions in every one of r resamples.

    A class counts in a resample only if one of its images was drawn.
    """
    f1, present = weighted_f1_per_class(weights, labels, predictions, num_classes)
    present = present[:, None]
    return (f1 * present).sum(-1) / present.sum(-1)


def weighted_f1_per_class(
    weights: Float[np.ndarray, "r n"],
    labels: Int[np.ndarray, "n"],
    predictions: Int[np.ndarray, "m n"],
    num_classes: int,
) -> tuple[Float[np.ndarray, "r m c"], Bool[np.ndarray, "r c"]]:
    """F1 of every class in every resample, and whether an image of the class was drawn."""
    one_hot = np.eye(num_classes)
    is_label = one_hot[labels]  # n c
    is_predicted = one_hot[predictions]  # m n c
    support = weights @ is_label  # r c
    predicted = _weigh(weights, is_predicted)
    hits = _weigh(weights, is_predicted * is_label)
    return _f1(hits, support[:, None], predicted), support > 0


def weighted_mean(
    weights: Float[np.ndarray, "r n"], values: Shaped[np.ndarray, "n"]
) -> Float[np.ndarray, "r"]:
    """Mean of `values` in every resample.

    Raises:
      ValueError: values that are not finite.
    """
    require_finite("values", values)
    return weights @ np.asarray(values, np.float64) / weights.sum(-1)


def weighted_median(
    weights: Float[np.ndarray, "r n"], values: Shaped[np.ndarray, "n"]
) -> Float[np.ndarray, "r"]:
    """Lower median of `values` in every resample."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    return np.asarray(values)[order][(reached >= reached[:, -1:] / 2).argmax(1)]


def top_k_hits(
    scores: Float[np.ndarray, "*m n c"], labels: Int[np.ndarray, "n"], k: int
) -> np.ndarray:
    """Whether the label is among the k best scores, ties won by the lower class; bool [*m, n].

    Raises:
      ValueError: scores that are not finite; every comparison with nan is a hit.
    """
    require_finite("scores", np.moveaxis(scores, -2, 0))
    own = np.take_along_axis(scores, np.broadcast_to(labels, scores.shape[:-1])[..., None], -1)
    earlier = np.arange(scores.shape[-1]) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(-1)
    return rank < k


def chance_macro_f1(labels: Int[np.ndarray, "n"], num_candidates: int) -> float:
    """Macro F1 at the expected counts of a uniform guess among `num_candidates` classes."""
    _, support = np.unique(labels, return_counts=True)
    share = 1 / num_candidates
    return float(_f1(support * share, support, np.full(support.shape, len(labels) * share)).mean())


def majority_macro_f1(labels: Int[np.ndarray, "n"]) -> float:
    """Macro F1 of always answering the most frequent label."""
    labels = np.asarray(labels)
    return macro_f1(labels, np.full(labels.shape, np.bincount(labels).argmax()))


def _weigh(weights, one_hot):
    """[r, n] x [m, n, c] -> [r, m, c] as one matrix product."""
    m, n, c = one_hot.shape
    return (weights @ one_hot.transpose(1, 0, 2).reshape(n, m * c)).reshape(-1, m, c)  # r m c


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
