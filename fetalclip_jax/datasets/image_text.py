"""Any folder of images, with a table of what is known about them or without."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from fetalclip_jax import storage
from fetalclip_jax.data.checks import check_example, implausible
from fetalclip_jax.data.encoding import RECORD_COLUMNS
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example, checked_index, read_image
from fetalclip_jax.datasets import files, patients, tables
from fetalclip_jax.datasets.protocol import SourceFacts

ONE_DATA_SET = False
ROLES = {"train": "train", "validation": "validation", "fit": "train", "test": "test", "all": "all"}
_TEXTS = ("caption", "plane", "brain_plane", "patient_id", "label")
_NUMBERS = ("ga_days", "pixel_spacing_mm", "hc_mm")
_FIELDS = ("image", "example_id", *_TEXTS, *_NUMBERS, "ga_weeks", "split")
# `columns` says what the table calls a field; "" where it has the field's own name, or has not.
DEFAULTS = {"table": "", "columns": dict.fromkeys(_FIELDS, "")}
_NO_TABLE = "none"
_SPLITS = ("train", "validation", "test")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# Shares of patients that are held out where the table has no such split.
_TEST_SHARE, _VALIDATION_SHARE = 0.1, 0.1
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_WEEKS_AND_DAYS = re.compile(r"(\d+)\s*(?:\+|w|weeks?)\s*([0-6])\s*(?:d|days?)?", re.IGNORECASE)


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "ImageTextSource | ImageFolder":
    """The table in `root` (see `ImageTextSource`), or, where there is none, every image below it.

    Options:
      table: file name in `root`; "" for its only .csv, .tsv or .jsonl, "none" for none.
      columns: field -> the table's name for it.

    Raises:
      ValueError: for a folder that is not there, several tables, or as the sources.
    """
    del image_size
    folder = storage.path(root)
    if not os.fspath(root) or not folder.is_dir():
        raise ValueError(
            f"image_text: {files.describe_folder(root)}; its root must be a folder of images, with "
            "a table (.csv, .tsv or .jsonl) of their captions or labels, if there are any"
        )
    path = _find_table(folder, options["table"])
    if path is None:
        return ImageFolder(folder, split)
    return ImageTextSource(path, split, columns=options["columns"], seed=seed)


class ImageFolder:
    """Every image file below a folder, and nothing known about it. `example_id` is its path."""

    def __init__(self, folder: storage.Path, split: str = "all"):
        """Raises ValueError for another split than "all", and where there is no image."""
        if split != "all":
            raise ValueError(
                f"{folder} has no table (.csv, .tsv or .jsonl), and so no split {split!r}; it has "
                "all"
            )
        self._folder = folder
        paths = (path.relative_to(folder) for path in folder.rglob("*"))
        names = sorted(
            path.as_posix()
            for path in paths
            if path.suffix.lower() in _IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in path.parts)
        )
        self.files = files.identities(folder, names)
        self.example_ids = tuple(self.files)
        if not self.example_ids:
            raise ValueError(f"{folder} holds no image ({', '.join(_IMAGE_SUFFIXES)})")
        self.facts = SourceFacts(splits=("all",), roles={"all": "all"}, columns=())
        self.missing: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.description: dict[str, Any] = {
            "type": "image_folder",
            "count": len(self.example_ids),
            "files_sha256": files.digest(self.files),
        }

    def __len__(self) -> int:
        return len(self.example_ids)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where the file cannot be decoded."""
        name = self.example_ids[checked_index(index, len(self))]
        return dataclasses.replace(self.bare(index), image=_read(self._folder, name, name))

    def bare(self, index: int) -> Example:
        """The example without its image."""
        return Example(example_id=self.example_ids[checked_index(index, len(self))], image=NO_IMAGE)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One row of the table."""

    example_id: str
    image: str
    where: str
    fields: Mapping[str, str]
    extra: Mapping[str, str]


class ImageTextSource:
    """The images that a table lists, with what it says of them.

    Fields: image (path from the table's folder; needed), example_id (else the image's path),
    caption, ga_days or ga_weeks ("20", "20.5", "20+3"), pixel_spacing_mm, plane, brain_plane,
    hc_mm, patient_id, label, split. Every other column is kept as a label or group column, in
    `Example.extra`; a name that records use themselves, such as "width", becomes "width_".

    Splits are those of the split column. Where it has no validation rows, or there is no such
    column, tenths of the patients (of the images, where patients are not known) are held out for
    them by a hash of seed and patient.
    """

    def __init__(
        self,
        path: storage.Path,
        split: str = "all",
        *,
        columns: Mapping[str, str],
        seed: int = 0,
    ):
        """`columns` maps fields to the table's names for them.

        Raises:
          ValueError: for a table that cannot be read, a column it lacks, two rows of one id, a
            patient in two splits (also if spelled otherwise), or a split without an image.
        """
        self._folder = path.parent
        table = tables.read_table(path)
        names = _column_names(table, columns)
        entries = _entries(table, names)
        splits, self.notes = _splits(table, entries, "split" in names, seed)
        available = (*(name for name in _SPLITS if name in splits.values()), "all")
        if split not in available:
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(available)}")
        found = files.identities(self._folder, (entry.image for entry in entries))
        self.missing = tuple(entry.image for entry in entries if entry.image not in found)
        self.notes += files.missing_note(self.missing, len(entries), self._folder)
        present = [entry for entry in entries if entry.image in found]
        self._entries = [x for x in present if split in ("all", splits[x.example_id])]
        if not self._entries:
            raise ValueError(f"{self._folder} holds no image of the split {split!r} of {path.name}")
        self.files = {entry.image: found[entry.image] for entry in self._entries}
        self.facts = _facts(present, available)
        rows = [[x.example_id, x.image, x.fields, x.extra] for x in self._entries]
        self.description: dict[str, Any] = {
            "type": "image_text",
            "split": split,
            "seed": seed,
            "count": len(self._entries),
            "rows_sha256": files.digest(rows),
            "files_sha256": files.digest(self.files),
        }

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where a file or a cell of its row cannot be read or be true."""
        entry = self._entries[checked_index(index, len(self))]
        example = self.bare(index)
        try:
            image = _read(self._folder, entry.image, entry.example_id)
            return check_example(dataclasses.replace(example, image=image))
        except BadExampleError as error:
            raise BadExampleError(entry.example_id, f"{error.reason} ({entry.where})") from error

    def bare(self, index: int) -> Example:
        """The example without its image; raises BadExampleError where a cell cannot be read."""
        entry = self._entries[checked_index(index, len(self))]
        try:
            numbers = {field: _number(entry.fields, field) for field in _NUMBERS}
            if numbers["ga_days"] is None:
                numbers["ga_days"] = _days(entry.fields.get("ga_weeks", ""))
        except ValueError as error:
            raise BadExampleError(entry.example_id, f"{error} ({entry.where})") from error
        return Example(
            example_id=entry.example_id,
            image=NO_IMAGE,
            **{field: entry.fields.get(field) or None for field in _TEXTS},
            **numbers,
            extra=entry.extra,
        )


def _find_table(folder: storage.Path, name: str) -> storage.Path | None:
    if name == _NO_TABLE:
        return None
    if name:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} does not exist; it is image_text's table={name!r}")
        return folder / name
    found = sorted(x for x in folder.iterdir() if x.suffix.lower() in tables.SUFFIXES)
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} tables ({', '.join(x.name for x in found[:5])}); choose "
            "one by image_text's option table, or none of them by table='none'"
        )
    return found[0] if found else None


def _column_names(table: tables.Table, columns: Mapping[str, str]) -> dict[str, str]:
    """Field -> the table's name for it, of the fields it has."""
    unknown = sorted(set(columns) - set(_FIELDS))
    if unknown:
        raise ValueError(
            f"image_text's columns name a field {unknown[0]!r}; there are {', '.join(_FIELDS)}"
        )
    names = {field: field for field in _FIELDS if field in table.columns}
    names |= {field: column for field, column in columns.items() if column}
    table.check_columns(*names.values())
    if "image" not in names:
        raise ValueError(
            f"{table.path} has no column 'image'; its header is {list(table.columns)}: say by "
            "image_text's option columns which one holds the paths, or ignore it by table='none'"
        )
    return names


def _entries(table: tables.Table, names: Mapping[str, str]) -> list[_Entry]:
    others = [column for column in table.columns if column not in names.values()]
    spelling: dict[str, str] = {}
    entries: dict[str, _Entry] = {}
    for row in table.rows:
        where = f"{table.path.name} line {row.line}"
        fields = {field: row.cells[column] for field, column in names.items()}
        image = _image_path(table.where(row), fields["image"])
        if patient := fields.get("patient_id"):
            # "005" and "5" are one patient: under the form that came first.
            fields["patient_id"] = spelling.setdefault(patients.normal_form(patient), patient)
        example_id = fields.get("example_id") or image
        if example_id in entries:
            raise ValueError(
                f"{table.where(row)}: {example_id!r} is there already ({entries[example_id].where})"
                "; remove a row, or tell them apart in a column example_id"
            )
        extra = {_free_name(column): row.cells[column] for column in others if row.cells[column]}
        entries[example_id] = _Entry(example_id, image, where, fields, extra)
    return list(entries.values())


def _free_name(column: str) -> str:
    taken = (*RECORD_COLUMNS, *(field.name for field in dataclasses.fields(Example)))
    return f"{column}_" if column in taken else column


def _image_path(where: str, text: str) -> str:
    path = pathlib.PurePosixPath(text.replace("\\", "/"))
    if not text or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: image is {text!r}; give its path from the folder of the table")
    return path.as_posix()


def _splits(
    table: tables.Table, entries: list[_Entry], has_column: bool, seed: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The split of each example id, and what is to be said of it."""
    if has_column:
        splits = {entry.example_id: _split_word(table, entry) for entry in entries}
        known = [x for x in entries if x.fields.get("patient_id")]
        pairs = ((x.fields["patient_id"], splits[x.example_id]) for x in known)
        patients.check_apart(pairs, os.fspath(table.path))
        if "validation" in splits.values() or "train" not in splits.values():
            return splits, ()
        note = "has no validation rows; a tenth of its train patients is held out for them"
        notes = (f"{table.path.name} {note}",)
        shares = {"validation": _VALIDATION_SHARE}
    else:
        splits, notes = {entry.example_id: "train" for entry in entries}, ()
        shares = {"test": _TEST_SHARE, "validation": _VALIDATION_SHARE}
    groups = {x.example_id: _group(x) for x in entries if splits[x.example_id] == "train"}
    ordered, start = patients.in_hashed_order(groups.values(), seed), 0
    held_out: dict[str, str] = {}
    for name, share in shares.items():
        stop = start + max(1, round(share * len(ordered)))
        held_out |= dict.fromkeys(ordered[start:stop], name)
        start = stop
    return splits | {x: held_out.get(group, "train") for x, group in groups.items()}, notes


def _group(entry: _Entry) -> str:
    patient = entry.fields.get("patient_id")
    return patients.normal_form(patient) if patient else entry.example_id


def _split_word(table: tables.Table, entry: _Entry) -> str:
    word = entry.fields["split"].lower()
    if word not in _SPLIT_WORDS:
        raise ValueError(
            f"{table.path.parent / entry.where}: split is {entry.fields['split']!r}; use "
            f"{', '.join(_SPLITS)}"
        )
    return _SPLIT_WORDS[word]


def _number(fields: Mapping[str, str], field: str) -> float | int | None:
    text = fields.get(field, "")
    if not text:
        return None
    try:
        number = tables.number(text)
    except ValueError:
        raise ValueError(f"{field} is {text!r}, not a number") from None
    if field != "ga_days":
        return number
    if not math.isfinite(number):
        raise ValueError(implausible(field, number))
    return round(number)


def _days(text: str) -> int | None:
    """The texts "20+3", "20w3d" and "20.43" weeks are 143 days."""
    if not text:
        return None
    if match := _WEEKS_AND_DAYS.fullmatch(text):
        return 7 * int(match[1]) + int(match[2])
    try:
        return round(7 * tables.number(text))
    except (ValueError, OverflowError):
        raise ValueError(f"ga_weeks is {text!r}; use weeks such as 20.5 or 20+3") from None


def _read(folder: storage.Path, name: str, example_id: str):
    try:
        return read_image(folder / name)
    except BadExampleError as error:
        raise BadExampleError(example_id, error.reason) from error


def _facts(entries: list[_Entry], splits: tuple[str, ...]) -> SourceFacts:
    known = {field for entry in entries for field, text in entry.fields.items() if text}
    if "ga_weeks" in known:
        known.add("ga_days")
    groups = tuple(dict.fromkeys(key for entry in entries for key in entry.extra))
    return SourceFacts(
        splits=splits,
        roles={role: split for role, split in ROLES.items() if split in splits},
        columns=(*(x for x in (*_TEXTS, *_NUMBERS) if x in known), *groups),
        ages_from="recorded" if "ga_days" in known else "",
        group_columns=groups,
    )
