"""Overlap and distance of outlined structures, and the head circumference of an outline.

All of it is computed where masks are compared, at the model's pixel size, as in the paper.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fetalclip_jax.biometry import ellipses
from fetalclip_jax.data.checks import PLAUSIBLE

# Skulls are ovals: the ratio of their axes, the cephalic index, is about 0.8 and hardly below 0.6.
_FLATTEST_HEAD = 0.5
_HALF = 0.5
# Black, as lossy files keep it.
_BLACK = 10


def areas(
    predicted: Bool[np.ndarray, "*n h w c"], true: Bool[np.ndarray, "*n h w c"]
) -> tuple[Int[np.ndarray, "*n c"], Int[np.ndarray, "*n c"], Int[np.ndarray, "*n c"]]:
    """Pixels of both masks, of the predicted and of the true one, by image and structure."""
    return tuple(
        np.count_nonzero(mask, axis=(-3, -2)) for mask in (predicted & true, predicted, true)
    )


def dice(
    intersection: Float[np.ndarray, "*#n"] | Int[np.ndarray, "*#n"],
    predicted: Float[np.ndarray, "*#n"] | Int[np.ndarray, "*#n"],
    true: Float[np.ndarray, "*#n"] | Int[np.ndarray, "*#n"],
) -> Float[np.ndarray, "..."]:
    """2 |A and B| / (|A| + |B|) of pixel counts; nan where both are empty, which no one got wrong.

    Of sums over all images it is the pooled Dice of the paper, of one image's pixels its own.
    """
    total = np.asarray(predicted, np.float64) + true
    return np.where(total > 0, 2 * np.asarray(intersection) / np.where(total > 0, total, 1), np.nan)


def hausdorff95(
    predicted: Bool[np.ndarray, "n h w"],
    true: Bool[np.ndarray, "n h w"],
    spacing_mm: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "n"]:
    """95th percentile of the distances between two outlines, mm; nan where a mask is empty.

    The distances are those of each boundary pixel of either mask to the nearest boundary pixel of
    the other, all together. A boundary pixel is one of the mask with a neighbour, of four, that is
    not, the border of the image counting as outside.

    Args:
      spacing_mm: of a pixel of the masks; an unknown one, nan, gives nan.
    """
    found = np.full(len(true), np.nan)
    for i, (one, other) in enumerate(zip(predicted, true, strict=True)):
        if one.any() and other.any():
            edges = boundary(one), boundary(other)
            away = [_distance_to(edge) for edge in edges]
            both = np.concatenate([away[1][edges[0]], away[0][edges[1]]])
            found[i] = np.percentile(both, 95) * spacing_mm[i]
    return found


def boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of a mask with a neighbour, of four, outside of it or of the image."""
    framed = np.pad(mask, 1)
    inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return mask & ~inside


def _distance_to(edge: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Of every pixel to the nearest of the edge, in pixels, exact."""
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def head_circumference_mm(
    probability: Float[np.ndarray, "h w"],
    spacing_mm: float,
    content: tuple[int, int, int, int] | None = None,
) -> float:
    """Circumference of the ellipse through the outline of a head; nan where none is plausible.

    The outline is that of the largest connected part, holes filled, at probability 0.5 between
    pixel centres. Where it runs along the border of the image the head goes on beyond, so that
    those points say nothing of the ellipse.

    Args:
      probability: of each pixel to be head; a mask as 0 and 1.
      spacing_mm: of a pixel.
      content: top, left, bottom, right (exclusive) of the image in its black square; None for all.
    """
    points = outline_points(probability)
    height, width = probability.shape
    top, left, bottom, right = content or (0, 0, height, width)
    # Within one pixel of the border.
    apart = (points > (left + 0.5, top + 0.5)) & (points < (right - 1.5, bottom - 1.5))
    found = ellipses.fit(points[apart.all(1)])
    if found is None or not np.isfinite(spacing_mm):
        return np.nan
    hc_mm = ellipses.circumference(found.semi_major, found.semi_minor) * spacing_mm
    low, high = PLAUSIBLE["hc_mm"]
    oval = found.semi_minor >= _FLATTEST_HEAD * found.semi_major
    return float(hc_mm) if oval and low <= hc_mm <= high else np.nan


def content(pixels: UInt8[np.ndarray, "s s *c"]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right (exclusive) of what is not black; of all where nothing is."""
    lit = (pixels if pixels.ndim == 2 else pixels.max(-1)) > _BLACK
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    if not len(rows):
        return 0, 0, *lit.shape
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def outline_points(probability: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "k 2"]:
    """Points (x, y) where the outline crosses the lines between neighbouring pixel centres.

    Of the largest part of at least 0.5, four neighbours connecting, holes filled; outside of the
    image the probability is 0.
    """
    framed = np.pad(np.asarray(probability, np.float64), 1)
    inside = largest_part(framed >= _HALF)
    found = []
    for axis in (0, 1):
        along = np.moveaxis(inside, axis, 0)
        value = np.moveaxis(framed, axis, 0)
        first, other = np.nonzero(along[:-1] != along[1:])
        before, after = value[first, other], value[first + 1, other]
        # A filled hole may be crossed nowhere: its own pixels are never at the outer edge.
        crossing = first + (_HALF - before) / (after - before)
        pair = (other, crossing) if axis == 0 else (crossing, other)
        found.append(np.stack(pair, 1).astype(np.float64) - 1)
    return np.concatenate(found)


def largest_part(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest part of a mask, four neighbours connecting, its holes filled."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count == 1:
        return np.zeros_like(mask)
    largest = parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    # What is not reached from the frame is a hole.
    _, outside = cv2.connectedComponents((~np.pad(largest, 1)).astype(np.uint8), connectivity=4)
    return (outside != outside[0, 0])[1:-1, 1:-1]
