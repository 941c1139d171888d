"""Mirrored and turned views of an image, and the mean of their features."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.models import test_time
from fetalclip_jax.models.preprocess import normalise

SIZE = 12
BLACK = normalise(np.zeros((1, 1, 1), np.uint8)).reshape(3)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def turned(pixels, degrees):
    """By OpenCV; normalised."""
    matrix = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), degrees, 1.0)
    found = [cv2.warpAffine(one.astype(np.float32), matrix, (SIZE, SIZE)) for one in pixels]
    return normalise(np.stack(found))


@pytest.mark.parametrize("degrees", [-8.0, 3.5, 90.0])
def test_images_are_turned_about_their_centre(pixels, degrees):
    found = test_time.turn(jnp.asarray(normalise(pixels)), jnp.float32(degrees))
    # OpenCV rounds places to 1/32 of a pixel, and neighbours differ by up to 4 standard deviations.
    np.testing.assert_allclose(found, turned(pixels, degrees), atol=4 * 2 / 32)


def test_what_was_outside_is_black():
    white = jnp.asarray(normalise(np.full((1, SIZE, SIZE, 3), 255, np.uint8)))
    found = test_time.turn(white, jnp.float32(45))
    np.testing.assert_allclose(found[0, 0, 0], BLACK, atol=1e-6)
    np.testing.assert_allclose(found[0, SIZE // 2, SIZE // 2], white[0, 0, 0], atol=1e-6)


def test_what_is_not_turned_stays_as_it_is(pixels):
    images = jnp.asarray(normalise(pixels))
    np.testing.assert_allclose(test_time.turn(images, jnp.float32(0)), images, atol=1e-6)


def test_angles_are_even_and_within_the_largest():
    assert test_time.angles(2).tolist() == [0]
    assert test_time.angles(4).tolist() == [-8, 8]
    assert test_time.angles(10).tolist() == [-8, -4, 0, 4, 8]


def test_the_mean_is_over_each_angle_as_it_is_and_mirrored(pixels):
    images = jnp.asarray(normalise(pixels))

    def encode(batch):  # not linear, and tells left from right
        return jnp.square(batch).reshape(2, -1) * jnp.arange(3 * SIZE**2)

    views = [test_time.turn(images, jnp.float32(angle)) for angle in (-8.0, 0.0, 8.0)]
    views += [one[:, :, ::-1] for one in views]
    np.testing.assert_allclose(
        test_time.mean_of_views(encode, images, 6), np.mean([*map(encode, views)], 0), rtol=1e-4
    )
    np.testing.assert_array_equal(test_time.mean_of_views(encode, images, 1), encode(images))


@pytest.mark.parametrize("views", [0, -1, -2, 3, 34])
def test_a_number_without_a_set_of_views_is_refused(views):
    with pytest.raises(ValueError, match=f"test_time_views={views}: use 1 .* even number"):
        test_time.check(views)
