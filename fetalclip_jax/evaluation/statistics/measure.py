"""Metrics as functions of images: what a bootstrap, a paired test and a subgroup need of one.

Most metrics are functions of sums over images (hits, labels and answers of each class, errors), so
that a thousand resamples are one product of matrices. A difference of two metrics of the same
images is a measure too.
"""

import abc
import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.statistics import intervals, metrics
from fetalclip_jax.evaluation.statistics.finite import require_finite


class Measure(abc.ABC):
    """A number that some images give.

    Attributes:
      scale: of its interval, one of `intervals.SCALES` or `intervals.DIFFERENCE`.
    """

    scale: str

    @property
    def defined(self) -> bool:
        """Whether these images have such a number; ranks, say, need both classes."""
        return True

    @property
    def over(self) -> tuple[bool, ...]:
        """Which of the things that it is a mean over, such as structures, these images have.

        Means over other things are not comparable.
        """
        return ()

    @property
    @abc.abstractmethod
    def value(self) -> float:
        """Of all images."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def select(self, rows: np.ndarray) -> "Measure":
        """That of some of the images (indices or a mask)."""

    def beside(self, other: "Measure") -> tuple["Measure", "Measure"]:
        """This and another one of the same images, of the numbers that both have."""
        return self, other

    @abc.abstractmethod
    def weighted(
        self, weights: Float[np.ndarray, "r g"], groups: Int[np.ndarray, "n"]
    ) -> Float[np.ndarray, "r *k"]:
        """The number in every resample.

        Args:
          weights: how often each group was drawn.
          groups: the group of each image, an index.
        """


@dataclasses.dataclass(frozen=True)
class OfSums(Measure):
    """A function of sums over images.

    Attributes:
      parts: what each image adds to the sums.
      of_sums: [..., k] -> [...]; of a measure with several numbers, with more axes behind.
      scale: see `Measure`.
    """

    parts: Float[np.ndarray, "n k"]
    of_sums: Callable[[np.ndarray], np.ndarray]
    scale: str = "unit"

    @property
    def value(self) -> float:
        return float(self.of_sums(self.parts.sum(0)))

    def __len__(self) -> int:
        return len(self.parts)

    def select(self, rows: np.ndarray) -> "OfSums":
        return dataclasses.replace(self, parts=self.parts[rows])

    def weighted(self, weights, groups):
        return self.of_sums(weights @ self.by_group(groups, weights.shape[1]))

    def by_group(self, groups: Int[np.ndarray, "n"], count: int) -> Float[np.ndarray, "g k"]:
        """The sums of each of `count` groups."""
        if count == len(groups) and (groups == np.arange(count)).all():
            return self.parts
        sums = np.zeros((count, self.parts.shape[1]))
        np.add.at(sums, groups, self.parts)
        return sums


@dataclasses.dataclass(frozen=True)
class Median(Measure):
    """The median of one value an image; in a resample the lower one.

    Attributes:
      values: [n].
      scale: see `Measure`.
    """

    values: Float[np.ndarray, "n"]
    scale: str = "positive"

    @property
    def value(self) -> float:
        return float(np.median(self.values))

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: np.ndarray) -> "Median":
        return dataclasses.replace(self, values=self.values[rows])

    def weighted(self, weights, groups):
        return metrics.weighted_median(weights[:, groups], self.values)


@dataclasses.dataclass(frozen=True)
class _Difference(Measure):
    """One measure minus another, where they are no functions of sums."""

    first: Measure
    second: Measure
    scale: str

    @property
    def defined(self) -> bool:
        return self.first.defined and self.second.defined

    @property
    def value(self) -> float:
        return self.first.value - self.second.value

    def __len__(self) -> int:
        return len(self.first)

    def select(self, rows: np.ndarray) -> "_Difference":
        return _Difference(self.first.select(rows), self.second.select(rows), self.scale)

    def weighted(self, weights, groups):
        return self.first.weighted(weights, groups) - self.second.weighted(weights, groups)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A measure and the rows of a result's predictions that it judges.

    Attributes:
      measure: of as many images as there are rows.
      rows: indices, ascending.
    """

    measure: Measure
    rows: Int[np.ndarray, "k"]

    def among(self, chosen: np.ndarray) -> "Measured":
        """That of the rows for which `chosen`, a mask over all predictions, holds."""
        kept = chosen[self.rows]
        return Measured(self.measure.select(kept), self.rows[kept])


def difference(first: Measure, second: Measure) -> Measure:
    """One measure minus another, of the same images in the same order.

    Raises:
      ValueError: measures of another number of images, or on another scale.
    """
    if (len(first), first.scale) != (len(second), second.scale):
        raise ValueError(
            f"a difference needs measures alike: found {len(first)} images on scale "
            f"{first.scale!r} and {len(second)} on {second.scale!r}"
        )
    scale = intervals.DIFFERENCE if first.scale == "unit" else "real"
    if not (isinstance(first, OfSums) and isinstance(second, OfSums)):
        return _Difference(first, second, scale)
    split = first.parts.shape[1]
    return OfSums(
        np.concatenate([first.parts, second.parts], 1),
        lambda sums: first.of_sums(sums[..., :split]) - second.of_sums(sums[..., split:]),
        scale,
    )


def mean(values: np.ndarray, scale: str = "unit") -> OfSums:
    """The mean of one number an image.

    Raises:
      ValueError: a value that is not finite.
    """
    require_finite("values", values)
    values = np.asarray(values, np.float64)
    parts = np.stack([values, np.ones_like(values)], 1)
    return OfSums(parts, lambda sums: sums[..., 0] / sums[..., 1], scale)


def balanced_accuracy(hits: np.ndarray, labels: Int[np.ndarray, "n"]) -> OfSums:
    """The mean of the recalls of the classes in the labels.

    Args:
      hits: [n] bool, or the share of runs that hit.
    """
    one_hot = np.eye(int(labels.max()) + 1)[labels]  # n c
    classes = one_hot.shape[1]

    def of_sums(sums):
        support, found = sums[..., :classes], sums[..., classes:]
        recall = found / np.where(support > 0, support, 1)
        return (recall * (support > 0)).sum(-1) / (support > 0).sum(-1)

    return OfSums(
        np.concatenate([one_hot, one_hot * np.asarray(hits, np.float64)[:, None]], 1), of_sums
    )


def macro_f1(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "m n"], classes: int
) -> OfSums:
    """The mean over m runs of the macro F1 over the classes in the labels."""
    per_class = f1_per_class(labels, predictions, classes)

    def of_sums(sums):
        f1, present = per_class.of_sums(sums), sums[..., :classes] > 0
        scores = (f1 * present[..., None, :]).sum(-1) / present.sum(-1)[..., None]  # ... m
        return scores.mean(-1)

    return OfSums(per_class.parts, of_sums)


def f1_per_class(
    labels: Int[np.ndarray, "n"], predictions: Int[np.ndarray, "m n"], classes: int
) -> OfSums:
    """F1 of every class in each of m runs: sums -> [..., m, c]; it has no one value."""
    one_hot = np.eye(classes)
    is_label = one_hot[labels]  # n c
    is_predicted = one_hot[predictions].transpose(1, 0, 2)  # n m c
    runs = is_predicted.shape[1]
    hits = is_predicted * is_label[:, None]
    parts = [part.reshape(len(labels), -1) for part in (is_label, is_predicted, hits)]

    def of_sums(sums):
        support = sums[..., None, :classes]
        predicted, hits = (
            sums[..., start : start + runs * classes].reshape(*sums.shape[:-1], runs, classes)
            for start in (classes, classes + runs * classes)
        )
        total = support + predicted
        return 2 * hits / np.where(total > 0, total, 1)

    return OfSums(np.concatenate(parts, 1), of_sums)
