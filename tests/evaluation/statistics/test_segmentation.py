"""Overlap, distance and circumference against slow, obvious references."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn import metrics as reference

from fetalclip_jax.evaluation.statistics import segmentation


def random_masks(count=12, size=20, seed=0):
    """Blobs, specks, empty and full masks."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, size, size)), (0, 2, 2))
    masks = smooth > np.quantile(smooth, rng.uniform(0.3, 0.95, count))[:, None, None]
    masks[0], masks[1], masks[2] = False, True, False
    masks[2, 7, 3] = True
    return masks


def slow_hausdorff95(one, other, spacing_mm):
    if not one.any() or not other.any():
        return np.nan
    points = []
    for mask in (one, other):
        found = []
        for y, x in np.argwhere(mask):
            beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [
                0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j] for i, j in beside
            ]
            if not all(inside):
                found.append((y, x))
        points.append(np.array(found))
    away = [cKDTree(b).query(a)[0] for a, b in (points, points[::-1])]
    return float(np.percentile(np.concatenate(away), 95)) * spacing_mm


def test_dice_is_f1_of_the_pixels():
    one, other = random_masks(seed=1), random_masks(seed=2)
    both, predicted, true = segmentation.areas(one[..., None], other[..., None])
    found = segmentation.dice(both, predicted, true)[:, 0]
    for i, (p, t) in enumerate(zip(one, other, strict=True)):
        if not p.any() and not t.any():
            assert np.isnan(found[i])
            continue
        assert found[i] == pytest.approx(reference.f1_score(t.ravel(), p.ravel()))
        jaccard = reference.jaccard_score(t.ravel(), p.ravel())
        assert found[i] == pytest.approx(2 * jaccard / (1 + jaccard))
    pooled = segmentation.dice(both.sum(0), predicted.sum(0), true.sum(0))
    assert pooled == pytest.approx([reference.f1_score(other.ravel(), one.ravel())])


def test_two_empty_masks_have_no_dice_and_one_empty_mask_none_in_common():
    assert np.isnan(segmentation.dice(np.array([0]), np.array([0]), np.array([0]))).all()
    assert segmentation.dice(np.array([0]), np.array([0]), np.array([5])).tolist() == [0]
    assert segmentation.dice(np.array([0]), np.array([3]), np.array([0])).tolist() == [0]


def test_hausdorff_distance_is_that_of_the_boundary_points():
    one, other = random_masks(seed=3), random_masks(seed=4)
    one, other = np.concatenate([one, other[::-1]]), np.concatenate([other, one])
    spacing = np.random.default_rng(0).uniform(0.2, 2, len(one))
    found = segmentation.hausdorff95(one, other, spacing)
    expected = [slow_hausdorff95(*each) for each in zip(one, other, spacing, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isnan(found).any()
    assert np.isfinite(found).sum() > 15
    # Neither mask comes first.
    np.testing.assert_allclose(segmentation.hausdorff95(other, one, spacing), found)


def test_hausdorff_distance_of_single_pixels_and_of_equal_masks():
    one, other = (np.zeros((1, 9, 9), bool) for _ in range(2))
    one[0, 2, 2] = other[0, 5, 6] = True
    spacing = np.array([0.5])
    assert segmentation.hausdorff95(one, other, spacing)[0] == pytest.approx(2.5)
    assert segmentation.hausdorff95(one, one, spacing)[0] == 0
    assert np.isnan(segmentation.hausdorff95(one, other, np.array([np.nan]))[0])


def ellipse(semi_major, semi_minor, centre, angle=0.4, size=96, finer=8):
    """The share of each pixel that is inside."""
    axis = (np.arange(size * finer) + 0.5) / finer - 0.5
    x, y = np.meshgrid(axis - centre[0], axis - centre[1])
    c, s = np.cos(angle), np.sin(angle)
    inside = ((c * x + s * y) / semi_major) ** 2 + ((c * y - s * x) / semi_minor) ** 2 <= 1
    return inside.reshape(size, finer, size, finer).mean((1, 3))


def true_circumference(a, b):
    t = np.linspace(0, 2 * np.pi, 20_001)
    return np.trapezoid(np.hypot(a * np.sin(t), b * np.cos(t)), t)


@pytest.mark.parametrize("sharp", [False, True])
def test_a_circumference_is_found_to_a_part_of_a_pixel(sharp):
    for centre in ((47.3, 46.1), (50.0, 44.5)):
        shown = ellipse(33.0, 26.0, centre)
        shown = (shown >= 0.5).astype(np.float64) if sharp else shown
        found = segmentation.head_circumference_mm(shown, 1.5)
        # A tenth of a pixel in the radius is two thirds of one around.
        assert found == pytest.approx(1.5 * true_circumference(33.0, 26.0), rel=3e-3)


def test_a_head_that_the_border_cuts_goes_on_beyond_it():
    shown = ellipse(33.0, 26.0, (48.0, 20.0))
    whole = true_circumference(33.0, 26.0)
    assert segmentation.head_circumference_mm(shown, 1.0) == pytest.approx(whole, rel=5e-3)
    # Black rows above the image end the head as its border does.
    shown = ellipse(33.0, 26.0, (48.0, 40.0))
    shown[:25] = 0
    found = segmentation.head_circumference_mm(shown, 1.0, (25, 0, 96, 96))
    assert found == pytest.approx(whole, rel=5e-3)
    assert segmentation.head_circumference_mm(shown, 1.0) < 0.95 * whole


def test_specks_and_holes_change_no_circumference():
    shown = ellipse(33.0, 26.0, (50.0, 46.0))
    clean = segmentation.head_circumference_mm(shown, 1.0)
    shown[2:6, 3:8] = 1
    shown[40:52, 40:60] = 0
    assert segmentation.head_circumference_mm(shown, 1.0) == clean


def test_what_is_no_head_has_no_circumference():
    size = 64
    empty, line = np.zeros((size, size)), np.zeros((size, size))
    line[30:34, 5:60] = 1
    dot = np.zeros((size, size))
    dot[10, 10] = 1
    for shown in (empty, line, dot, np.ones((size, size))):
        assert np.isnan(segmentation.head_circumference_mm(shown, 1.0))
    head = ellipse(20.0, 16.0, (32.0, 32.0), size=size)
    assert np.isfinite(segmentation.head_circumference_mm(head, 1.0))
    for spacing_mm in (0.01, 50.0, np.nan):  # no head is of this size
        assert np.isnan(segmentation.head_circumference_mm(head, spacing_mm))


def test_content_is_what_is_not_black():
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[0, 4], pixels[9, 9] = 3, 10  # as black as lossy files keep it
    assert segmentation.content(pixels) == (0, 0, 10, 10)
    pixels[2:7, 1:9, 1] = 11
    assert segmentation.content(pixels) == (2, 1, 7, 9)
    assert segmentation.content(pixels[..., 1]) == (2, 1, 7, 9)


def test_an_outline_crosses_between_pixel_centres():
    shown = np.zeros((3, 6))
    shown[1] = [0, 0.25, 0.75, 1, 0.8, 0.2]
    points = segmentation.outline_points(shown)
    across = points[points[:, 1] == 1, 0]
    np.testing.assert_allclose(np.sort(across), [1.5, 4.5])
    above = points[(points[:, 0] == 3) & (points[:, 1] < 1), 1]
    np.testing.assert_allclose(above, [0.5])
    np.testing.assert_allclose(points[points[:, 0] == 4, 1], [1 - 0.3 / 0.8, 1 + 0.3 / 0.8])
