"""Weighted sums of measures whose images may be other ones, but whose patients are shared."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fetalclip_jax.evaluation.statistics.measure import OfSums


@dataclasses.dataclass(frozen=True)
class Term:
    """One measure of a weighted sum.

    Attributes:
      weight: its factor.
      measure: of some images.
      groups: patient (or image) of each of them.
    """

    weight: float
    measure: OfSums
    groups: np.ndarray


def weighted_sum(terms: Sequence[Term], scale: str) -> tuple[OfSums, np.ndarray]:
    """The sum as one measure of groups, so that a bootstrap draws each for all terms alike.

    Args:
      terms: one or more.
      scale: of the sum, see `measure.Measure`.

    Returns:
      The measure, whose rows are groups and not images, and the groups' names, ascending.
    """
    names = np.unique(np.concatenate([term.groups for term in terms]))
    # Sums of each group first: a row an image and a column a term would be many gigabytes.
    parts = [
        term.measure.by_group(np.searchsorted(names, term.groups), len(names)) for term in terms
    ]
    ends = np.cumsum([part.shape[1] for part in parts])

    def of_sums(sums):
        own = np.split(sums, ends[:-1], axis=-1)
        return sum(
            term.weight * term.measure.of_sums(part) for term, part in zip(terms, own, strict=True)
        )

    return OfSums(np.concatenate(parts, 1), of_sums, scale), names
