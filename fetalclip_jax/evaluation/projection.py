"""Features in two dimensions, and what their neighbourhoods say of a column."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import linalg

_ROWS_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Plane:
    """Points in a plane.

    Attributes:
      points: [n, 2].
      explained: share of the variance along each axis; empty where axes mean nothing.
    """

    points: Float[np.ndarray, "n 2"]
    explained: tuple[float, ...] = ()


def pca(features: Float[np.ndarray, "n d"]) -> Plane:
    """The two directions of the largest variance, by singular value decomposition.

    The sign of a direction is free: its largest weight is made positive, so that a map is the same
    wherever it is made.

    Raises:
      ValueError: features that are all the same, or fewer than three.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    if len(features) < 3 or features.shape[1] < 2 or not centred.any():
        raise ValueError(
            f"{len(features)} features of width {features.shape[1]} span no plane; a map needs "
            "three different ones"
        )
    left, sizes, right = linalg.svd(centred, full_matrices=False)
    largest = np.abs(right[:2]).argmax(axis=1)
    signs = np.sign(right[np.arange(2), largest])
    total = (sizes**2).sum()
    points = left[:, :2] * sizes[:2] * signs
    return Plane(points, tuple(float(size**2 / total) for size in sizes[:2]))


def umap(features: Float[np.ndarray, "n d"], *, neighbours: int = 15, seed: int = 0) -> Plane:
    """UMAP by cosine (McInnes et al. 2018), of the package umap-learn.

    Raises:
      ValueError: the package is not installed, or there are too few features.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise ValueError(
            "method='umap' needs umap-learn, which is not installed: "
            "pip install 'fetalclip_jax[umap]', or use method='pca'"
        ) from error
    if len(features) <= neighbours:
        raise ValueError(
            f"UMAP looks at {neighbours} neighbours, and there are {len(features)} features; use "
            "method='pca'"
        )
    # One thread: with several the same seed gives other maps.
    reducer = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    return Plane(np.asarray(reducer.fit_transform(features), np.float64))


def neighbours(
    unit_features: Float[np.ndarray, "n d"], groups: np.ndarray, count: int
) -> Int[np.ndarray, "n k"]:
    """The nearest features of other groups by cosine, nearest first; of equal ones by number.

    Args:
      unit_features: of length one.
      groups: what is no neighbour of itself: patients.
      count: k.

    Raises:
      ValueError: a feature with fewer than `count` of other groups.
    """
    _, codes = np.unique(groups, return_inverse=True)
    others = len(codes) - np.bincount(codes).max()
    if others < count:
        raise ValueError(
            f"neighbours={count}: some image has {others} images of other patients; use fewer"
        )
    found = []
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        cosines = unit_features[rows] @ unit_features.T
        cosines[codes[rows, None] == codes[None]] = -np.inf
        found.append(np.argsort(-cosines, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)


def agreement(values: np.ndarray, nearest: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """The share of the neighbours that have the value of their image."""
    return (values[nearest] == values[:, None]).mean(axis=1)


def chance_agreement(values: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, "n"]:
    """The share of all images of other groups that have the value of an image."""
    _, value = np.unique(values, return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    together = np.zeros((group.max() + 1, value.max() + 1))
    np.add.at(together, (group, value), 1)
    same = together.sum(0)[value] - together[group, value]
    return same / (len(value) - together.sum(1)[group])


def difference(
    numbers: Float[np.ndarray, "n"], nearest: Int[np.ndarray, "n k"]
) -> Float[np.ndarray, "n"]:
    """How far the mean of the neighbours is from the number of their image."""
    return np.abs(numbers[nearest].mean(axis=1) - numbers)


def chance_difference(
    numbers: Float[np.ndarray, "n"], groups: np.ndarray
) -> Float[np.ndarray, "n"]:
    """How far the mean of all images of other groups is from the number of an image."""
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, numbers), np.bincount(group)
    others = (numbers.sum() - sums[group]) / (len(numbers) - counts[group])
    return np.abs(others - numbers)


def known(values: np.ndarray) -> Bool[np.ndarray, "n"]:
    """Which rows of a column hold a value."""
    return np.isfinite(values) if values.dtype.kind == "f" else values != ""
