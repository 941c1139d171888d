"""Confident learning: how many labels are wrong, and which (Northcutt, Jiang and Chuang 2021).

Probabilities must be of images that the classifier had not learnt from. With the threshold t_j, the
mean probability of class j over the images labelled j, an image labelled i is confidently of class
j if p_j >= t_j, and j has the highest probability of such classes. The counts C_ij, scaled so that
each row adds up to the images labelled i, estimate the joint distribution of given and true labels
(section 4.1); what lies off its diagonal are label errors.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from fetalclip_jax.evaluation.statistics.measure import OfSums

# Probabilities that equal the threshold but for rounding reach it.
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Confident:
    """Given labels beside probabilities.

    Attributes:
      labels: class that each image is said to be of.
      probabilities: of every class, by a classifier that had not learnt from the image.
    """

    labels: Int[np.ndarray, "n"]
    probabilities: Float[np.ndarray, "n c"]

    @functools.cached_property
    def thresholds(self) -> Float[np.ndarray, "c"]:
        """The mean probability of each class where it is the label; inf of one that is none."""
        size = self.probabilities.shape[1]
        counts = np.bincount(self.labels, minlength=size)
        own = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        sums = np.bincount(self.labels, own, size)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)

    @functools.cached_property
    def confident_class(self) -> Int[np.ndarray, "n"]:
        """The class that each image confidently is of; -1 of one that reaches no threshold."""
        reaches = self.probabilities >= self.thresholds - _ROUNDING
        best = np.where(reaches, self.probabilities, -1.0).argmax(1)
        return np.where(reaches.any(1), best, -1)

    @property
    def counts(self) -> Int[np.ndarray, "c c"]:
        """C of the paper: given label by confident class."""
        size, sure = self.probabilities.shape[1], self.confident_class >= 0
        flat = self.labels[sure] * size + self.confident_class[sure]
        return np.bincount(flat, minlength=size * size).reshape(size, size)

    @property
    def joint(self) -> Float[np.ndarray, "c c"]:
        """The expected number of images by given and true label; rows add up to the labels."""
        counts, labelled = self.counts, np.bincount(self.labels, minlength=len(self.counts))
        rows = counts.sum(1, keepdims=True)
        # Of each label some image reaches its mean: only labels that no image has lack counts.
        shares = counts / np.maximum(rows, 1)
        return shares * labelled[:, None]

    def flagged(self) -> Bool[np.ndarray, "n"]:
        """Pruning by noise rate: of the images labelled i, those with the largest p_j - p_i.

        For each i and j as many as the joint says, rounded.
        """
        joint = np.rint(self.joint).astype(int)
        found = np.zeros(len(self.labels), bool)
        for given in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == given)
            for true in range(len(joint)):
                if true == given or not joint[given, true]:
                    continue
                margin = self.probabilities[rows, true] - self.probabilities[rows, given]
                order = np.argsort(-margin, kind="stable")[: joint[given, true]]
                found[rows[order]] = True
        return found

    def margins(self) -> Float[np.ndarray, "n"]:
        """How much more probable the label is than the best other class: the lowest, the worst."""
        rows = np.arange(len(self.labels))
        others = self.probabilities.copy()
        others[rows, self.labels] = -np.inf
        return self.probabilities[rows, self.labels] - others.max(1)

    def noise(self) -> OfSums:
        """The share of labels that are wrong by the joint, its thresholds fixed."""
        size = self.probabilities.shape[1]
        labelled = np.eye(size)[self.labels]
        sure = np.eye(size)[np.maximum(self.confident_class, 0)]
        sure[self.confident_class < 0] = 0
        wrong = (sure.sum(1) - (sure * labelled).sum(1))[:, None] * labelled
        right = (sure * labelled).sum(1)[:, None] * labelled

        def of_sums(sums):
            count, wrong, right = (sums[..., k * size : (k + 1) * size] for k in range(3))
            rows = wrong + right
            share = np.where(rows > 0, wrong / np.where(rows > 0, rows, 1), 0.0)
            return (share * count).sum(-1) / count.sum(-1)

        return OfSums(np.concatenate([labelled, wrong, right], 1), of_sums)
