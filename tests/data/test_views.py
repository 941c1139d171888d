"""What a model is shown of a source."""

import pickle

import cv2
import numpy as np

from fetalclip_jax.data import augment, views
from fetalclip_jax.data.example import Example
from fetalclip_jax.models import preprocess

WIDE = np.random.default_rng(0).integers(0, 256, (30, 50), np.uint8)


def view(image=WIDE, **arguments):
    return views.Views([Example("e", image, pixel_spacing_mm=0.2)], 16, **arguments)(0)


def test_clean_images_are_those_of_the_reference_transform():
    found = view()
    np.testing.assert_array_equal(found.pixels, [preprocess.square_resize(WIDE, 16)])
    assert found.resized_spacing_mm == 50 / 16 * 0.2
    # Three equal channels are one.
    np.testing.assert_array_equal(view(np.stack([WIDE] * 3, -1)).pixels, found.pixels)


def test_of_a_clip_the_middle_frame_is_shown_and_no_frame_is_kept():
    clip = Example("e", WIDE, frames=[WIDE + 1, WIDE, WIDE + 2])
    found = views.Views([clip], 16)(0)
    np.testing.assert_array_equal(found.pixels, view().pixels)
    assert found.example.frames is None


def test_copies_are_made_of_the_padded_native_image():
    found = view(copies=2, seed=3)
    square = preprocess.pad_to_square(WIDE)
    for copy in (1, 2):
        changed = augment.probe_augment(square, np.random.default_rng([3, 0, copy]))
        expected = preprocess.square_resize(changed, 16)
        np.testing.assert_array_equal(found.pixels[copy], expected)


def test_the_papers_transform_is_not_antialiased():
    found = view(transform="opencv", copies=1, seed=3)
    square = np.repeat(preprocess.pad_to_square(WIDE)[..., None], 3, -1)
    expected = cv2.resize(square, (16, 16), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(found.pixels[0], expected)
    changed = augment.probe_augment(square, np.random.default_rng([3, 0, 1]))
    expected = cv2.resize(changed, (16, 16), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(found.pixels[1], expected)
    assert np.abs(found.pixels[0][..., 0].astype(int) - view().pixels[0]).max() > 20


def test_what_is_shown_can_be_sent_to_another_process():
    made = views.Views([Example("e", WIDE)], 16, copies=1, only={"plane": ("brain",)})
    assert pickle.loads(pickle.dumps(made))(0) is None
