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
