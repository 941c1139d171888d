"""What lies beside the record files of a prepared folder.

records.json        what the records were made from, and a summary
metadata.npz        every column of every record, so that no image is read to know them
bad_examples.csv    what was left out, and why
"""

import csv
import dataclasses
import hashlib
import json
import pathlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.data.encoding import (
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    pack_strings,
    unpack_strings,
)
from fetalclip_jax.data.example import BadExampleError

# Changes when records written before can no longer be read, or would hold other pixels.
FORMAT_VERSION = 1
_SUMMARY = "records.json"
_METADATA = "metadata.npz"
_BAD_EXAMPLES = "bad_examples.csv"


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
    folder: pathlib.Path,
    summary: Summary,
    columns: Mapping[str, Sequence[Any]],
    bad_examples: Sequence[BadExampleError],
) -> None:
    """Writes all three files into `folder`; `columns` is keyed by `encoding.COLUMNS`."""
    packed = {column: pack_strings(columns[column]) for column in TEXT_COLUMNS}
    packed |= {column: np.array(columns[column], np.float64) for column in NUMBER_COLUMNS}
    np.savez(folder / _METADATA, **packed)
    with (folder / _BAD_EXAMPLES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["example_id", "reason"])
        writer.writerows([error.example_id, error.reason] for error in bad_examples)
    (folder / _SUMMARY).write_text(json.dumps(dataclasses.asdict(summary), indent=2) + "\n")


def read_summary(folder: pathlib.Path) -> Summary:
    """Reads `records.json`.

    Raises:
      ValueError: if the folder is missing, is not one of records, or the file is damaged.
    """
    path = folder / _SUMMARY
    if not path.is_file():
        what = "has no" if folder.is_dir() else "is not a folder with a"
        raise ValueError(
            f"{folder} {what} {_SUMMARY}: it holds no prepared records (`fetalclip prepare` makes "
            "them)"
        )
    try:
        return Summary(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete the folder and prepare it again"
        ) from error


def read_columns(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All columns: strings ("" where missing) and float64 (NaN where missing), each [n]."""
    columns: dict[str, np.ndarray] = {}
    with np.load(folder / _METADATA) as stored:
        for column in TEXT_COLUMNS:
            # Captions differ much in length: a fixed-width array would be mostly padding.
            dtype = object if column == "caption" else str
            columns[column] = np.array(unpack_strings(stored[column]), dtype=dtype)
        for column in NUMBER_COLUMNS:
            columns[column] = stored[column]
    return columns


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Which entries of two descriptions differ, for an error message; "" if none."""
    found, wanted = _flat(found), _flat(wanted)
    return ", ".join(
        f"{key}={found.get(key)!r} (wanted: {wanted.get(key)!r})"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    )


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
