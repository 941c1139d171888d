"""The nearest centroid: every class is the mean of its features."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Centroids:
    """The means of the classes.

    Attributes:
      means: of each class; nan of one without an image to learn from.
    """

    means: Float[np.ndarray, "c d"]

    @classmethod
    def fit(
        cls, features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], num_classes: int
    ) -> "Centroids":
        """The means of some images, in float64.

        Raises:
          ValueError: no image.
        """
        if not len(labels):
            raise ValueError("there is no image to take the centroids of")
        sums = np.zeros((num_classes, features.shape[1]))
        np.add.at(sums, labels, features.astype(np.float64))
        counts = np.bincount(labels, minlength=num_classes)[:, None]
        return cls(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))

    @property
    def learnt(self) -> np.ndarray:
        """Whether a class has a centroid, bool [c]."""
        return np.isfinite(self.means).all(1)

    def scores(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Minus the distance to each centroid; a class without one is farther than all others."""
        # Of differences, not of products: those cancel where classes lie close together.
        found = np.stack(
            [-np.linalg.norm(features.astype(np.float64) - mean, axis=1) for mean in self.means], 1
        )
        lowest = np.where(self.learnt, found, np.inf).min(1, keepdims=True)
        return np.where(self.learnt, found, lowest - 1)
