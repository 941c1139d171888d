"""Clips that a table lists: folders of frames, videos, arrays; see `clip_files`."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fetalclip_jax import storage
from fetalclip_jax.data.checks import check_example
from fetalclip_jax.data.example import BadExampleError, Example, checked_index
from fetalclip_jax.datasets import clip_files, files, listing, patients, tables
from fetalclip_jax.datasets.protocol import SourceFacts

ONE_DATA_SET = False
# Heads on frozen features learn from all patients that are not tested, train and validation.
ROLES = {"train": "train", "validation": "validation", "fit": "fit", "test": "test", "all": "all"}
_FIT = ("train", "validation")
DEFAULTS = {
    "table": "",
    "columns": dict.fromkeys(("clip", *listing.FIELDS), ""),
    "test_share": 0.2,
    "validation_share": 0.1,
}


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "ClipSource":
    """The table in `root`, see `ClipSource`; frames keep the size they have.

    Options:
      table: file name in `root`; "" for its only .csv, .tsv or .jsonl.
      columns: field -> the table's name for it.
      test_share, validation_share: of the patients that are held out where the table has no such
        split; a test share of 0 holds out none, and studies test in folds.

    Raises:
      ValueError: for a folder that is not there or has no table, or as `ClipSource`.
    """
    del image_size
    folder = storage.path(root)
    wanted = "its root must be a folder with a table (.csv, .tsv or .jsonl) that lists its clips"
    if not os.fspath(root) or not folder.is_dir():
        raise ValueError(f"clips: {files.describe_folder(root)}; {wanted}")
    path = listing.find_table(folder, options["table"], "clips")
    if path is None:
        raise ValueError(f"clips: {folder} has no table; {wanted}")
    return ClipSource(
        path,
        split,
        columns=options["columns"],
        test_share=options["test_share"],
        validation_share=options["validation_share"],
        seed=seed,
    )


class ClipSource:
    """The clips that a table lists, with what it says of them.

    Fields: clip (path of a folder of frames, a video, .npy, .npz, or an image of several pages,
    from the table's folder; needed), label (a finding), patient_id, and those of `image_text`.
    Every other column is kept in `Example.extra`.

    Splits are those of the split column, else shares of the patients by a hash of seed and patient.
    "fit" are the patients that are not tested.
    """

    def __init__(
        self,
        path: storage.Path,
        split: str = "all",
        *,
        columns: Mapping[str, str],
        test_share: float = 0.2,
        validation_share: float = 0.1,
        seed: int = 0,
    ):
        """`columns` maps fields to the table's names for them.

        Raises:
          ValueError: for a table that cannot be read, a column it lacks, a clip that is listed
            twice, a patient in two splits (also if spelled otherwise), shares that leave no
            patient, or a split without a clip.
        """
        shares = {"test": test_share, "validation": validation_share}
        _check_shares(shares)
        self._folder = path.parent
        table = tables.read_table(path)
        entries = listing.entries(
            table, listing.column_names(table, columns, "clips", "clip"), "clip"
        )
        _check_once(path, entries)
        splits, notes = listing.splits(table, entries, shares, seed)
        self._frames = _frames_in_folders(self._folder, entries)
        names = [name for entry in entries for name in self._names(entry)]
        found = files.identities(self._folder, names)
        # An empty folder is there: it is no missing file, but a clip that cannot be read.
        present = [x for x in entries if x.path in self._frames or x.path in found]
        self.missing = tuple(x.path for x in entries if x not in present)
        self.notes = notes + files.missing_note(self.missing, len(entries), self._folder, "clips")
        inside = {name: (name,) for name in listing.SPLITS} | {"fit": _FIT, "all": listing.SPLITS}
        held = {splits[entry.example_id] for entry in present}
        available = tuple(name for name, parts in inside.items() if held & set(parts))
        if split not in available:
            raise ValueError(
                f"{path} has no clip in a split {split!r}; it has {', '.join(available) or 'none'}"
            )
        self._entries = [x for x in present if splits[x.example_id] in inside[split]]
        self.files = {
            name: found[name] for entry in self._entries for name in self._names(entry)
            if name in found
        }  # fmt: skip
        known, groups = listing.known_columns(present)
        self.facts = SourceFacts(
            splits=available,
            roles={role: name for role, name in ROLES.items() if name in available},
            columns=known,
            ages_from="recorded" if "ga_days" in known else "",
            group_columns=groups,
        )
        rows = [[x.example_id, x.path, x.fields, x.extra] for x in self._entries]
        self.description: dict[str, Any] = {
            "type": "clips",
            "split": split,
            "seed": seed,
            "shares": shares,
            "count": len(self._entries),
            "rows_sha256": files.digest(rows),
            "files_sha256": files.digest(self.files),
        }

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where a file or a cell of its row cannot be read or be true."""
        entry = self._entries[checked_index(index, len(self))]
        try:
            frames = clip_files.open_clip(
                self._folder / entry.path, self._frames.get(entry.path, ()), entry.example_id
            )
            middle = frames[len(frames) // 2]
            return check_example(dataclasses.replace(entry.bare(), image=middle, frames=frames))
        except BadExampleError as error:
            raise BadExampleError(entry.example_id, f"{error.reason} ({entry.where})") from error

    def bare(self, index: int) -> Example:
        """The example without its image; raises BadExampleError where a cell cannot be read."""
        return self._entries[checked_index(index, len(self))].bare()

    def _names(self, entry: listing.Entry) -> Sequence[str]:
        """The files of a clip, from the table's folder."""
        if entry.path in self._frames:
            return [f"{entry.path}/{frame}" for frame in self._frames[entry.path]]
        return [entry.path]


def _check_shares(shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if share:
            patients.check_share(f"{name}_share", share)
    if sum(shares.values()) >= 1:
        raise ValueError(f"test_share and validation_share add up to {sum(shares.values()):g}")


def _check_once(path: storage.Path, entries: Sequence[listing.Entry]) -> None:
    first: dict[str, str] = {}
    for entry in entries:
        if entry.path in first:
            raise ValueError(
                f"{path.parent / entry.where}: the clip {entry.path!r} is there already "
                f"({first[entry.path]}); remove one of the rows"
            )
        first[entry.path] = entry.where


def _frames_in_folders(
    folder: storage.Path, entries: Sequence[listing.Entry]
) -> dict[str, list[str]]:
    """Names of the frames of each clip that is a folder."""
    return {
        entry.path: clip_files.frame_names([one.name for one in (folder / entry.path).iterdir()])
        for entry in entries
        if (folder / entry.path).is_dir()
    }
