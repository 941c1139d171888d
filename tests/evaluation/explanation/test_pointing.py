"""The pointing game on maps whose answer can be counted."""

import numpy as np

from fetalclip_jax.evaluation.explanation import pointing


def test_mass_and_hits_are_counted():
    heat = np.zeros((2, 4, 4), np.float32)
    heat[0, 0, 0], heat[0, 1, 1], heat[0, 3, 3] = 1, 2, 5
    heat[1, 0, :2], heat[1, 2, 2] = 2, 1
    masks = np.zeros((2, 4, 4), bool)
    masks[:, :2, :2] = True
    masks[1, 0, 0] = False
    np.testing.assert_allclose(pointing.mass_inside(heat, masks), [3 / 8, 2 / 5])
    # Two places share the maximum of the second map, and one of them is inside.
    np.testing.assert_allclose(pointing.hits(heat, masks), [0, 0.5])


def test_content_is_the_rectangle_of_what_is_not_black():
    pixels = np.zeros((3, 6, 6, 3), np.uint8)
    pixels[0, 1, 2, 0] = pixels[0, 4, 3, 2] = 200
    pixels[1, 2, 2] = 10  # as black as lossy files keep it
    pixels[2, :, 5] = 90
    found = pointing.content(pixels)
    expected = np.zeros((6, 6), bool)
    expected[1:5, 2:4] = True
    np.testing.assert_array_equal(found[0], expected)
    assert found[1].all()
    assert found[2].sum() == 6
    assert found[2, :, 5].all()


def test_chance_is_the_share_of_the_content_that_is_covered():
    inside, masks = np.zeros((1, 6, 6), bool), np.zeros((1, 6, 6), bool)
    inside[0, :, 1:5] = True
    masks[0, 2:4, :3] = True  # two of its columns are content
    even = pointing.even(inside)
    np.testing.assert_allclose(pointing.mass_inside(even, masks), [4 / 24])
    np.testing.assert_allclose(pointing.hits(even, masks), [4 / 24])


def test_the_central_spot_is_in_the_middle_of_the_content():
    inside = np.zeros((1, 20, 20), bool)
    inside[0, 4:13, 2:19] = True  # 9 x 17: the middle is 8, 10
    spot = pointing.central(inside)[0]
    assert np.unravel_index(spot.argmax(), spot.shape) == (8, 10)
    assert not spot[~inside[0]].any()
    # A quarter of the sides: one standard deviation is 2.25 rows or 4.25 columns.
    np.testing.assert_allclose(spot[10, 10], np.exp(-0.5 * (2 / 2.25) ** 2), rtol=1e-6)
    np.testing.assert_allclose(spot[8, 14], np.exp(-0.5 * (4 / 4.25) ** 2), rtol=1e-6)


def test_a_map_of_nothing_points_nowhere():
    inside = np.zeros((2, 4, 4), bool)
    inside[:, 1:3] = True
    heat = np.zeros((2, 4, 4), np.float32)
    heat[1, 0, 0] = 3
    found, empty = pointing.or_even(heat, inside)
    assert empty.tolist() == [True, False]
    np.testing.assert_array_equal(found[0], inside[0])
    np.testing.assert_array_equal(found[1], heat[1])
