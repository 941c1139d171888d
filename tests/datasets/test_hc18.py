"""HC18 as downloaded."""

import csv
import os

import cv2
import numpy as np
import PIL.Image
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets.hc18 import HC18Source


def patients(source) -> set[str]:
    return {name.split("_")[0] for name in source.filenames}


def test_hc18_example(hc18_folder):
    source = HC18Source(hc18_folder())
    assert len(source) == 20
    example = source[1]
    assert example.example_id == "000_2HC"
    assert example.patient_id == "000"
    assert example.plane == "brain"
    assert example.image.shape == (54, 80)
    assert example.pixel_spacing_mm == 0.125
    assert example.hc_mm == 170.5
    # The age is the one at which the WHO median is the measured circumference (to half a day).
    assert abs(float(who_chart.hc_mm(example.ga_days / 7)) - 170.5) < 1
    assert example.masks is None
    assert source.facts.ages_from == "head circumference"
    with pytest.raises(IndexError):
        source[20]


def test_hc18_splits_patients_not_images(hc18_folder):
    root = hc18_folder()
    splits = [HC18Source(root, split) for split in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [14, 2, 4]  # both images of each patient
    train, validation, test = (patients(split) for split in splits)
    assert not train & validation | train & test | validation & test
    assert train | validation | test == patients(HC18Source(root))


def test_hc18_test_patients_do_not_depend_on_the_validation_group(hc18_folder):
    root = hc18_folder()
    # Pinned: results on these patients stay comparable.
    test = HC18Source(root, "test")
    assert patients(test) == {"000", "004"}
    assert HC18Source(root, "test", validation_share=0.5).filenames == test.filenames


def test_hc18_split_depends_on_the_seed_only(hc18_folder):
    root = hc18_folder()
    test = HC18Source(root, "test", seed=1)
    assert HC18Source(root, "test", seed=1).filenames == test.filenames
    assert len({HC18Source(root, "test", seed=s).filenames for s in range(5)}) > 1
    # A partial download divides the patients it has like the whole data set.
    gone = HC18Source(root, "train", seed=1).filenames[:3]
    for name in gone:
        (root / "training_set" / name).unlink()
    partial = HC18Source(root, "test", seed=1)
    assert partial.filenames == test.filenames
    assert partial.missing == gone
    (note,) = partial.notes
    assert note.startswith("3 of the 20 images it lists are not in ")
    assert gone[0] in note


def test_hc18_root_may_be_the_image_folder(hc18_folder):
    root = hc18_folder()
    assert HC18Source(root / "training_set").filenames == HC18Source(root).filenames


def test_hc18_description_tells_data_apart_but_not_places(hc18_folder, rewrite_hc18_csv, tmp_path):
    root = hc18_folder()
    before = HC18Source(root).description
    moved = root.rename(tmp_path / "moved")
    assert HC18Source(moved).description == before
    assert HC18Source(moved, "train").description != before
    rewrite_hc18_csv(moved, [("000_HC.png", "0.25", "170.5")])
    assert HC18Source(moved).description != before


def test_hc18_description_changes_with_a_file(hc18_folder):
    root = hc18_folder(patients=2)
    before = HC18Source(root)
    path = root / "training_set" / "000_HC.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = HC18Source(root)
    assert after.description != before.description
    assert [x for x in after.files if after.files[x] != before.files[x]] == ["000_HC.png"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("000_HC.png", "0.1", "abc")], r"line 2: 'head circumference \(mm\)' is 'abc'"),
        ([("000_HC.png", "", "170")], r"line 2: 'pixel size\(mm\)' is ''"),
        ([("000_HC.png", "-1", "170")], "not a positive number"),
        ([("000_HC.png", "nan", "170")], "not a positive number"),
        ([("000_HC.png", "0.1")], "line 2: 2 cells under a header of 3"),
        ([("scan.png", "0.1", "170")], "filename is 'scan.png'"),
        ([("000_HC.png", "0.1", "170")] * 2, "line 3: 000_HC.png is listed twice"),
        ([], "a header but no rows"),
    ],
)
def test_hc18_bad_rows(hc18_folder, rewrite_hc18_csv, rows, message):
    root = hc18_folder(patients=1)
    rewrite_hc18_csv(root, rows)
    with pytest.raises(ValueError, match=message):
        HC18Source(root)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_hc18_missing_column(hc18_folder, missing):
    header = ["filename", "pixel size(mm)", "head circumference (mm)"]
    wanted = header[missing].split("(")[0].strip()
    header[missing] = "something else"
    with pytest.raises(ValueError, match=f"no column '{wanted}'; its header is"):
        HC18Source(hc18_folder(patients=1, header=header))


def test_hc18_missing_folder_files_and_bad_arguments(hc18_folder, tmp_path):
    with pytest.raises(ValueError, match=r"hc18: .*nowhere does not exist"):
        HC18Source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no root folder is given; its root must be the HC18"):
        HC18Source("")
    (tmp_path / "other.csv").touch()
    with pytest.raises(
        ValueError, match=r"holds \['other.csv'\]; its root must be the HC18 folder"
    ):
        HC18Source(tmp_path)
    root = hc18_folder()
    with pytest.raises(
        ValueError, match="no split 'valid'; it has train, validation, not_test, test"
    ):
        HC18Source(root, "valid")
    with pytest.raises(ValueError, match=r"test_share is 1.0"):
        HC18Source(root, "train", test_share=1.0)
    with pytest.raises(ValueError, match=r"test_share \+ validation_share is 1.1"):
        HC18Source(root, "train", test_share=0.6, validation_share=0.5)
    for path in (root / "training_set").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="holds no image of hc18's split 'all'"):
        HC18Source(root)


def test_hc18_undecodable_image(hc18_folder):
    root = hc18_folder()
    (root / "training_set" / "000_2HC.png").write_bytes(b"not a png")
    source = HC18Source(root)
    assert source[0].example_id == "000_HC"
    with pytest.raises(BadExampleError, match=r"000_2HC\.png"):
        source[1]


def test_hc18_masks_are_filled_outlines(hc18_folder):
    root = hc18_folder(patients=2)
    outline = cv2.ellipse(np.zeros((54, 80), np.uint8), (40, 27), (30, 20), 15, 0, 360, 255, 1)
    for name in ("000_HC", "000_2HC", "001_HC"):
        PIL.Image.fromarray(outline).save(root / "training_set" / f"{name}_Annotation.png")
    source = HC18Source(root, with_masks=True)
    assert source.missing == ("001_2HC.png",)
    assert source.facts.masks == ("head",)
    mask = source[0].masks["head"]
    filled = cv2.ellipse(np.zeros((54, 80), np.uint8), (40, 27), (30, 20), 15, 0, 360, 1, -1)
    assert mask.dtype == bool
    assert (mask != filled.astype(bool)).mean() < 0.01


def test_real_hc18(shared_data):
    root = shared_data / "hc18"
    splits = {
        split: HC18Source(root, split, with_masks=True)
        for split in ("train", "validation", "test", "all")
    }
    assert len(splits["all"]) == 597
    assert len(patients(splits["all"])) == 484
    assert sum(len(splits[x]) for x in ("train", "validation", "test")) == 597
    assert [len(patients(splits[x])) for x in ("train", "validation", "test")] == [339, 48, 97]
    test = splits["test"]
    example = test[0]
    # The mask's perimeter is the head circumference of the table: units and files agree.
    contours, _ = cv2.findContours(
        example.masks["head"].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    (_, axes, _) = cv2.fitEllipse(contours[0])
    a, b = sorted(np.array(axes) / 2 * example.pixel_spacing_mm)
    perimeter = np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b)))
    assert abs(perimeter / example.hc_mm - 1) < 0.02
    assert 8 * 7 <= example.ga_days <= 42 * 7


def write_challenge(root, count=3):
    (root / "test_set").mkdir()
    names = [f"{i:03d}_HC.png" for i in range(count)]
    for name in names:
        PIL.Image.fromarray(np.zeros((54, 80), np.uint8)).save(root / "test_set" / name)
    with (root / "test_set_pixel_size.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "pixel size(mm)"), *((x, "0.2") for x in names)])


def test_hc18_test_images_of_the_challenge_have_no_circumference(hc18_folder):
    root = hc18_folder()
    with pytest.raises(ValueError, match=r"holds test_set/ and test_set_pixel_size.csv"):
        HC18Source(root, "test_set")
    write_challenge(root)
    source = HC18Source(root, "test_set")
    assert len(source) == 3
    example = source[1]
    assert (example.hc_mm, example.ga_days, example.pixel_spacing_mm) == (None, None, 0.2)
    # Number 1 of the test images is another fetus than number 1 of the training set.
    assert example.example_id == "test_set/001_HC"
    assert example.patient_id == "test_set/001"
    assert "hc_mm" not in source.facts.columns
    assert len(HC18Source(root)) == 20
