"""Tables that list the files of a data set: which file, whose, in which split, and what is known.

What folders of images and folders of clips have in common.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from fetalclip_jax import storage
from fetalclip_jax.data.checks import implausible
from fetalclip_jax.data.encoding import RECORD_COLUMNS
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example
from fetalclip_jax.datasets import patients, tables

_TEXTS = ("caption", "plane", "brain_plane", "patient_id", "label")
_NUMBERS = ("ga_days", "pixel_spacing_mm", "hc_mm")
FIELDS = ("example_id", *_TEXTS, *_NUMBERS, "ga_weeks", "split")
# A column "mask.stomach" holds the paths of the images that outline the stomach.
_MASK = "mask."
_NO_TABLE = "none"
SPLITS = ("train", "validation", "test")
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
_WEEKS_AND_DAYS = re.compile(r"(\d+)\s*(?:\+|w|weeks?)\s*([0-6])\s*(?:d|days?)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
      example_id: unique in the table.
      path: of the file, from the table's folder.
      where: file and line, for messages.
      fields: what the row says, by field.
      extra: its other columns.
      masks: structure -> path of the image that outlines it.
    """

    example_id: str
    path: str
    where: str
    fields: Mapping[str, str]
    extra: Mapping[str, str]
    masks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def group(self) -> str:
        """Whose it is; a row without a patient is a patient of its own."""
        patient = self.fields.get("patient_id")
        return patients.normal_form(patient) if patient else self.example_id

    def bare(self) -> Example:
        """The example without its image; raises BadExampleError where a cell cannot be read."""
        try:
            numbers = {field: _number(self.fields, field) for field in _NUMBERS}
            if numbers["ga_days"] is None:
                numbers["ga_days"] = _days(self.fields.get("ga_weeks", ""))
        except ValueError as error:
            raise BadExampleError(self.example_id, f"{error} ({self.where})") from error
        return Example(
            example_id=self.example_id,
            image=NO_IMAGE,
            **{field: self.fields.get(field) or None for field in _TEXTS},
            **numbers,
            extra=self.extra,
        )


def find_table(folder: storage.Path, name: str, kind: str) -> storage.Path | None:
    """The table of a folder: the one of this name, or its only one; None for none.

    Raises:
      ValueError: no such file, or several tables and none is named.
    """
    if name == _NO_TABLE:
        return None
    if name:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} does not exist; it is {kind}'s table={name!r}")
        return folder / name
    found = sorted(x for x in folder.iterdir() if x.suffix.lower() in tables.SUFFIXES)
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} tables ({', '.join(x.name for x in found[:5])}); choose "
            f"one by {kind}'s option table, or none of them by table='none'"
        )
    return found[0] if found else None


def column_names(
    table: tables.Table, columns: Mapping[str, str], kind: str, file_field: str
) -> dict[str, str]:
    """Field -> the table's name for it, of the fields it has.

    Args:
      columns: field -> the table's name, where that is another.
      kind: of data set, for messages.
      file_field: the field that holds the path.

    Raises:
      ValueError: a field that is none, a column that is not there, or no paths.
    """
    fields = (file_field, *FIELDS)
    unknown = sorted(set(columns) - set(fields))
    if unknown:
        raise ValueError(
            f"{kind}'s columns name a field {unknown[0]!r}; there are {', '.join(fields)}"
        )
    names = {field: field for field in fields if field in table.columns}
    names |= {field: column for field, column in columns.items() if column}
    table.check_columns(*names.values())
    if file_field not in names:
        raise ValueError(
            f"{table.path} has no column {file_field!r}; its header is {list(table.columns)}: say "
            f"by {kind}'s option columns which one holds the paths, or ignore it by table='none'"
        )
    return names


def entries(table: tables.Table, names: Mapping[str, str], file_field: str) -> list[Entry]:
    """The rows of a table.

    Args:
      names: as `column_names` gave them.

    Raises:
      ValueError: a path that leads elsewhere, or two rows of one id.
    """
    others = [column for column in table.columns if column not in names.values()]
    spelling: dict[str, str] = {}
    found: dict[str, Entry] = {}
    for row in table.rows:
        where = f"{table.path.name} line {row.line}"
        fields = {field: row.cells[column] for field, column in names.items()}
        path = _file_path(table.where(row), file_field, fields[file_field])
        if patient := fields.get("patient_id"):
            # "005" and "5" are one patient: under the form that came first.
            fields["patient_id"] = spelling.setdefault(patients.normal_form(patient), patient)
        example_id = fields.get("example_id") or path
        if example_id in found:
            raise ValueError(
                f"{table.where(row)}: {example_id!r} is there already ({found[example_id].where})"
                "; remove a row, or tell them apart in a column example_id"
            )
        filled = {column: row.cells[column] for column in others if row.cells[column]}
        extra = {_free_name(k): text for k, text in filled.items() if not k.startswith(_MASK)}
        masks = {
            column.removeprefix(_MASK): _file_path(table.where(row), column, text)
            for column, text in filled.items()
            if column.startswith(_MASK)
        }
        found[example_id] = Entry(example_id, path, where, fields, extra, masks)
    return list(found.values())


def splits(
    table: tables.Table, listed: Sequence[Entry], shares: Mapping[str, float], seed: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The split of each example id, and what is to be said of it.

    Splits are those of the column "split". Where it has no validation rows, or there is no such
    column, a share of the patients (of the files, where patients are not known) is held out.

    Args:
      shares: of the patients, in "test" and in "validation"; 0 holds out none.
      seed: of the hash of patients that chooses them.

    Raises:
      ValueError: a word that is no split, or a patient in two (also if spelled otherwise).
    """
    if any("split" in entry.fields for entry in listed):
        found = {entry.example_id: _split_word(table, entry) for entry in listed}
        known = [x for x in listed if x.fields.get("patient_id")]
        pairs = ((x.fields["patient_id"], found[x.example_id]) for x in known)
        patients.check_apart(pairs, os.fspath(table.path))
        if "validation" in found.values() or "train" not in found.values():
            return found, ()
        held = "a tenth" if shares["validation"] == 0.1 else f"{100 * shares['validation']:g} %"
        note = f"has no validation rows; {held} of its train patients is held out for them"
        notes = (f"{table.path.name} {note}",)
        shares = {"validation": shares["validation"]}
    else:
        found, notes = {entry.example_id: "train" for entry in listed}, ()
    groups = {x.example_id: x.group for x in listed if found[x.example_id] == "train"}
    ordered, start = patients.in_hashed_order(groups.values(), seed), 0
    held_out: dict[str, str] = {}
    for name, share in shares.items():
        stop = start + (max(1, round(share * len(ordered))) if share else 0)
        held_out |= dict.fromkeys(ordered[start:stop], name)
        start = stop
    return found | {x: held_out.get(group, "train") for x, group in groups.items()}, notes


def known_columns(listed: Sequence[Entry]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the rows know, fields and other columns, and the other columns alone."""
    known = {field for entry in listed for field, text in entry.fields.items() if text}
    if "ga_weeks" in known:
        known.add("ga_days")
    groups = tuple(dict.fromkeys(key for entry in listed for key in entry.extra))
    return (*(x for x in (*_TEXTS, *_NUMBERS) if x in known), *groups), groups


def _free_name(column: str) -> str:
    taken = (*RECORD_COLUMNS, *(field.name for field in dataclasses.fields(Example)))
    return f"{column}_" if column in taken else column


def _file_path(where: str, field: str, text: str) -> str:
    path = pathlib.PurePosixPath(text.replace("\\", "/"))
    if not text or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{where}: {field} is {text!r}; give its path from the folder of the table"
        )
    return path.as_posix()


def _split_word(table: tables.Table, entry: Entry) -> str:
    word = entry.fields["split"].lower()
    if word not in _SPLIT_WORDS:
        raise ValueError(
            f"{table.path.parent / entry.where}: split is {entry.fields['split']!r}; use "
            f"{', '.join(SPLITS)}"
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
