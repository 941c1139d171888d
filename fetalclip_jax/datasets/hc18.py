"""Head circumference images of HC18, from a folder the user downloaded."""

import csv
import hashlib
import math
import os
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.biometry.ellipses import fill_outline
from fetalclip_jax.data.example import BadExampleError, Example, checked_index, read_image


class HC18Source:
    """Head circumference images of HC18 (van den Heuvel et al. 2018, zenodo.1327317).

    The folder is as published: `training_set/` beside `training_set_pixel_size_and_HC.csv`. Rows
    without an image file (a partial download) are left out with a warning. HC18 records no age:
    `ga_days` is the age at which the median of the WHO chart has the measured circumference.

    The number that leads a file name (`010_HC.png`, `010_2HC.png`) is the patient. Patients, not
    images, are divided into train and test, by a hash of seed and number.

    Attributes:
      filenames: the images of this split, in the order of the CSV.
      missing_files: names in the CSV, over all splits, that have no file.
    """

    CSV_NAME = "training_set_pixel_size_and_HC.csv"

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "all",
        test_share: float = 0.2,
        seed: int = 0,
        with_masks: bool = False,
    ):
        """`root` is the folder of the CSV, or `training_set` in it.

        With `with_masks`, the annotated outline is filled to a mask named "head", and images
        without an annotation file are left out.

        Raises:
          ValueError: for a missing folder, CSV, column or image, an unreadable number, an unknown
            split, or a share that leaves a split empty.
        """
        if split not in ("train", "test", "all"):
            raise ValueError(f"split is {split!r}; use 'train', 'test' or 'all'")
        self._folder, csv_path = _find_hc18(root, self.CSV_NAME)
        self._with_masks = with_masks
        rows = _read_hc18_csv(csv_path)
        wanted = set(rows) if split == "all" else _hc18_split(rows, split, test_share, seed)
        present = {name: row for name, row in rows.items() if self._has_files(name)}
        self.missing_files = tuple(name for name in rows if name not in present)
        if self.missing_files:
            warnings.warn(
                f"{csv_path} lists {len(self.missing_files)} images of {len(rows)} that are not in "
                f"{self._folder}; they are left out (first: {self.missing_files[0]})",
                stacklevel=2,
            )
        self._rows = {name: row for name, row in present.items() if name in wanted}
        self.filenames = tuple(self._rows)
        if not self.filenames:
            raise ValueError(
                f"{self._folder} holds no image of the {split} split of {csv_path.name}; unpack "
                "training_set.zip of HC18 (zenodo.org/records/1327317) there"
            )
        listing = hashlib.sha256(repr(sorted(self._rows.items())).encode()).hexdigest()
        self.description: dict[str, Any] = {
            "type": "hc18",
            "split": split,
            "test_share": test_share,
            "seed": seed,
            "with_masks": with_masks,
            "count": len(self.filenames),
            # Names and measurements, not the folder: a data set may be moved.
            "rows_sha256": listing,
        }

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError, named after the file, where it cannot be decoded."""
        name = self.filenames[checked_index(index, len(self))]
        spacing_mm, hc_mm = self._rows[name]
        image = read_image(self._folder / name)
        return Example(
            example_id=pathlib.PurePath(name).stem,
            image=image,
            ga_days=int(who_chart.ga_days_from_hc(hc_mm)),
            pixel_spacing_mm=spacing_mm,
            plane="brain",
            hc_mm=hc_mm,
            patient_id=f"{_hc18_patient(name):03d}",
            masks={"head": self._head_mask(name, image.shape[:2])} if self._with_masks else None,
        )

    def _has_files(self, name: str) -> bool:
        names = [name, _annotation_name(name)] if self._with_masks else [name]
        return all((self._folder / x).is_file() for x in names)

    def _head_mask(self, name: str, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        outline = read_image(self._folder / _annotation_name(name))
        if outline.shape[:2] != shape or not outline.any():
            raise BadExampleError(
                name,
                f"{_annotation_name(name)} is {list(outline.shape)} with {int(outline.any())} "
                f"outline for an image of {list(shape)}",
            )
        return fill_outline(outline)


def _find_hc18(root: str | os.PathLike, csv_name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The image folder and the CSV."""
    folder = pathlib.Path(root)
    for parent in (folder, folder.parent) if os.fspath(root) else ():
        if (parent / csv_name).is_file() and (parent / "training_set").is_dir():
            return parent / "training_set", parent / csv_name
    if not os.fspath(root):
        found = "is empty"
    else:
        found = f"has {sorted(os.listdir(root))[:5]}" if folder.is_dir() else "does not exist"
    raise ValueError(
        f"config.data.root={os.fspath(root)!r} {found}; it must be the HC18 folder that holds "
        f"training_set/ and {csv_name} (from zenodo.org/records/1327317)"
    )


def _read_hc18_csv(path: pathlib.Path) -> dict[str, tuple[float, float]]:
    """File name -> (pixel spacing in mm, head circumference in mm)."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        header = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = header
        columns = [
            _find_column(path, header, start)
            for start in ("filename", "pixel size", "head circumference")
        ]
        rows = {}
        for row in reader:
            name = (row[columns[0]] or "").strip()
            where = f"{path} line {reader.line_num}"
            if not re.match(r"\d+", name):
                raise ValueError(f"{where}: filename is {name!r}, not like 010_HC.png")
            if name in rows:
                raise ValueError(f"{where}: {name} is listed twice; remove one of the rows")
            rows[name] = tuple(_positive(where, column, row[column]) for column in columns[1:])
    if not rows:
        raise ValueError(f"{path} has a header but no rows; download it again")
    return rows


def _find_column(path: pathlib.Path, header: list[str], start: str) -> str:
    """The column whose name begins with `start`; the published names go on with a unit."""
    for column in header:
        if column.lower().startswith(start):
            return column
    raise ValueError(f"{path} has no column {start!r}; its header is {header}")


def _positive(where: str, column: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {column!r} is {text!r}, not a positive number")
    return number


def _hc18_patient(name: str) -> int:
    # As a number: the official lists write both 005 and 5 for one patient.
    return int(re.match(r"\d+", name)[0])


def _hc18_split(rows: Mapping[str, Any], split: str, test_share: float, seed: int) -> set[str]:
    """File names of the split. All rows of the CSV take part, whether their file is there or not,
    so that a partial download divides its patients like the whole one."""
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}; use a share between 0 and 1")
    patients = sorted(
        {_hc18_patient(name) for name in rows},
        key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest(),
    )
    test = set(patients[: round(test_share * len(patients))])
    return {name for name in rows if (_hc18_patient(name) in test) == (split == "test")}


def _annotation_name(name: str) -> str:
    return f"{pathlib.PurePath(name).stem}_Annotation.png"
