"""Outlines in millimetres: the polygons and curves that anatomy is drawn with.

All functions return float32 [n, 2] points (x right, y down). Closed outlines do not repeat the
first point.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "_ 2"]
Number = float | int | np.floating
# A point, or two lengths.
Pair = tuple[Number, Number] | Float[np.ndarray, "2"]


@functools.lru_cache(maxsize=64)
def _circle(count: int) -> np.ndarray:
    angles = np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)


def _rotation(angle: Number) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]], np.float32)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Places a structure: mirror (x -> x, y -> -y), turn by `angle` radians, then move."""

    center: Pair
    angle: Number = 0.0
    mirror: bool = False

    def __call__(self, points: Points) -> Points:
        points = np.asarray(points, np.float32)
        if self.mirror:
            points = points * np.array([1, -1], np.float32)
        return points @ _rotation(self.angle) + np.array(self.center, np.float32)

    def at(self, x: Number, y: Number) -> tuple[float, float]:
        """One local point in scene coordinates."""
        moved = self(np.array([[x, y]], np.float32))[0]
        return float(moved[0]), float(moved[1])


def ellipse(
    center: Pair,
    semi_axes: Pair,
    angle: Number = 0.0,
    count: int = 40,
) -> Points:
    """A closed ellipse."""
    points = _circle(count) * np.array(semi_axes, np.float32)
    if angle:
        points = points @ _rotation(angle)
    return points + np.array(center, np.float32)


def arc(
    center: Pair,
    semi_axes: Pair,
    start: Number,
    stop: Number,
    count: int = 16,
) -> Points:
    """An open piece of an axis-aligned ellipse between two angles in radians."""
    angles = np.linspace(start, stop, count, dtype=np.float32)
    points = np.stack([np.cos(angles) * semi_axes[0], np.sin(angles) * semi_axes[1]], -1)
    return points + np.array(center, np.float32)


def blob(
    rng: np.random.Generator,
    center: Pair,
    semi_axes: Pair,
    angle: Number = 0.0,
    roughness: Number = 0.1,
    count: int = 36,
) -> Points:
    """A closed smooth irregular outline: an ellipse whose radius wobbles by `roughness`."""
    theta = np.arange(count, dtype=np.float32) * np.float32(2 * np.pi / count)
    radius = np.ones(count, np.float32)
    for order, (size, phase) in enumerate(rng.random((3, 2), dtype=np.float32), start=2):
        radius += np.float32(roughness) * size * np.cos(order * theta + 6.2832 * phase)
    points = _circle(count) * radius[:, None] * np.array(semi_axes, np.float32)
    return points @ _rotation(angle) + np.array(center, np.float32)


@functools.lru_cache(maxsize=64)
def _spline_weights(knots: int, count: int, closed: bool) -> np.ndarray:
    """Catmull-Rom weights, float32 [count, knots]: a curve's points are these times its knots."""
    p = np.eye(knots)
    if closed:
        t = np.arange(count) * (knots / count)
        base = t.astype(int)
        before, here, after, beyond = (p[(base + k) % knots] for k in (-1, 0, 1, 2))
    else:
        t = np.linspace(0, knots - 1, count)
        base = np.minimum(t.astype(int), knots - 2)
        before, here, after, beyond = (p[np.clip(base + k, 0, knots - 1)] for k in (-1, 0, 1, 2))
    u = (t - base)[:, None]
    weights = 0.5 * (
        2 * here
        + (after - before) * u
        + (2 * before - 5 * here + 4 * after - beyond) * u**2
        + (3 * here - before - 3 * after + beyond) * u**3
    )
    return weights.astype(np.float32)


def curve(knots: Points, count: int = 24, closed: bool = False) -> Points:
    """A Catmull-Rom spline through `knots`, `count` points in all."""
    return _spline_weights(len(knots), count, closed) @ np.asarray(knots, np.float32)


def tube(centreline: Points, widths: Float[np.ndarray, "n"] | Number) -> Points:
    """The closed outline of a band of the given full widths around an open curve."""
    line = np.asarray(centreline, np.float32)
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    normal = np.stack([-along[:, 1], along[:, 0]], -1)
    half = np.broadcast_to(np.asarray(widths, np.float32) / 2, len(line))[:, None]
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def capsule(start: Pair, stop: Pair, radius: Number) -> Points:
    """A closed rounded bar."""
    p, q = np.array(start, np.float32), np.array(stop, np.float32)
    angle = np.arctan2(*(q - p)[::-1])
    turn = np.linspace(-np.pi / 2, np.pi / 2, 7, dtype=np.float32)
    cap = np.stack([np.cos(turn), np.sin(turn)], -1) * np.float32(radius) @ _rotation(angle)
    return np.concatenate([q + cap, p - cap])
