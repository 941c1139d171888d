"""Simulated clips of hearts."""

import collections
import pickle

import numpy as np
import pytest

from fetalclip_jax.datasets import registry

OPTIONS = {"pool_clips": 20, "test_clips": 10, "frames": 4, "abnormal_share": 0.3}


def opened(split="pool", image_size=64, seed=0, **options):
    return registry.open_source(
        "phantom_clips", split=split, options=OPTIONS | options, image_size=image_size, seed=seed
    )


def labels(source):
    return collections.Counter(source.metadata()["label"].tolist())


def test_the_share_of_defects_is_as_asked():
    assert labels(opened()) == {
        "normal": 14, "ventricular_septal_defect": 3, "hypoplastic_left_heart": 3,
    }  # fmt: skip
    assert labels(opened("test", abnormal_share=0.5)) == {
        "normal": 5, "ventricular_septal_defect": 3, "hypoplastic_left_heart": 2,
    }  # fmt: skip


def test_a_clip_is_one_beat_of_one_patient():
    source = opened()
    example = source[3]
    assert len(example.frames) == 4
    assert max(example.frames[0].shape) == 64
    np.testing.assert_array_equal(example.image, example.frames[2])
    moves = [np.abs(example.frames[0].astype(int) - one).mean() for one in example.frames]
    assert moves[0] == 0
    assert moves[2] == max(moves) > 0.2  # the ventricles are smallest in the middle of the beat
    assert example.plane == "heart"
    again = pickle.loads(pickle.dumps(source))[3]
    np.testing.assert_array_equal(again.frames, example.frames)
    assert source.bare(3).label == example.label


def test_the_spacing_is_that_of_the_pixels():
    """Depth marks, which machines draw every 10 mm at the left, are as far apart as it says."""
    source, marked = opened(image_size=192), 0
    for i in range(len(source)):
        example = source[i]
        marks = np.flatnonzero((example.image[:, 6:8] == 215).all(axis=1))
        marks = marks[np.insert(np.diff(marks) > 1, 0, True)] if len(marks) else marks
        if len(marks) > 4:
            marked += 1
            apart = np.median(np.diff(marks))
            np.testing.assert_allclose(apart * example.pixel_spacing_mm, 10, rtol=0.06)
    assert marked > 3


def test_patients_are_in_one_split_and_not_among_those_of_the_images():
    ids = {s: opened(s).metadata()["patient_id"].tolist() for s in ("pool", "test", "all")}
    assert len(set(ids["pool"])) == 20
    assert not set(ids["pool"]) & set(ids["test"])
    assert ids["all"] == ids["pool"] + ids["test"]
    parts = [opened(s).metadata()["patient_id"].tolist() for s in ("train", "validation")]
    assert parts[0] + parts[1] == ids["pool"]
    assert len(parts[1]) == 2
    for split in ("train", "all"):
        sizes = {f"{group}_images": 60 for group in ("train", "pool", "test")}
        images = registry.open_source("phantom", split=split, options=sizes, image_size=64)
        assert not {images.bare(i).patient_id for i in range(len(images))} & {*ids["all"]}


def test_seeds_sizes_and_splits_tell_data_sets_apart():
    sources = [opened(), opened("test"), opened(seed=1), opened(frames=3), opened(image_size=96)]
    assert len({str(one.description) for one in sources}) == len(sources)
    assert len({one[0].example_id for one in sources[:3]}) == 3


def test_without_test_clips_there_is_no_such_split():
    assert "test" not in opened(test_clips=0).facts.roles
    with pytest.raises(ValueError, match="phantom_clips has no split 'test'; it has train, valid"):
        opened("test", test_clips=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_clips": 1}, "pool_clips=1 of 2 or more"),
        ({"frames": 0}, "frames=0 of 1 or more"),
        ({"abnormal_share": 0.0}, "abnormal_share is 0.0; use a share between 0 and 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        opened(**options)
