"""What lies beside the record files of a prepared folder.

records.json        what the records were made from, and a summary
metadata.npz        every column of every record, so that no image is read to know them
bad_examples.csv    what was left out, and why
source_files.csv    size and time of each file that was read, where the source has files
"""

import csv
import dataclasses
import hashlib
import json
import pathlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.data.encoding import (
    RECORD_NUMBER_COLUMNS,
    RECORD_TEXT_COLUMNS,
    pack_strings,
    unpack_strings,
)
from fetalclip_jax.data.example import BadExampleError

# Changes when records written before can no longer be read, or would hold other pixels.
FORMAT_VERSION = 1
SUMMARY = "records.json"
_METADATA = "metadata.npz"
_BAD_EXAMPLES = "bad_examples.csv"
_SOURCE_FILES = "source_files.csv"
_UPLOADING = ".fetalclip_uploading"
# Column of `extra` in the metadata file.
_EXTRA = "extra/"
# Name -> size in bytes and time of the last change in ns.
Files = Mapping[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The content of `records.json`.

    Attributes:
      description: what decides the records: format, image size and source.
      colour: whether any image has three channels.
      num_bad_examples: how many examples of the source were left out.
    """

    description: dict[str, Any]
    colour: bool
    num_bad_examples: int

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the description."""
        text = json.dumps(self.description, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def describe(source, image_size: int) -> dict[str, Any]:
    """What decides the records: the source's `description`, else a digest of its pickle.

    Raises:
      ValueError: if the source has no description and cannot be pickled.
    """
    return {
        "format": FORMAT_VERSION,
        "image_size": image_size,
        "source": _describe_source(source),
    }


def write(
    folder: storage.Path,
    summary: Summary,
    columns: Mapping[str, Sequence[Any]],
    bad_examples: Sequence[BadExampleError],
    *,
    extra: Sequence[Mapping[str, str]],
    files: Files,
) -> None:
    """Writes all files into `folder`.

    Args:
      folder: of the records.
      summary: what they are.
      columns: keyed by `encoding.RECORD_COLUMNS`, a value for each record.
      bad_examples: what was left out.
      extra: of each record; any keys.
      files: that the source read.
    """
    packed = {column: pack_strings(columns[column]) for column in RECORD_TEXT_COLUMNS}
    packed |= {column: np.array(columns[column], np.float64) for column in RECORD_NUMBER_COLUMNS}
    for key in sorted(set().union(*extra)):
        packed[_EXTRA + key] = pack_strings([one.get(key, "") for one in extra])
    np.savez(folder / _METADATA, **packed)
    _write_csv(
        bad_examples_path(folder),
        ["example_id", "reason"],
        ([error.example_id, error.reason] for error in bad_examples),
    )
    if files:
        _write_csv(
            folder / _SOURCE_FILES,
            ["name", "size", "mtime_ns"],
            ([name, *identity] for name, identity in files.items()),
        )
    (folder / SUMMARY).write_text(json.dumps(dataclasses.asdict(summary), indent=2) + "\n")


def _write_csv(path: storage.Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _read_csv(path: storage.Path) -> list[list[str]]:
    """Rows without the header; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def bad_examples_path(folder: storage.Path) -> storage.Path:
    """Where it is listed what was left out."""
    return folder / _BAD_EXAMPLES


def read_bad_examples(folder: storage.Path) -> list[tuple[str, str]]:
    """(example_id, reason) of each example that was left out."""
    return [(example_id, reason) for example_id, reason in _read_csv(bad_examples_path(folder))]


def read_files(folder: storage.Path) -> dict[str, tuple[int, int]]:
    """The files that the records were made of, as they were."""
    return {
        name: (int(size), int(mtime_ns))
        for name, size, mtime_ns in _read_csv(folder / _SOURCE_FILES)
    }


def read_summary(folder: storage.Path) -> Summary:
    """Reads `records.json`.

    Raises:
      ValueError: if the folder is missing, is not one of records, or the file is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        what = "has no" if folder.is_dir() else "is not a folder with a"
        raise ValueError(
            f"{folder} {what} {SUMMARY}: it holds no prepared records (`fetalclip prepare` makes "
            "them)"
        )
    try:
        return Summary(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); move the folder away and prepare the data again"
        ) from error


def upload(records: pathlib.Path, folder: storage.BucketPath) -> None:
    """Copies finished records to a bucket, in place of records that are there.

    From beginning to end the folder holds a mark, for one without a summary may be a user's own.
    """
    (folder / _UPLOADING).touch()
    # Without its summary the folder holds no records, whatever else is there.
    (folder / SUMMARY).unlink(missing_ok=True)
    for name in folder.listing():
        if name != _UPLOADING:
            (folder / name).unlink(missing_ok=True)
    storage.upload(records, folder, SUMMARY)
    (folder / _UPLOADING).unlink(missing_ok=True)


def is_unfinished(folder: storage.BucketPath) -> bool:
    """Whether all it holds is of an upload of records that did not come to its end."""
    ours = {_METADATA, _BAD_EXAMPLES, _SOURCE_FILES, "dataset_info.json", "features.json"}
    names = {path.name for path in folder.iterdir()}
    others = names - ours - {_UPLOADING}
    return _UPLOADING in names and all(".array_record" in name for name in others)


def read_columns(folder: storage.Path) -> dict[str, np.ndarray]:
    """All columns: strings ("" where missing) and float64 (NaN where missing), each [n]."""
    columns: dict[str, np.ndarray] = {}
    with (folder / _METADATA).open("rb") as file, np.load(file) as stored:
        for column in RECORD_TEXT_COLUMNS:
            # Captions differ much in length: a fixed-width array would be mostly padding.
            dtype = object if column == "caption" else str
            columns[column] = np.array(unpack_strings(stored[column]), dtype=dtype)
        for column in RECORD_NUMBER_COLUMNS:
            columns[column] = stored[column]
        for name in stored.files:
            if name.startswith(_EXTRA):
                columns[name.removeprefix(_EXTRA)] = np.array(unpack_strings(stored[name]))
    return columns


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], before: Files, now: Files
) -> list[str]:
    """Which entries of two descriptions differ, and which of their files, in words."""
    by_file = _file_differences(before, now) if before else []
    if by_file:  # which say more than that their digest is another one
        found, wanted = _without_files(found), _without_files(wanted)
    found, wanted = _flat(found), _flat(wanted)
    keys = [
        key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)
    ]
    return by_file + [
        f"{key} differs"
        if key.endswith("_sha256") and key in found and key in wanted
        else f"{key}={found.get(key)!r} (wanted: {wanted.get(key)!r})"
        for key in keys
    ]


def is_copy(found: Mapping[str, Any], wanted: Mapping[str, Any], before: Files, now: Files) -> bool:
    """Whether nothing differs but the times of files, as after copying a data set."""
    sizes = [{name: size for name, (size, _) in files.items()} for files in (before, now)]
    return bool(before) and sizes[0] == sizes[1] and _without_files(found) == _without_files(wanted)


def _file_differences(before: Files, now: Files) -> list[str]:
    groups = {
        "changed": [name for name in before.keys() & now.keys() if before[name] != now[name]],
        "added": now.keys() - before.keys(),
        "gone": before.keys() - now.keys(),
    }
    return [
        f"{len(names)} file{'s' * (len(names) > 1)} {how} (first: {min(names)})"
        for how, names in groups.items()
        if names
    ]


def _without_files(description: Mapping[str, Any]) -> dict[str, Any]:
    source = {k: v for k, v in description["source"].items() if k != "files_sha256"}
    return {**description, "source": source}


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in description.items() if key != "source"}
    return flat | {f"source.{key}": value for key, value in description["source"].items()}


def _describe_source(source) -> dict[str, Any]:
    if (description := getattr(source, "description", None)) is not None:
        # Through JSON, so that a tuple compares equal to the list that is read back.
        return json.loads(json.dumps(description))
    try:
        digest = hashlib.sha256(pickle.dumps(source)).hexdigest()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"source {type(source).__name__} has no `description` (a JSON-able dict) and cannot "
            f"be pickled: {error}"
        ) from error
    return {"type": type(source).__qualname__, "pickle_sha256": digest}
