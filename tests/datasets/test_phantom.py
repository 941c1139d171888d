"""The phantom as a data set."""

import pickle

import numpy as np
import pytest

from fetalclip_jax.data.checks import check_example, ranges_of
from fetalclip_jax.datasets.phantom import DEFAULTS, PhantomSource, open_split
from fetalclip_jax.phantom.simulator import VERSION, Phantom


def opened(split, **options):
    sizes = {"train_images": 12, "pool_images": 6, "test_images": 18}
    return open_split("", split, {**DEFAULTS, **sizes, **options}, 32, 0)


def test_a_source_is_a_window_on_the_phantom():
    source = PhantomSource(3, 10, 14, image_size=48)
    assert len(source) == 4
    expected = Phantom(seed=3, image_size=48)[12]
    example = source[2]
    assert example.example_id == expected.example_id
    np.testing.assert_array_equal(example.image, expected.image)
    with pytest.raises(IndexError):
        source[4]
    copy = pickle.loads(pickle.dumps(source))[2]
    assert vars(copy) | {"image": 0} == vars(example) | {"image": 0}
    np.testing.assert_array_equal(copy.image, example.image)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="examples 5 to 5 are none"):
        PhantomSource(0, 5, 5)


def test_splits_follow_each_other_and_all_leaves_out_what_is_trained_on():
    ranges = {
        split: (source.description["start"], source.description["stop"])
        for split in ("train", "pool", "test", "all")
        for source in [opened(split)]
    }
    assert ranges == {"train": (0, 12), "pool": (12, 18), "test": (18, 36), "all": (12, 36)}


def test_records_made_before_are_known_by_their_description():
    # Anything else here, and every prepared phantom of every run would be made again.
    assert opened("pool").description == {
        "type": "phantom",
        "version": VERSION,
        "seed": 0,
        "start": 12,
        "stop": 18,
        "image_size": 32,
        "images_per_patient": 6,
        "plane_weights": None,
        "with_masks": False,
    }


def test_it_says_that_it_is_simulated_and_that_ages_are_true():
    facts = opened("test").facts
    assert facts.simulated
    assert facts.ages_from == "recorded"
    # Its records keep the format they had, which has no column for groups.
    assert facts.group_columns == ()
    assert facts.roles["validation"] == facts.roles["fit"] == "pool"


def test_masks_are_those_it_announces():
    source = opened("test", with_masks=True)
    found = set().union(*(example.masks or {} for example in (source[i] for i in range(18))))
    assert "head" in found
    assert found <= set(source.facts.masks)
    assert opened("test").facts.masks == ()


def test_second_images_show_the_same_to_the_same_scale_by_another_machine():
    source = opened("train", second_images=True)
    assert source.facts.second_images
    assert not opened("train").facts.second_images
    assert source.description == opened("train").description | {"second_images": True}
    one, plain = source[3], opened("train")[3]
    np.testing.assert_array_equal(one.image, plain.image)
    assert plain.second_image is None
    assert one.second_image.dtype == np.uint8
    assert one.image.shape[1] == 32
    np.testing.assert_array_equal(one.second_image, source[3].second_image)
    for example in source:
        assert example.second_image.shape == example.image.shape
        assert (example.second_image != example.image).mean() > 0.3


def test_wide_pixels_of_its_smallest_images_are_plausible():
    source = opened("train", train_images=120)
    examples = [source[i] for i in range(120)]
    assert max(example.pixel_spacing_mm for example in examples) > 5
    for example in examples:
        check_example(example, ranges_of(source))


def test_what_cannot_be_opened():
    with pytest.raises(ValueError, match="no split 'validation'; it has train, pool, test, all"):
        opened("validation")
    with pytest.raises(ValueError, match="pool_images=7 is not a multiple of images_per_patient=6"):
        opened("train", pool_images=7)
