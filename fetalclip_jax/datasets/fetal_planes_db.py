"""FETAL_PLANES_DB: six planes and three brain planes of 1,792 patients, from a user's folder."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from fetalclip_jax import storage
from fetalclip_jax.data.example import NO_IMAGE, Example, checked_index, read_image
from fetalclip_jax.datasets import files, measurements, patients, tables
from fetalclip_jax.datasets.measurements import Measurement
from fetalclip_jax.datasets.protocol import SourceFacts

ONE_DATA_SET = True
ROLES = {
    "train": "train",
    "validation": "validation",
    "fit": "official_train",
    "test": "test",
    "all": "all",
}
DEFAULTS = {"validation_share": 0.1}
_SPLITS = ("train", "validation", "official_train", "test", "all")
_TABLE, _IMAGES, _MEASUREMENTS = "FETAL_PLANES_DB_data.csv", "Images", "measurements.csv"
_COLUMNS = ("Image_name", "Patient_num", "Plane", "Brain_plane", "Operator", "US_Machine", "Train")
_PLANES = {
    "Fetal abdomen": "abdomen",
    "Fetal brain": "brain",
    "Fetal femur": "femur",
    "Fetal thorax": "heart",
    "Maternal cervix": "cervix",
    "Other": "other",
}
_BRAIN_PLANES = {
    "Trans-thalamic": "trans-thalamic",
    "Trans-cerebellum": "trans-cerebellum",
    "Trans-ventricular": "trans-ventricular",
    "Other": None,
    "Not A Brain": None,
}
_OFFICIAL_SPLITS = {"1": "official_train", "0": "test"}


@dataclasses.dataclass(frozen=True)
class _Image:
    """One row of the table, in this project's words."""

    patient_id: str
    plane: str
    brain_plane: str | None
    machine: str
    operator: str
    official_split: str
    measurement: Measurement | None = None


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "FetalPlanesSource":
    """See `FetalPlanesSource`; images keep the size they have."""
    del image_size
    return FetalPlanesSource(root, split, seed=seed, **options)


class FetalPlanesSource:
    """FETAL_PLANES_DB (Burgos-Artizzu et al. 2020, zenodo.3904280).

    The folder is as published: `FETAL_PLANES_DB_data.csv` beside `Images/`. Rows without an image
    file (a partial download) are left out and counted. The column `Train ` divides patients into
    the splits "official_train" and "test"; "train" and "validation" divide the first, by a hash of
    seed and patient. Fetal thorax is called heart; brain planes that are none of the three are
    None. Group columns: machine and operator.

    An optional `measurements.csv` beside the table (columns Image_name, width, height,
    pixel_spacing_mm, hc_mm) gives pixel spacing and head circumference *of the file that is
    there*, whose size it must state. Numbers that cannot be true are not used, and counted.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "all",
        *,
        validation_share: float = 0.1,
        seed: int = 0,
    ):
        """`validation_share` is of the official training patients.

        Raises:
          ValueError: for a missing folder, table, column or image, a word that is not in the
            published vocabulary, a patient in both official splits, or an unknown split.
        """
        if split not in _SPLITS:
            raise ValueError(f"fetal_planes_db has no split {split!r}; it has {', '.join(_SPLITS)}")
        patients.check_share("fetal_planes_db's validation_share", validation_share)
        folder = _find(root)
        self._folder = folder / _IMAGES
        images = _read_images(folder / _TABLE)
        chosen = _split_of(images, split, validation_share, seed)
        found = files.identities(self._folder, (_file_name(name) for name in images))
        self.missing = tuple(name for name in images if _file_name(name) not in found)
        notes = files.missing_note(self.missing, len(images), self._folder)
        measured, unused = measurements.read(folder / _MEASUREMENTS, images)
        present = [name for name in images if _file_name(name) in found]
        self._images = {
            name: dataclasses.replace(images[name], measurement=measured.get(name))
            for name in present
            if name in chosen
        }
        self.example_ids = tuple(self._images)
        if not self.example_ids:
            raise ValueError(
                f"{self._folder} holds no image of fetal_planes_db's split {split!r}; unpack the "
                "archive of FETAL_PLANES_DB (zenodo.org/records/3904280) there"
            )
        self.notes = notes + unused
        self.files = {_file_name(name): found[_file_name(name)] for name in self.example_ids}
        self.facts = _facts([measured[name] for name in present if name in measured])
        rows = {name: dataclasses.astuple(image) for name, image in self._images.items()}
        self.description: dict[str, Any] = {
            "type": "fetal_planes_db",
            "split": split,
            "validation_share": validation_share,
            "seed": seed,
            "count": len(self.example_ids),
            "rows_sha256": files.digest(rows),
            "files_sha256": files.digest(self.files),
        }

    def __len__(self) -> int:
        return len(self.example_ids)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where the file cannot be decoded or is not the measured one."""
        name = self.example_ids[checked_index(index, len(self))]
        row = self._images[name]
        image = read_image(self._folder / _file_name(name))
        if row.measurement:
            row.measurement.check_size(name, image.shape)
        return dataclasses.replace(self.bare(index), image=image)

    def bare(self, index: int) -> Example:
        """The example without its image."""
        name = self.example_ids[checked_index(index, len(self))]
        row = self._images[name]
        return Example(
            example_id=name,
            image=NO_IMAGE,
            pixel_spacing_mm=row.measurement and row.measurement.pixel_spacing_mm,
            plane=row.plane,
            brain_plane=row.brain_plane,
            hc_mm=row.measurement and row.measurement.hc_mm,
            patient_id=row.patient_id,
            extra={"machine": row.machine, "operator": row.operator},
        )


def _find(root: str | os.PathLike) -> storage.Path:
    folder = storage.path(root)
    if os.fspath(root) and (folder / _TABLE).is_file() and (folder / _IMAGES).is_dir():
        return folder
    found = files.describe_folder(root)
    if os.fspath(root) and (folder.parent / _TABLE).is_file():
        found = f"{folder} lies in the folder that is wanted, {folder.parent}"
    raise ValueError(
        f"fetal_planes_db: {found}; its root must be the folder that holds {_TABLE} and {_IMAGES}/ "
        "(from zenodo.org/records/3904280)"
    )


def _read_images(path: storage.Path) -> dict[str, _Image]:
    table = tables.read_table(path)
    table.check_columns(*_COLUMNS)
    images: dict[str, _Image] = {}
    for row in table.rows:
        name = row.cells["Image_name"]
        if not name or name in images:
            raise ValueError(
                f"{table.where(row)}: Image_name {name!r} is "
                + ("listed twice; remove one of the rows" if name else "empty")
            )
        images[name] = _Image(
            patient_id=_patient_id(table.where(row), row.cells["Patient_num"]),
            plane=_word(table, row, "Plane", _PLANES),
            brain_plane=_word(table, row, "Brain_plane", _BRAIN_PLANES),
            machine=row.cells["US_Machine"],
            operator=row.cells["Operator"],
            official_split=_word(table, row, "Train", _OFFICIAL_SPLITS),
        )
    pairs = ((image.patient_id, image.official_split) for image in images.values())
    patients.check_apart(pairs, os.fspath(path))
    return images


def _word(table: tables.Table, row: tables.Row, column: str, vocabulary: Mapping[str, Any]) -> Any:
    word = row.cells[column]
    if word not in vocabulary:
        raise ValueError(
            f"{table.where(row)}: {column} is {word!r}, not one of {', '.join(vocabulary)}"
        )
    return vocabulary[word]


def _patient_id(where: str, number: str) -> str:
    if not number.isdigit():
        raise ValueError(f"{where}: Patient_num is {number!r}, not a number")
    return f"Patient{int(number):05d}"  # as the official split files write it


def _split_of(
    images: Mapping[str, _Image], split: str, validation_share: float, seed: int
) -> set[str]:
    """Image names of the split; those that are missing take part, so that a partial download
    divides its patients like the whole one."""
    if split == "all":
        return set(images)
    if split == "test":
        return {name for name, image in images.items() if image.official_split == "test"}
    training = {name: x for name, x in images.items() if x.official_split == "official_train"}
    if split == "official_train":
        return set(training)
    ordered = patients.in_hashed_order((image.patient_id for image in training.values()), seed)
    held_out = set(ordered[: max(1, round(validation_share * len(ordered)))])
    return {
        name
        for name, image in training.items()
        if (image.patient_id in held_out) == (split == "validation")
    }


def _facts(measured: list[Measurement]) -> SourceFacts:
    columns = ("plane", "brain_plane", "patient_id", "machine", "operator")
    for field in ("pixel_spacing_mm", "hc_mm"):
        if any(getattr(measurement, field) is not None for measurement in measured):
            columns += (field,)
    return SourceFacts(
        splits=_SPLITS,
        roles=ROLES,
        columns=columns,
        group_columns=("machine", "operator"),
        citation=(
            "Burgos-Artizzu et al., Evaluation of deep convolutional neural networks for automatic "
            "classification of common maternal fetal ultrasound planes, Scientific Reports 10, "
            "2020 (zenodo.org/records/3904280)"
        ),
        licence="CC BY 4.0",
    )


def _file_name(name: str) -> str:
    return f"{name}.png"
