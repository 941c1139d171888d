"""Sets of answers that hold the true one at a chosen rate, for an image of a new patient.

A set holds every class whose probability reaches a threshold (Sadinle, Lei and Wasserman 2019: of
all sets of such coverage the smallest on average; it may be empty). Images of one patient are alike
and not exchangeable; patients are. The threshold counts each patient once, however many images
there are (Lee, Barber and Willett 2023): an image of a new patient is covered with at least the
nominal probability, on average over patients.
"""

import math

import numpy as np
from jaxtyping import Bool, Float


def weights_of_patients(owners: np.ndarray) -> Float[np.ndarray, "n"]:
    """One over the number of images of an image's patient."""
    _, of_image, counts = np.unique(owners, return_inverse=True, return_counts=True)
    return 1 / counts[of_image]


def threshold(of_label: Float[np.ndarray, "n"], owners: np.ndarray, coverage: float) -> float:
    """The probability from which on a class belongs to the set.

    Args:
      of_label: probability of the true class of images that are not judged.
      owners: [n] their patients.
      coverage: nominal, in (0, 1).

    Returns:
      0 where the patients are too few for the coverage: the set then holds every class.

    Raises:
      ValueError: a coverage out of range.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, found {coverage}")
    patients = len(np.unique(owners))
    order = np.argsort(-of_label, kind="stable")
    reached = np.cumsum(weights_of_patients(owners)[order])
    # The new patient counts as one more, whose images might lie anywhere.
    needed = coverage * (patients + 1)
    place = int(np.searchsorted(reached, needed - 1e-9))
    return float(of_label[order[place]]) if place < len(order) else 0.0


def patients_needed(coverage: float) -> int:
    """The fewest patients of which a threshold is not trivial."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def sets(
    probabilities: Float[np.ndarray, "n c"], thresholds: Float[np.ndarray, "n"]
) -> Bool[np.ndarray, "n c"]:
    """Which classes belong to the set of each image."""
    return probabilities >= thresholds[:, None]
