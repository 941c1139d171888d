"""Ellipses: their circumference, the one through given points, and the area inside an outline."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """An ellipse in the plane, in the units of its points.

    Attributes:
      x, y: its centre.
      semi_major, semi_minor: half of its longest and shortest diameter.
      angle: of the longest diameter, radians from the x axis towards the y axis, in [0, pi).
    """

    x: float
    y: float
    semi_major: float
    semi_minor: float
    angle: float


def circumference(semi_major: float, semi_minor: float) -> float:
    """Ramanujan's second approximation (relative error below 1e-6 at head shapes)."""
    h = ((semi_major - semi_minor) / (semi_major + semi_minor)) ** 2
    return np.pi * (semi_major + semi_minor) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))


def fit(points: Float[np.ndarray, "k 2"]) -> Ellipse | None:
    """The ellipse of least algebraic distance to points (x, y), at sub-pixel precision.

    Minimises |D v| over conics v = (A, B, C, D, E, F) under 4 A C - B^2 = 1, which only ellipses
    fulfil (Fitzgibbon et al. 1999), in the two steps of Halir and Flusser (1998): the linear
    part is eliminated first, so that no singular matrix is inverted.

    Returns:
      The ellipse; None where points are fewer than six or lie on no ellipse.
    """
    if len(points) < 6:
        return None
    # About their mean and in units of their spread, so that squares are of the size of products.
    centre, scale = points.mean(0), max(float(points.std()), 1e-12)
    x, y = ((points - centre) / scale).T
    squares, lines = np.stack([x * x, x * y, y * y], 1), np.stack([x, y, np.ones_like(x)], 1)
    cross, inner = squares.T @ lines, lines.T @ lines
    if np.linalg.cond(inner) > 1e12:
        return None
    eliminate = -np.linalg.solve(inner, cross.T)
    reduced = squares.T @ squares + cross @ eliminate
    # The inverse of the constraint 4 A C - B^2, [[0, 0, 2], [0, -1, 0], [2, 0, 0]].
    _, vectors = np.linalg.eig(np.stack([reduced[2] / 2, -reduced[1], reduced[0] / 2]))
    vectors = vectors.real
    good = np.flatnonzero(4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0)
    if not len(good):
        return None
    quadratic = vectors[:, good[0]]
    return _of_conic(*quadratic, *(eliminate @ quadratic), centre, scale)


def _of_conic(a, b, c, d, e, f, centre, scale) -> Ellipse | None:
    """Of A x^2 + B x y + C y^2 + D x + E y + F = 0 in units of `scale` about `centre`."""
    form = np.array([[a, b / 2], [b / 2, c]])
    middle = np.linalg.solve(form, [-d / 2, -e / 2])
    level = middle @ form @ middle - f
    curvature, axes = np.linalg.eigh(form)
    squared = level / curvature
    if not (np.isfinite(squared).all() and (squared > 0).all()):
        return None
    radii = np.sqrt(squared) * scale
    longest = int(radii.argmax())
    x, y = middle * scale + centre
    angle = float(np.arctan2(axes[1, longest], axes[0, longest]) % np.pi)
    return Ellipse(float(x), float(y), float(radii.max()), float(radii.min()), angle)


def fill_outline(outline: UInt8[np.ndarray, "h w *c"]) -> Bool[np.ndarray, "h w"]:
    """The area inside an outline drawn on black, the line itself included.

    HC18's outlines are ellipses, which the image border cuts in some: their convex hull is the
    head within the image, where a flood fill would leak through the gap.
    """
    drawn = outline if outline.ndim == 2 else outline.max(axis=2)
    points = np.argwhere(drawn > 127)[:, ::-1].astype(np.int32)  # x, y
    filled = cv2.fillConvexPoly(np.zeros(drawn.shape, np.uint8), cv2.convexHull(points), 1)
    return filled.astype(bool)
