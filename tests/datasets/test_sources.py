"""HC18 as downloaded, and the phantom as a source."""

import dataclasses
import pickle
import warnings

import cv2
import numpy as np
import PIL.Image
import pytest

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.biometry.ellipses import fill_outline
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets.hc18 import HC18Source
from fetalclip_jax.datasets.phantom import PhantomSource
from fetalclip_jax.phantom.simulator import Phantom


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
    with pytest.raises(IndexError):
        source[20]


def test_hc18_splits_patients_not_images(hc18_folder):
    root = hc18_folder()
    train, test = (HC18Source(root, split) for split in ("train", "test"))
    assert len(train) == 16  # both images of eight patients
    assert len(test) == 4
    assert not patients(train) & patients(test)
    assert patients(train) | patients(test) == patients(HC18Source(root))


def test_hc18_split_depends_on_the_seed_only(hc18_folder):
    root = hc18_folder()
    test = HC18Source(root, "test", seed=1)
    assert HC18Source(root, "test", seed=1).filenames == test.filenames
    assert len({HC18Source(root, "test", seed=s).filenames for s in range(5)}) > 1
    # A partial download divides the patients it has like the whole data set.
    gone = HC18Source(root, "train", seed=1).filenames[:3]
    for name in gone:
        (root / "training_set" / name).unlink()
    with pytest.warns(UserWarning, match="3 images of 20"):
        partial = HC18Source(root, "test", seed=1)
    assert partial.filenames == test.filenames
    assert partial.missing_files == gone


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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("000_HC.png", "0.1", "abc")], r"line 2: 'head circumference \(mm\)' is 'abc'"),
        ([("000_HC.png", "", "170")], r"line 2: 'pixel size\(mm\)' is ''"),
        ([("000_HC.png", "-1", "170")], "not a positive number"),
        ([("000_HC.png", "nan", "170")], "not a positive number"),
        ([("000_HC.png", "0.1")], "is None, not a positive number"),
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
    with pytest.raises(ValueError, match=r"config.data.root='.*nowhere' does not exist"):
        HC18Source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="root='' is empty; it must be the HC18 folder"):
        HC18Source("")
    (tmp_path / "other.csv").touch()
    with pytest.raises(ValueError, match=r"has \['other.csv'\]; it must be the HC18 folder"):
        HC18Source(tmp_path)
    root = hc18_folder()
    with pytest.raises(ValueError, match="split is 'valid'"):
        HC18Source(root, "valid")
    with pytest.raises(ValueError, match=r"test_share is 1.0"):
        HC18Source(root, "train", test_share=1.0)
    for path in (root / "training_set").iterdir():
        path.unlink()
    with (
        pytest.warns(UserWarning, match="20 images of 20"),
        pytest.raises(ValueError, match="holds no image of the all split"),
    ):
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
    with pytest.warns(UserWarning, match="1 images of 4"):
        source = HC18Source(root, with_masks=True)
    assert source.missing_files == ("001_2HC.png",)
    mask = source[0].masks["head"]
    filled = cv2.ellipse(np.zeros((54, 80), np.uint8), (40, 27), (30, 20), 15, 0, 360, 1, -1)
    assert mask.dtype == bool
    assert (mask != filled.astype(bool)).mean() < 0.01


def test_an_outline_cut_by_the_border_is_filled_up_to_it():
    outline = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 5), (30, 40), 0, 0, 360, 255, 1)
    filled = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 5), (30, 40), 0, 0, 360, 1, -1)
    assert (fill_outline(outline) != filled.astype(bool)).mean() < 0.01


def test_real_hc18(shared_data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partial download is fine
        train, test = (
            HC18Source(shared_data / "hc18", split, with_masks=True) for split in ("train", "test")
        )
    assert not patients(train) & patients(test)
    share = len(patients(test)) / len(patients(train) | patients(test))
    assert abs(share - 0.2) < 0.05
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


def test_phantom_source_is_a_window_on_the_phantom():
    source = PhantomSource(3, 10, 14, image_size=48)
    assert len(source) == 4
    expected = Phantom(seed=3, image_size=48)[12]
    example = source[2]
    assert example.example_id == expected.example_id
    np.testing.assert_array_equal(example.image, expected.image)
    with pytest.raises(IndexError):
        source[4]
    copy = pickle.loads(pickle.dumps(source))[2]
    assert dataclasses.replace(copy, image=None) == dataclasses.replace(example, image=None)
    np.testing.assert_array_equal(copy.image, example.image)


def test_phantom_source_refuses_an_empty_range():
    with pytest.raises(ValueError, match="examples 5 to 5 are none"):
        PhantomSource(0, 5, 5)
