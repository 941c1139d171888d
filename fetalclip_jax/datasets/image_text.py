"""Any folder of images, with a table of what is known about them or without."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from fetalclip_jax import storage
from fetalclip_jax.data.checks import check_example
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example, checked_index, read_image
from fetalclip_jax.datasets import files, listing, tables
from fetalclip_jax.datasets.protocol import SourceFacts

ONE_DATA_SET = False
ROLES = {"train": "train", "validation": "validation", "fit": "train", "test": "test", "all": "all"}
# `columns` says what the table calls a field; "" where it has the field's own name, or has not.
DEFAULTS = {
    "table": "",
    "columns": dict.fromkeys(("image", *listing.FIELDS), ""),
    "with_masks": False,
}
# Of the patients, held out where the table has no such split.
_SHARES = {"test": 0.1, "validation": 0.1}
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "ImageTextSource | ImageFolder":
    """The table in `root` (see `ImageTextSource`), or, where there is none, every image below it.

    Options:
      table: file name in `root`; "" for its only .csv, .tsv or .jsonl, "none" for none.
      columns: field -> the table's name for it.
      with_masks: examples carry the outlines of the columns "mask.<structure>".

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
    path = listing.find_table(folder, options["table"], "image_text")
    if path is None:
        return ImageFolder(folder, split)
    return ImageTextSource(
        path, split, columns=options["columns"], seed=seed, with_masks=options["with_masks"]
    )


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


class ImageTextSource:
    """The images that a table lists, with what it says of them.

    Fields: image (path from the table's folder; needed), example_id (else the image's path),
    caption, ga_days or ga_weeks ("20", "20.5", "20+3"), pixel_spacing_mm, plane, brain_plane,
    hc_mm, patient_id, label, split, and mask.STRUCTURE: path of an image of the same size that is
    bright where the structure is, black throughout where it is not to be seen. Every other column
    is kept as a label or group column, in `Example.extra`; a name that records use themselves, such
    as "width", becomes "width_".

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
        with_masks: bool = False,
    ):
        """`columns` maps fields to the table's names for them.

        With `with_masks`, rows without an outline, or whose outlines are not there, are left out.

        Raises:
          ValueError: for a table that cannot be read, a column it lacks, two rows of one id, a
            patient in two splits (also if spelled otherwise), or a split without an image.
        """
        self._folder = path.parent
        table = tables.read_table(path)
        names = listing.column_names(table, columns, "image_text", "image")
        entries = listing.entries(table, names, "image")
        splits, self.notes = listing.splits(table, entries, _SHARES, seed)
        available = (*(name for name in listing.SPLITS if name in splits.values()), "all")
        if split not in available:
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(available)}")
        if with_masks:
            entries = [entry for entry in entries if entry.masks]
        needed = {
            entry.path: (entry.path, *(entry.masks.values() if with_masks else ()))
            for entry in entries
        }
        found = files.identities(self._folder, (one for all_ in needed.values() for one in all_))
        self.missing = tuple(one for all_ in needed.values() for one in all_ if one not in found)
        self.notes += files.missing_note(self.missing, len(entries), self._folder)
        present = [entry for entry in entries if found.keys() >= set(needed[entry.path])]
        self._entries = [x for x in present if split in ("all", splits[x.example_id])]
        if not self._entries:
            what = "outlined image (columns mask.STRUCTURE)" if with_masks else "image"
            raise ValueError(
                f"{self._folder} holds no {what} of the split {split!r} of {path.name}"
            )
        self.files = {one: found[one] for entry in self._entries for one in needed[entry.path]}
        self._with_masks = with_masks
        outlined = dict.fromkeys(name for entry in present for name in entry.masks)
        self.facts = dataclasses.replace(
            _facts(present, available), masks=tuple(outlined) if with_masks else ()
        )
        rows = [[x.example_id, x.path, x.fields, x.extra] for x in self._entries]
        self.description: dict[str, Any] = {
            "type": "image_text",
            "split": split,
            "seed": seed,
            "count": len(self._entries),
            "rows_sha256": files.digest(rows),
            "files_sha256": files.digest(self.files),
        }
        if with_masks:
            masks = [[x.example_id, x.masks] for x in self._entries]
            self.description["masks_sha256"] = files.digest(masks)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where a file or a cell of its row cannot be read or be true."""
        entry = self._entries[checked_index(index, len(self))]
        example = self.bare(index)
        try:
            image = _read(self._folder, entry.path, entry.example_id)
            masks = None
            if self._with_masks:
                masks = {
                    name: self._mask(entry, path, image.shape[:2])
                    for name, path in entry.masks.items()
                }
            return check_example(dataclasses.replace(example, image=image, masks=masks))
        except BadExampleError as error:
            raise BadExampleError(entry.example_id, f"{error.reason} ({entry.where})") from error

    def bare(self, index: int) -> Example:
        """The example without its image; raises BadExampleError where a cell cannot be read."""
        return self._entries[checked_index(index, len(self))].bare()

    def _mask(self, entry: listing.Entry, name: str, shape: tuple[int, int]):
        """Where an outline's image is brighter than half of its brightest pixel."""
        drawn = _read(self._folder, name, entry.example_id)
        drawn = drawn if drawn.ndim == 2 else drawn.max(axis=2)
        if drawn.shape != shape:
            raise BadExampleError(
                entry.example_id,
                f"the mask {name} is {drawn.shape[0]} x {drawn.shape[1]} pixels and its image "
                f"{shape[0]} x {shape[1]}; export it in the size of the image",
            )
        return drawn > drawn.max() / 2


def _read(folder: storage.Path, name: str, example_id: str):
    try:
        return read_image(folder / name)
    except BadExampleError as error:
        raise BadExampleError(example_id, error.reason) from error


def _facts(entries: list[listing.Entry], splits: tuple[str, ...]) -> SourceFacts:
    columns, groups = listing.known_columns(entries)
    return SourceFacts(
        splits=splits,
        roles={role: split for role, split in ROLES.items() if split in splits},
        columns=columns,
        ages_from="recorded" if "ga_days" in columns else "",
        group_columns=groups,
    )
