"""Augmentation changes what it says, within its limits, and nothing else."""

import numpy as np
import pytest

from fetalclip_jax.data.augment import AugmentConfig, draw_zoom, probe_augment, train_augment

NOTHING = AugmentConfig(rotate_degrees=0.0, translate=0.0, jitter=0.0, flip=0.0)


def blob(size: int = 64, x: float = 20, y: float = 30) -> np.ndarray:
    """A bright spot; uint8 [size, size]."""
    rows, columns = np.mgrid[:size, :size]
    return (200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)).astype(np.uint8)


def centre(image: np.ndarray) -> np.ndarray:
    """Centre of brightness, (x, y)."""
    weights = image.astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def test_zero_strength_changes_nothing():
    image = blob()
    np.testing.assert_array_equal(train_augment(image, np.random.default_rng(0), NOTHING), image)


def test_the_same_random_state_gives_the_same_image():
    first, second, other = (
        train_augment(blob(), np.random.default_rng(seed), AugmentConfig()) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_translation_stays_within_its_share_and_uses_both_axes():
    config = AugmentConfig(rotate_degrees=0.0, translate=0.1, jitter=0.0, flip=0.0)
    rng = np.random.default_rng(0)
    shifts = np.array(
        [centre(train_augment(blob(), rng, config)) - centre(blob()) for _ in range(60)]
    )
    assert (np.abs(shifts) <= 6.4 + 0.1).all()
    assert (np.abs(shifts).max(axis=0) > 4).all()


def test_zoom_magnifies_about_the_middle():
    middle = np.array([31.5, 31.5])
    zoomed = train_augment(blob(), np.random.default_rng(0), NOTHING, 1.4)
    np.testing.assert_allclose(centre(zoomed) - middle, 1.4 * (centre(blob()) - middle), atol=0.2)


def test_zoom_is_drawn_evenly_on_both_sides_of_one():
    rng = np.random.default_rng(0)
    drawn = np.log([draw_zoom(rng, AugmentConfig(zoom=0.3)) for _ in range(400)])
    assert np.abs(drawn).max() <= 0.3
    assert abs(drawn.mean()) < 0.03
    assert np.abs(drawn).max() > 0.28
    assert draw_zoom(rng, AugmentConfig(zoom=0.0)) == 1.0


def test_rotation_is_about_the_middle_and_keeps_the_scale():
    config = AugmentConfig(rotate_degrees=30.0, translate=0.0, jitter=0.0, flip=0.0)
    rng = np.random.default_rng(0)
    middle = np.array([31.5, 31.5])
    before = centre(blob()) - middle
    angles = []
    for _ in range(60):
        after = centre(train_augment(blob(), rng, config)) - middle
        np.testing.assert_allclose(np.linalg.norm(after), np.linalg.norm(before), atol=0.2)
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert 20 < max(angles) < 30.5


def test_the_border_is_black():
    config = AugmentConfig(rotate_degrees=0.0, translate=0.5, jitter=0.0, flip=0.0)
    shifted = train_augment(np.full((20, 20), 255, np.uint8), np.random.default_rng(3), config)
    assert (shifted == 0).any()
    assert (shifted == 255).any()


def test_jitter_scales_brightness_within_its_limits():
    config = AugmentConfig(rotate_degrees=0.0, translate=0.0, jitter=0.15, flip=0.0)
    rng = np.random.default_rng(0)
    flat = np.full((8, 8), 100, np.uint8)  # contrast cannot change a flat image
    levels = [int(train_augment(flat, rng, config)[0, 0]) for _ in range(80)]
    assert 85 <= min(levels) < 90
    assert 110 < max(levels) <= 115


def test_flip_mirrors_left_and_right():
    config = AugmentConfig(rotate_degrees=0.0, translate=0.0, jitter=0.0, flip=1.0)
    image = blob()
    flipped = train_augment(image, np.random.default_rng(0), config)
    np.testing.assert_array_equal(flipped, image[:, ::-1])


def test_a_vertical_flip_turns_top_to_bottom():
    config = AugmentConfig(
        rotate_degrees=0.0, translate=0.0, jitter=0.0, flip=0.0, flip_vertical=1.0
    )
    flipped = train_augment(blob(), np.random.default_rng(0), config)
    np.testing.assert_array_equal(flipped, blob()[::-1])


def test_one_part_does_not_move_the_random_numbers_of_another():
    without, with_jitter = (
        train_augment(
            blob(),
            np.random.default_rng(5),
            AugmentConfig(rotate_degrees=0.0, translate=0.2, jitter=jitter, flip=0.0),
        )
        for jitter in (0.0, 1e-6)
    )
    np.testing.assert_array_equal(with_jitter, without)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
@pytest.mark.parametrize("augment", ["train", "probe"])
def test_shape_and_type_are_kept(shape, augment):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        result = (
            probe_augment(image, rng)
            if augment == "probe"
            else train_augment(image, rng, AugmentConfig())
        )
        assert result.dtype == np.uint8
        assert result.shape == shape


def test_probe_augmentation_always_moves_and_sometimes_jitters_or_equalises():
    flat = np.full((64, 64), 100, np.uint8)
    moved, changed = 0, 0
    for seed in range(40):
        result = probe_augment(flat, np.random.default_rng(seed))
        moved += (result == 0).any()
        changed += int(np.median(result[result > 0])) != 100
    assert moved == 40
    # Jitter or equalisation: 1 - 0.5 * 0.5 of all.
    assert 20 <= changed <= 38


def test_unknown_fields_and_values_out_of_range_are_errors():
    with pytest.raises(ValueError, match="augment has no field 'shear'"):
        AugmentConfig.from_mapping({"shear": 1.0})
    with pytest.raises(ValueError, match=r"augment.flip is 1.5; use a number from 0 to 1"):
        AugmentConfig(flip=1.5)
