"""Classification metrics, and bootstrap intervals that resample patients or images.

Every metric has a weighted form: `weights[r, i]` says how often image i occurs in resample r. A
thousand resamples of a macro F1 are then two matrix products instead of a thousand evaluations.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

# Weights of so many (resample, image) pairs are held at a time: 32 MiB of float64.
_WEIGHTS_AT_ONCE = 4_000_000


def bootstrap_interval(
    statistic: Callable[[Float[np.ndarray, "r n"]], Float[np.ndarray, "r"]],
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, resampling whole groups with replacement.

    Args:
      statistic: weights [r, n] -> value [r]; a weight is the number of times an image was drawn.
      groups: [n] identifiers. Images that share one are drawn together: patient ids resample
        patients, `np.arange(n)` resamples images.
      resamples: number of bootstrap samples.
      level: coverage, in (0, 1).
      seed: of the draws; the same seed gives the same interval on every machine.

    Returns:
      (low, high)

    Raises:
      ValueError: if there is no image, or `level` or `resamples` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    weights = bootstrap_weights(groups, resamples=resamples, seed=seed)
    values = np.concatenate([np.asarray(statistic(chunk)) for chunk in weights])
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_weights(groups: np.ndarray, *, resamples: int, seed: int):
    """Yield weights float64 [r, n] in chunks that add up to `resamples` rows."""
    groups = np.asarray(groups)
    if len(groups) == 0:
        raise ValueError("a bootstrap needs at least one image, found none")
    names, group_of_image = np.unique(groups, return_inverse=True)
    count = len(names)
    rng = np.random.default_rng(seed)
    chunk = max(1, _WEIGHTS_AT_ONCE // max(count, len(groups)))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count))
        flat = drawn + count * np.arange(rows)[:, None]
        times = np.bincount(flat.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(np.float64)[:, group_of_image]


def confusion_matrix(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "n"], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Counts with true classes in rows and predicted classes in columns."""
    labels, predictions = _check(labels, predictions)
    flat = labels * num_classes + predictions
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def f1_per_class(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "n"], num_classes: int | None = None
) -> Float[np.ndarray, "c"]:
    """F1 of every class; 0 for a class that was neither labelled nor predicted.

    Args:
      labels: true class of each image.
      predictions: predicted class of each image.
      num_classes: number of classes; one more than the largest class found if None.

    Raises:
      ValueError: if the arrays are empty, differ in length or name a class out of range.
    """
    labels, predictions = _check(labels, predictions)
    largest = int(max(labels.max(), predictions.max()))
    num_classes = largest + 1 if num_classes is None else num_classes
    if largest >= num_classes:
        raise ValueError(f"class {largest} found, but num_classes is {num_classes}")
    counts = confusion_matrix(labels, predictions, num_classes)
    return _f1(np.diag(counts), counts.sum(1), counts.sum(0))


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
    one_hot = np.eye(num_classes)
    is_label = one_hot[labels]  # n c
    is_predicted = one_hot[predictions]  # m n c
    support = (weights @ is_label)[:, None]  # r 1 c
    predicted = _weigh(weights, is_predicted)
    hits = _weigh(weights, is_predicted * is_label)
    present = support > 0
    return (_f1(hits, support, predicted) * present).sum(-1) / present.sum(-1)


def weighted_mean(
    weights: Float[np.ndarray, "r n"], values: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "r"]:
    """Mean of `values` in every resample."""
    return weights @ np.asarray(values, np.float64) / weights.sum(-1)


def weighted_median(
    weights: Float[np.ndarray, "r n"], values: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "r"]:
    """Lower median of `values` in every resample."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    return np.asarray(values)[order][(reached >= reached[:, -1:] / 2).argmax(1)]


def top_k_hits(
    scores: Float[np.ndarray, "*m n c"], labels: Int[np.ndarray, "n"], k: int
) -> np.ndarray:
    """Whether the label is among the k best scores, ties won by the lower class; bool [*m, n]."""
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
