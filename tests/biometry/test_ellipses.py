"""Ellipses and annotated outlines."""

import cv2
import numpy as np
import pytest
from scipy import linalg

from fetalclip_jax.biometry.ellipses import circumference, fill_outline, fit


def test_an_outline_cut_by_the_border_is_filled_up_to_it():
    outline = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 5), (30, 40), 0, 0, 360, 255, 1)
    filled = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 5), (30, 40), 0, 0, 360, 1, -1)
    assert (fill_outline(outline) != filled.astype(bool)).mean() < 0.01


def _points(semi_major, semi_minor, angle, centre=(30.0, 20.0), turn=(0.0, 2 * np.pi), count=60):
    t = np.linspace(*turn, count, endpoint=False)
    along, across = semi_major * np.cos(t), semi_minor * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + c * along - s * across, centre[1] + s * along + c * across], 1)


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 2.9])
def test_the_ellipse_through_exact_points_is_found_exactly(angle):
    found = fit(_points(40.0, 31.0, angle))
    assert (found.x, found.y) == pytest.approx((30, 20))
    assert (found.semi_major, found.semi_minor) == pytest.approx((40, 31))
    assert np.cos(2 * (found.angle - angle)) == pytest.approx(1)
    arc = fit(_points(40.0, 31.0, angle, turn=(0.3, 3.5)))
    assert (arc.semi_major, arc.semi_minor) == pytest.approx((40, 31), rel=1e-6)


def test_noise_of_the_points_averages_out():
    rng = np.random.default_rng(0)
    points = _points(40.0, 31.0, 0.7, count=400)
    found = fit(points + rng.normal(0, 0.3, points.shape))
    assert (found.semi_major, found.semi_minor) == pytest.approx((40, 31), abs=0.1)
    far = fit(points + 1e4)
    assert (far.semi_major, far.semi_minor) == pytest.approx((40, 31), rel=1e-6)


def test_points_of_no_ellipse_have_none():
    line = np.stack([np.arange(9.0), 2 * np.arange(9.0)], 1)
    for points in (line, np.zeros((9, 2)), _points(4.0, 3.0, 0.0)[:5], np.zeros((0, 2))):
        assert fit(points) is None


def test_a_circle_is_as_long_as_pi_says():
    assert circumference(2.0, 2.0) == pytest.approx(4 * np.pi)


def test_of_noisy_points_the_conic_is_that_of_the_constrained_least_squares():
    rng = np.random.default_rng(1)
    points = _points(40.0, 25.0, 0.7, count=30, turn=(0.0, 4.0), centre=(0.0, 0.0))
    points = (points + rng.normal(0, 1.5, points.shape)) / 30
    x, y = points.T
    design = np.stack([x * x, x * y, y * y, x, y, np.ones_like(x)], 1)
    constraint = np.zeros((6, 6))
    constraint[0, 2] = constraint[2, 0] = 2
    constraint[1, 1] = -1
    values, vectors = linalg.eig(design.T @ design, constraint)
    a, b, c, *_ = vectors[:, np.flatnonzero(np.isfinite(values) & (values.real > 0))[0]].real
    curvature = np.linalg.eigvalsh([[a, b / 2], [b / 2, c]])
    expected = np.sqrt(np.abs(curvature).max() / np.abs(curvature).min())
    found = fit(points)
    assert found.semi_major / found.semi_minor == pytest.approx(expected, rel=1e-6)
