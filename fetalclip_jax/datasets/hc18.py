"""Head circumference images of HC18, from a folder the user downloaded."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from fetalclip_jax import storage
from fetalclip_jax.biometry import who_chart
from fetalclip_jax.biometry.ellipses import fill_outline
from fetalclip_jax.data.example import (
    NO_IMAGE,
    BadExampleError,
    Example,
    checked_index,
    read_image,
)
from fetalclip_jax.datasets import files, patients, tables
from fetalclip_jax.datasets.protocol import SourceFacts

ONE_DATA_SET = True
ROLES = {"train": "train", "validation": "validation", "fit": "train", "test": "test", "all": "all"}
DEFAULTS = {"test_share": 0.2, "validation_share": 0.1, "with_masks": False}
# The challenge's own test images, whose circumferences were never published.
_CHALLENGE_SPLIT = "test_set"
# All that is not in "test": train and validation together.
_NOT_TEST = "not_test"
_FACTS = SourceFacts(
    splits=("train", "validation", _NOT_TEST, "test", "all", _CHALLENGE_SPLIT),
    roles=ROLES,
    columns=("ga_days", "pixel_spacing_mm", "plane", "hc_mm", "patient_id"),
    ages_from="head circumference",
    citation=(
        "van den Heuvel et al., Automated measurement of fetal head circumference using 2D "
        "ultrasound images, PLoS ONE 13(8), 2018 (zenodo.org/records/1327317)"
    ),
    licence="CC BY 4.0",
)


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "HC18Source":
    """See `HC18Source`; images keep the size they have."""
    del image_size
    return HC18Source(root, split, seed=seed, **options)


class HC18Source:
    """Head circumference images of HC18 (van den Heuvel et al. 2018, zenodo.1327317).

    The folder is as published: `training_set/` beside `training_set_pixel_size_and_HC.csv`, and
    for the split "test_set" also `test_set/` beside `test_set_pixel_size.csv`. Rows without an
    image file (a partial download) are left out and counted. HC18 records no age: `ga_days` is
    the age at which the median of the WHO chart has the measured circumference.

    The number that leads a file name (`010_HC.png`, `010_2HC.png`) counts as the patient, and
    patients, not images, are divided into train, validation and test, by a hash of seed and
    number; "not_test" is the first two. A number is not quite a patient: the published training set
    has 806 numbers for 551 women, and nothing says which belong together, so that no split of it is
    free of them.

    Attributes:
      filenames: the images of this split, in the order of the CSV.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "all",
        *,
        test_share: float = 0.2,
        validation_share: float = 0.1,
        seed: int = 0,
        with_masks: bool = False,
    ):
        """`root` is the folder of the CSV, or the image folder in it.

        With `with_masks`, the annotated outline is filled to a mask named "head", and images
        without an annotation file are left out. The shares are of the training set's patients.

        Raises:
          ValueError: for a missing folder, CSV, column or image, an unreadable number, an unknown
            split, or shares that leave a split empty.
        """
        if split not in _FACTS.splits:
            raise ValueError(f"hc18 has no split {split!r}; it has {', '.join(_FACTS.splits)}")
        patients.check_share("hc18's test_share", test_share)
        patients.check_share("hc18's validation_share", validation_share)
        patients.check_share("hc18's test_share + validation_share", test_share + validation_share)
        challenge = split == _CHALLENGE_SPLIT
        self._prefix = "test_set/" if challenge else ""
        self._with_masks = with_masks and not challenge
        self._folder, rows = _read_challenge(root) if challenge else _read_training(root)
        wanted = _split_of(rows, split, test_share, validation_share, seed)
        found = files.identities(self._folder, self._needed(rows))
        present = {name for name in rows if all(x in found for x in self._needed([name]))}
        self.missing = tuple(name for name in rows if name not in present)
        self.notes = files.missing_note(self.missing, len(rows), self._folder)
        self._rows = {name: rows[name] for name in rows if name in wanted & present}
        self.filenames = tuple(self._rows)
        if not self.filenames:
            raise ValueError(
                f"{self._folder} holds no image of hc18's split {split!r}; unpack the archive of "
                "HC18 (zenodo.org/records/1327317) there"
            )
        self.files = {name: found[name] for name in self._needed(self.filenames)}
        self.facts = dataclasses.replace(_FACTS, masks=("head",) if self._with_masks else ())
        if challenge:
            columns = ("pixel_spacing_mm", "plane", "patient_id")
            self.facts = dataclasses.replace(self.facts, columns=columns, ages_from="")
        self.description: dict[str, Any] = {
            "type": "hc18",
            "split": split,
            "test_share": test_share,
            "validation_share": validation_share,
            "seed": seed,
            "with_masks": self._with_masks,
            "count": len(self.filenames),
            # Names and measurements, not the folder: a data set may be moved.
            "rows_sha256": files.digest(self._rows),
            "files_sha256": files.digest(self.files),
        }

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError, named after the file, where it cannot be decoded."""
        example = self.bare(index)
        name = self.filenames[index]
        image = read_image(self._folder / name)
        masks = {"head": self._head_mask(name, image.shape[:2])} if self._with_masks else None
        return dataclasses.replace(example, image=image, masks=masks)

    def bare(self, index: int) -> Example:
        """The example without its image."""
        name = self.filenames[checked_index(index, len(self))]
        spacing_mm, hc_mm = self._rows[name]
        return Example(
            example_id=self._prefix + pathlib.PurePath(name).stem,
            image=NO_IMAGE,
            ga_days=None if hc_mm is None else int(who_chart.ga_days_from_hc(hc_mm)),
            pixel_spacing_mm=spacing_mm,
            plane="brain",
            hc_mm=hc_mm,
            # Number 5 of the challenge's test images is not number 5 of the training set.
            patient_id=f"{self._prefix}{_patient(name):03d}",
        )

    def _needed(self, names) -> list[str]:
        """The files of some images."""
        if not self._with_masks:
            return list(names)
        return [file for name in names for file in (name, _annotation_name(name))]

    def _head_mask(self, name: str, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        outline = read_image(self._folder / _annotation_name(name))
        if outline.shape[:2] != shape or not outline.any():
            raise BadExampleError(
                name,
                f"{_annotation_name(name)} is {list(outline.shape)} with {int(outline.any())} "
                f"outline for an image of {list(shape)}",
            )
        return fill_outline(outline)


# File name -> (pixel spacing in mm, head circumference in mm, where that is published).
_Rows = dict[str, tuple[float, float | None]]


def _read_training(root: str | os.PathLike) -> tuple[storage.Path, _Rows]:
    folder, path = _find(root, "training_set", "training_set_pixel_size_and_HC.csv")
    return folder, _read_rows(path, ("filename", "pixel size", "head circumference"))


def _read_challenge(root: str | os.PathLike) -> tuple[storage.Path, _Rows]:
    folder, path = _find(root, "test_set", "test_set_pixel_size.csv")
    return folder, _read_rows(path, ("filename", "pixel size"))


def _find(root: str | os.PathLike, images: str, csv: str) -> tuple[storage.Path, storage.Path]:
    """The image folder and the CSV."""
    folder = storage.path(root)
    for parent in (folder, folder.parent) if os.fspath(root) else ():
        if (parent / csv).is_file() and (parent / images).is_dir():
            return parent / images, parent / csv
    raise ValueError(
        f"hc18: {files.describe_folder(root)}; its root must be the HC18 folder that holds "
        f"{images}/ and {csv} (from zenodo.org/records/1327317)"
    )


def _read_rows(path: storage.Path, starts: tuple[str, ...]) -> _Rows:
    table = tables.read_table(path)
    name_column, *number_columns = (_find_column(table, start) for start in starts)
    rows: _Rows = {}
    for row in table.rows:
        name, where = row.cells[name_column], table.where(row)
        if not re.match(r"\d+", name):
            raise ValueError(f"{where}: filename is {name!r}, not like 010_HC.png")
        if name in rows:
            raise ValueError(f"{where}: {name} is listed twice; remove one of the rows")
        numbers = [_positive(where, column, row.cells[column]) for column in number_columns]
        rows[name] = (numbers[0], numbers[1] if len(numbers) > 1 else None)
    return rows


def _find_column(table: tables.Table, start: str) -> str:
    """The column whose name begins with `start`; the published names go on with a unit."""
    for column in table.columns:
        if column.lower().startswith(start):
            return column
    raise ValueError(f"{table.path} has no column {start!r}; its header is {list(table.columns)}")


def _positive(where: str, column: str, text: str) -> float:
    try:
        number = tables.number(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {column!r} is {text!r}, not a positive number")
    return number


def _patient(name: str) -> int:
    # As a number: 005 and 5 are one.
    return int(re.match(r"\d+", name)[0])


def _split_of(
    rows: _Rows, split: str, test_share: float, validation_share: float, seed: int
) -> set[str]:
    """File names of the split. All rows of the CSV take part, whether their file is there or not,
    so that a partial download divides its patients like the whole one."""
    if split in ("all", _CHALLENGE_SPLIT):
        return set(rows)
    ordered = patients.in_hashed_order((_patient(name) for name in rows), seed)
    test = round(test_share * len(ordered))
    validation = test + max(1, round(validation_share * len(ordered)))
    group = {
        "test": ordered[:test],
        "validation": ordered[test:validation],
        "train": ordered[validation:],
        _NOT_TEST: ordered[test:],
    }[split]
    chosen = set(group)
    return {name for name in rows if _patient(name) in chosen}


def _annotation_name(name: str) -> str:
    return f"{pathlib.PurePath(name).stem}_Annotation.png"
