"""Small data sets that the tests of this folder share."""

import csv
import pathlib

import numpy as np
import PIL.Image
import pytest

from fetalclip_jax.data.example import Example

HC18_HEADER = ("filename", "pixel size(mm)", "head circumference (mm)")


@pytest.fixture
def numbered_examples():
    """Makes `count` examples; every pixel of number i is i, so an image tells its index."""

    def make(count: int, size: int = 4) -> list[Example]:
        return [
            Example(
                example_id=f"example-{i}",
                image=np.full((size, size), i, np.uint8),
                ga_days=140 + i,
                pixel_spacing_mm=0.5,
                plane="brain",
                hc_mm=170.25 + i,
                patient_id=f"patient-{i // 2}",
            )
            for i in range(count)
        ]

    return make


@pytest.fixture
def hc18_folder(tmp_path):
    """Makes a folder laid out like HC18, with `patients` of two images each."""

    def make(patients: int = 10, header=HC18_HEADER) -> pathlib.Path:
        root = tmp_path / "hc18"
        (root / "training_set").mkdir(parents=True)
        rows = []
        for patient in range(patients):
            for suffix in ("HC", "2HC"):
                name = f"{patient:03d}_{suffix}.png"
                rng = np.random.default_rng(len(rows))
                pixels = rng.integers(0, 255, (54, 80), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(root / "training_set" / name)
                rows.append((name, "0.125", f"{170 + patient}.5"))
        write_hc18_csv(root, rows, header)
        return root

    return make


def write_hc18_csv(root: pathlib.Path, rows, header=HC18_HEADER) -> None:
    path = root / "training_set_pixel_size_and_HC.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def rewrite_hc18_csv():
    return write_hc18_csv


# As published: the split column's name and its values end with a blank.
HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
PLANES = [
    ("Fetal brain", "Trans-thalamic"),
    ("Fetal thorax", "Not A Brain"),
    ("Maternal cervix", "Not A Brain"),
    ("Other", "Not A Brain"),
    ("Fetal brain", "Other"),
]


def image_name(patient: int) -> str:
    return f"Patient{patient:05d}_Plane1_1_of_1"


def table_line(patient: int, **change) -> str:
    plane, brain_plane = PLANES[patient % len(PLANES)]
    row = {
        "name": image_name(patient),
        "number": patient,
        "plane": plane,
        "brain_plane": brain_plane,
        "operator": "Op. 1",
        "machine": "Voluson E6",
        "train": f"{int(patient < 20)} ",
    }
    return ";".join(str(value) for value in (row | change).values())


@pytest.fixture
def planes_folder(tmp_path):
    """A folder of 30 patients with an image each, 20 of them for training."""
    root = tmp_path / "FPDB"
    (root / "Images").mkdir(parents=True)
    for patient in range(30):
        pixels = np.full((20, 40), patient, np.uint8)
        PIL.Image.fromarray(pixels).save(root / "Images" / f"{image_name(patient)}.png")
    write_table(root, [table_line(patient) for patient in range(30)])
    return root


def write_table(root, lines, header=HEADER):
    (root / "FETAL_PLANES_DB_data.csv").write_text("\n".join([header, *lines]) + "\n")
