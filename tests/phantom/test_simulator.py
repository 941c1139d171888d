"""The phantom as a data set: determinism, truth, and that pixels alone do not give planes away."""

import collections
import pickle

import cv2
import numpy as np
import pytest

from fetalclip_jax.biometry.ellipses import circumference as ellipse_circumference
from fetalclip_jax.labels import BRAIN_PLANES, HEART_LABELS, OTHER, PLANES, SIX_PLANES
from fetalclip_jax.phantom.sheet import contact_sheet
from fetalclip_jax.phantom.simulator import PLANE_WEIGHTS, Phantom


@pytest.fixture(scope="module")
def examples() -> list:
    phantom = Phantom(5, 96)
    return [phantom[index] for index in range(900)]


def test_an_example_is_a_pure_function_of_seed_and_index():
    phantom = Phantom(1)
    first = phantom[41]
    phantom[7]
    for again in (phantom[41], pickle.loads(pickle.dumps(Phantom(1)))[41]):
        np.testing.assert_array_equal(first.image, again.image)
        assert first.ga_days == again.ga_days
        assert first.pixel_spacing_mm == again.pixel_spacing_mm
        assert first.example_id == again.example_id
    assert not np.array_equal(first.image, phantom[42].image)
    assert not np.array_equal(first.image, Phantom(2)[41].image)


def test_masks_are_only_added_never_change_the_picture():
    plain, masked = Phantom(1)[0], Phantom(1, with_masks=True)[0]
    np.testing.assert_array_equal(plain.image, masked.image)
    assert plain.masks is None


def test_metadata(examples):
    for index, example in enumerate(examples):
        assert example.image.dtype == np.uint8
        assert max(example.image.shape) == 96
        assert example.patient_id == f"5-{index // 6:06d}"
        assert example.plane in (*PLANES, OTHER)
        assert (example.brain_plane in BRAIN_PLANES) == (example.plane == "brain")
        assert (example.hc_mm is not None) == (example.plane == "brain")
        assert (example.label in HEART_LABELS) == (example.plane == "heart")
        spacing_mm = max(example.image.shape) / 224 * example.pixel_spacing_mm
        assert 0.2 <= spacing_mm <= 1.0
    assert len({e.example_id for e in examples}) == len(examples)


def test_one_patient_has_one_age_and_one_heart(examples):
    patients = collections.defaultdict(list)
    for example in examples:
        patients[example.patient_id].append(example)
    for group in patients.values():
        assert len(group) == 6
        assert len({e.ga_days for e in group}) == 1
        assert len({e.fetus for e in group}) == 1
    assert len({e.ga_days for e in examples}) > 40


def test_planes_come_in_their_shares(examples):
    counts = collections.Counter(e.plane for e in examples)
    for plane, weight in PLANE_WEIGHTS.items():
        assert counts[plane] / len(examples) == pytest.approx(weight, abs=0.05)
    assert len({e.brain_plane for e in examples}) == 4
    assert {e.label for e in examples} == {None, *HEART_LABELS}


def test_pictures_are_neither_black_nor_burnt(examples):
    for example in examples:
        assert np.percentile(example.image, 99) > 50
        assert 4 < example.image.mean() < 190
        assert example.image.std() > 8


def test_soft_tissue_is_dark_and_interfaces_are_bright(examples):
    """As in clinical pictures: half of what the beam reaches is below a third of the range."""
    middle, bright = [], []
    for example in examples:
        seen = example.image[example.image > 2]
        middle.append(np.median(seen))
        bright.append(np.percentile(seen, 99))
    assert 25 < np.median(middle) < 60
    assert np.percentile(middle, 90) - np.percentile(middle, 10) > 25
    assert np.median(bright) > 130


def test_late_heads_are_shown_dark_and_mostly_in_the_trans_thalamic_plane():
    phantom = Phantom(seed=3, image_size=48, images_per_patient=1, plane_weights={"brain": 1.0})
    heads = [phantom[index] for index in range(400)]
    early = [head for head in heads if head.ga_days < 22 * 7]
    late = [head for head in heads if head.ga_days >= 28 * 7]
    assert min(len(early), len(late)) > 30

    def brightness(group):
        return np.median([head.image.mean() for head in group])

    def thalamic(group):
        return np.mean([head.brain_plane == "trans-thalamic" for head in group])

    assert brightness(late) < 0.9 * brightness(early)
    assert thalamic(early) == pytest.approx(0.3, abs=0.1)
    assert thalamic(late) == pytest.approx(0.7, abs=0.15)


def test_brightness_does_not_tell_the_plane(examples):
    brightness = collections.defaultdict(list)
    for example in examples:
        brightness[example.plane].append(example.image.mean())
    overall = np.median(np.concatenate(list(brightness.values())))
    for values in brightness.values():
        assert 0.7 < np.median(values) / overall < 1.4


def test_trunks_and_heads_are_seen_from_all_sides():
    """The spine lies at any hour of the clock; heads lie across, either way round."""
    hours = set()
    phantom = Phantom(3, 96, 1, {"abdomen": 1.0}, with_masks=True)
    for index in range(60):
        masks = phantom[index].masks
        center = [np.argwhere(masks[name]).mean(0) for name in ("spine", "abdomen")]
        down, right = center[0] - center[1]
        hours.add(int(np.degrees(np.arctan2(down, right)) // 60))
    assert len(hours) == 6


@pytest.mark.parametrize("size", [96, 224])
def test_hc_of_the_head_mask_is_the_stated_one(size):
    phantom = Phantom(9, size, 1, {"brain": 1.0}, with_masks=True)
    for index in range(40):
        example = phantom[index]
        mask = example.masks["head"]
        assert mask[1:-1, 1:-1].sum() == mask.sum(), "the head leaves the picture"
        rows, columns = np.nonzero(mask)
        moments = 2 * np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([columns, rows]))))
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        fitted = np.array(cv2.fitEllipse(contours[0])[1]) / 2
        for semi_axes in (moments, fitted):
            hc = ellipse_circumference(*semi_axes) * example.pixel_spacing_mm
            assert hc == pytest.approx(example.hc_mm, rel=0.02)


def test_head_mask_lies_on_the_bright_skull():
    phantom = Phantom(9, 224, 1, {"brain": 1.0}, with_masks=True)
    brighter = 0
    for index in range(20):
        example = phantom[index]
        mask = example.masks["head"].astype(np.uint8)
        thickness = max(3, round(2.5 / example.pixel_spacing_mm))
        inner = cv2.erode(mask, np.ones((3, 3)), iterations=thickness)
        rim, inside = (mask - inner).astype(bool), inner.astype(bool)
        brighter += example.image[rim].mean() > 1.4 * example.image[inside].mean()
    assert brighter >= 18


@pytest.mark.parametrize(
    ("plane", "names"),
    [
        ("brain", {"head"}),
        ("abdomen", {"stomach", "abdomen", "spine"}),
        ("heart", {"thorax", "aorta", "spine", "heart", "septum", "left_ventricle", "left_atrium",
                   "right_ventricle", "right_atrium"}),
    ],
)  # fmt: skip
def test_masks_of_a_plane(plane, names):
    phantom = Phantom(2, 224, 1, {plane: 1.0}, with_masks=True)
    for index in range(5):
        example = phantom[index]
        assert set(example.masks) == names
        for mask in example.masks.values():
            assert mask.shape == example.image.shape
            assert mask.dtype == bool
    if plane == "abdomen":
        stomach, abdomen = example.masks["stomach"], example.masks["abdomen"]
        assert (stomach & abdomen).sum() >= 0.98 * stomach.sum()
        assert 0.005 < stomach.sum() / abdomen.sum() < 0.15


def test_defects_change_the_chambers():
    phantom = Phantom(4, 224, 1, {"heart": 1.0}, with_masks=True)
    shares = collections.defaultdict(list)
    for index in range(60):
        masks = phantom[index].masks
        ratio = masks["left_ventricle"].sum() / max(1, masks["right_ventricle"].sum())
        shares[phantom[index].label].append(ratio)
    assert min(shares["normal"]) > 0.6
    assert max(shares["hypoplastic_left_heart"]) < 0.5
    assert min(shares["ventricular_septal_defect"]) > 0.6


def test_clip_beats_while_the_scan_stands_still():
    phantom = Phantom(4, 96, 1, {"heart": 1.0})
    clip = phantom.clip(3, 8)
    assert clip.shape == (8, *phantom[3].image.shape)
    assert clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, phantom.clip(3, 8))
    from_first = np.abs(clip.astype(float) - clip[0]).mean((1, 2))
    assert from_first[4] > from_first[1] > 0
    assert from_first[7] < from_first[4]
    # Most of the window does not move.
    assert (clip.max(0) - clip.min(0) < 12).mean() > 0.5


def test_raw_pixels_alone_do_not_give_the_plane(examples):
    """A ridge classifier on 16x16 pixels stays far below what the structures allow."""
    pixels, labels = [], []
    for example in examples:
        square = np.zeros((96, 96), np.uint8)
        top = (96 - example.image.shape[0]) // 2
        square[top : top + example.image.shape[0]] = example.image
        pixels.append(cv2.resize(square, (16, 16), interpolation=cv2.INTER_AREA).ravel())
        plane = example.plane if example.plane in SIX_PLANES else OTHER
        labels.append(SIX_PLANES.index(plane))
    features, labels = np.array(pixels, np.float64) / 64, np.array(labels)
    features = np.concatenate([features, np.ones((len(features), 1))], 1)
    train, test = slice(0, 600), slice(600, 900)
    targets = np.eye(6)[labels[train]]
    gram = features[train].T @ features[train] + 30 * np.eye(features.shape[1])
    predicted = (features[test] @ np.linalg.solve(gram, features[train].T @ targets)).argmax(1)
    scores = []
    for label in range(6):
        hits = ((predicted == label) & (labels[test] == label)).sum()
        scores.append(2 * hits / ((predicted == label).sum() + (labels[test] == label).sum()))
    assert np.mean(scores) < 0.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 0, "image_size": 8}, "image_size 8"),
        ({"seed": 0, "images_per_patient": 0}, "images_per_patient"),
        ({"seed": 0, "plane_weights": {"elbow": 1.0}}, "elbow"),
        ({"seed": 0, "plane_weights": {"brain": 0.0}}, "positive sum"),
    ],
)
def test_arguments_that_cannot_work_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Phantom(**arguments)


def test_bad_index_and_frame_count():
    with pytest.raises(IndexError, match="-1"):
        Phantom(0)[-1]
    with pytest.raises(ValueError, match="num_frames"):
        Phantom(0).clip(0, 0)


def test_contact_sheet_has_a_row_for_every_plane():
    sheet = contact_sheet(per_plane=1)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (7 * 210, 2 * 192)
    for row in range(7):
        for column in range(2):
            cell = sheet[row * 210 : (row + 1) * 210, column * 192 : (column + 1) * 192]
            assert cell.std() > 10
