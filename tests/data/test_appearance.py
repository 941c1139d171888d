"""Each part of another machine's picture does what it says, and leaves the rest."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.config import default_config
from fetalclip_jax.data import appearance
from fetalclip_jax.data.augment import AugmentConfig, train_augment

STILL = {"rotate_degrees": 0.0, "translate": 0.0, "jitter": 0.0, "flip": 0.0}
# An image with black around it, as all ultrasound has.
FLAT = np.zeros((64, 64), np.uint8)
FLAT[8:56, 8:56] = 128
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


def changed(image=FLAT, count=60, **strengths):
    """The image as several others would show it."""
    config = AugmentConfig(**STILL, **strengths)
    return [train_augment(image, np.random.default_rng(seed), config) for seed in range(count)]


def inside(images):
    return np.array([image[8:56, 8:56].mean() for image in images])


@pytest.mark.parametrize("field", sorted(appearance.LARGEST))
def test_each_part_is_a_field_that_changes_images_and_is_off_by_default(field):
    assert getattr(AugmentConfig(), field) == 0.0
    made = changed(NOISE, 6, **{field: appearance.LARGEST[field]})
    assert any((image != NOISE).any() for image in made)
    assert all(image.shape == NOISE.shape and image.dtype == np.uint8 for image in made)
    colour = changed(np.repeat(NOISE[..., None], 3, axis=2), 6, **{field: 0.4})
    for grey, image in zip(changed(NOISE, 6, **{field: 0.4}), colour, strict=True):
        np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("field", sorted(appearance.LARGEST))
def test_a_strength_that_cannot_be_meant_is_refused(field):
    largest = appearance.LARGEST[field]
    for value in (-0.1, largest + 0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"augment\.{field} is .*; use a number from 0 to"):
            AugmentConfig(**{field: value})


def test_without_any_strength_images_are_those_of_before():
    # Geometry and jitter come first of the random stream, whatever follows.
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rng.uniform(-1, 1, 5)
        mirrored = rng.random() < 0.5
        config = AugmentConfig(rotate_degrees=0.0, translate=0.0, jitter=0.0)
        image = train_augment(NOISE, np.random.default_rng(seed), config)
        np.testing.assert_array_equal(image, NOISE[:, ::-1] if mirrored else NOISE)
        rotated = train_augment(
            FLAT, np.random.default_rng(seed), AugmentConfig(**STILL | {"rotate_degrees": 40.0})
        )
        shaded = train_augment(
            FLAT,
            np.random.default_rng(seed),
            AugmentConfig(**STILL | {"rotate_degrees": 40.0, "gain": 0.1}),
        )
        # Edges are grey; what is seen lies where it lay.
        assert ((rotated > 100) == (shaded > 70)).mean() > 0.97


def test_one_part_does_not_move_the_random_numbers_of_another():
    alone = changed(NOISE, 8, erase=0.5)
    for field in sorted(set(appearance.LARGEST) - {"erase", "clutter"}):
        for image, other in zip(changed(NOISE, 8, erase=0.5, **{field: 1e-6}), alone, strict=True):
            assert ((image == 0) & (NOISE > 3)).sum() == ((other == 0) & (NOISE > 3)).sum(), field


@pytest.mark.parametrize("field", ["gain", "gamma", "depth_gain", "lateral_gain", "speckle"])
def test_where_there_is_no_echo_it_stays_black(field):
    for image in changed(count=20, **{field: appearance.LARGEST[field]}):
        assert not image[:8].any()
        assert not image[:, :8].any()


def test_gain_brightens_and_darkens_all_echoes_alike():
    means = inside(changed(gain=0.2)) - 128
    assert np.abs(means).max() <= 0.2 * 255 + 1
    assert means.min() < -40
    assert means.max() > 40
    assert all(image[8:56, 8:56].std() == 0 for image in changed(gain=0.2, count=5))


def test_gamma_bends_the_grey_curve_both_ways_and_keeps_white():
    for image in changed(np.full((16, 16), 255, np.uint8), gamma=0.5, count=5):
        assert (image == 255).all()
    exponents = np.log(inside(changed(gamma=0.5)) / 255) / np.log(128 / 255)
    assert 0.59 < exponents.min() < 0.65
    assert 1.5 < exponents.max() < 1.67


def test_a_smaller_dynamic_range_makes_the_dark_black_and_keeps_white():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    made = [image[0].astype(int) for image in changed(ramp, dynamic_range=0.7)]
    for row in made:
        assert (row[0], row[255]) == (0, 255)
        assert (np.diff(row) >= 0).all()
        darker, brighter = row <= ramp[0], row >= ramp[0]
        assert darker.all() or brighter.all()
    # Half of the range is shown at the least: e to the 0.7.
    assert 110 < max((row == 0).sum() for row in made) < 130
    assert 15 < sum((row == 0).sum() > 1 for row in made) < 45
    # And twice of it at the most.
    assert 180 < max(row[128] for row in made) < 192


@pytest.mark.parametrize(("field", "axis"), [("depth_gain", 1), ("lateral_gain", 0)])
def test_a_time_gain_curve_changes_along_its_axis_alone(field, axis):
    spans = []
    for image in changed(**{field: 0.3}):
        part = image[8:56, 8:56].astype(int)
        assert (np.ptp(part, axis=axis) == 0).all()
        spans.append([np.ptp(half) for half in np.array_split(part, 4, axis=1 - axis)])
    assert (np.median(spans, axis=0) > 10).all()  # from one end to the other


def test_half_of_the_images_are_blurred_and_the_others_sharpened():
    edge = np.diff(FLAT[32].astype(int)).max()
    steepest = [
        np.abs(np.diff(image[32].astype(int))).max() for image in changed(blur=1.5, sharpen=2.0)
    ]
    assert 10 < sum(step < edge for step in steepest) < 40
    assert max(steepest) > edge + 40
    blurred = [np.abs(np.diff(image[32].astype(int))).max() for image in changed(blur=1.5)]
    assert max(blurred) == edge


def test_sharpness_is_of_what_is_shown_whatever_its_pixels():
    large = np.kron(FLAT, np.ones((4, 4), np.uint8))
    for small, image in zip(changed(blur=2.0, count=8), changed(large, 8, blur=2.0), strict=True):
        shrunk = image.reshape(64, 4, 64, 4).mean(axis=(1, 3))
        assert np.abs(shrunk - small).mean() < 4


def test_speckle_is_grain_of_at_most_its_strength():
    deviations = np.array([image[8:56, 8:56].std() for image in changed(speckle=0.1)])
    assert 20 < deviations.max() < 0.1 * 255 * 1.3
    assert deviations.min() < 3
    np.testing.assert_allclose(inside(changed(speckle=0.1)), 128, atol=12)


def test_boxes_are_black_and_as_frequent_as_asked():
    boxed = [(image == 0).mean() for image in changed(np.full((64, 64), 9, np.uint8), erase=0.5)]
    assert 20 < np.count_nonzero(boxed) < 40
    assert 0 < max(boxed) <= 3 * 0.32**2


def test_clutter_covers_little_and_is_drawn_over_the_black_too():
    shares = [(image != FLAT).mean() for image in changed(clutter=1.0)]
    assert 0 < np.median(shares) < 0.1
    assert max(shares) < 0.2
    assert any(image[:8].any() for image in changed(clutter=1.0))
    untouched = [(image != FLAT).any() for image in changed(clutter=0.5)]
    assert 15 < sum(untouched) < 40


def test_boxes_and_clutter_do_not_come_together():
    boxed, cluttered = (
        {seed for seed, image in enumerate(changed(count=60, **one)) if (image != FLAT).any()}
        for one in ({"erase": 0.5}, {"clutter": 0.5})
    )
    # A quarter of 60 each, but for overlays that change nothing and boxes in the black.
    for share in (boxed - cluttered, cluttered - boxed, boxed & cluttered):
        assert len(share) > 6


def test_strengths_of_other_machines_turn_every_part_on():
    config = AugmentConfig(**appearance.OTHER_MACHINES)
    assert config.changes_appearance
    assert all(getattr(config, field) > 0 for field in appearance.LARGEST)
    assert set(dataclasses.asdict(config)) == set(default_config().augment)
