"""Prepared data sets: ArrayRecord folders written once and read by index."""

import os
import pathlib
import re
import shutil
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.data import record_files
from fetalclip_jax.data.encoding import decode_record, parse_record
from fetalclip_jax.data.example import Example
from fetalclip_jax.data.workers import leave_unguarded_script


class RecordDataset:
    """The examples of a prepared folder, by index. Picklable; workers reopen the files.

    Attributes:
      directory: where the records are.
      image_size: side of the stored images in pixels.
      colour: whether any image has colour; then all are given as [S, S, 3], else as [S, S].
      num_bad_examples: how many examples of the source were left out.
      description: what the records were made from (JSON-able).
      fingerprint: hexadecimal digest of the description.
    """

    def __init__(self, directory: str | os.PathLike):
        """Opens a folder that `prepare` or a builder in `datasets/` completed.

        Raises:
          ValueError: if there is no such folder or it is not one of records.
        """
        # Only who reads records pays for importing them.
        import tensorflow_datasets as tfds

        from fetalclip_jax.data.array_records import ArrayRecords
        from fetalclip_jax.data.builder import SPLIT

        self.directory = storage.path(directory)
        summary = record_files.read_summary(self.directory)
        # What is read in any order is read from a disk.
        self._folder = storage.local_copy(self.directory)
        self.description: dict[str, Any] = summary.description
        self.fingerprint: str = summary.fingerprint
        self.image_size: int = summary.description["image_size"]
        self.colour: bool = summary.colour
        self.num_bad_examples: int = summary.num_bad_examples
        split = tfds.builder_from_directory(self._folder).info.splits[SPLIT]
        self._records = ArrayRecords(list(zip(split.filepaths, split.shard_lengths, strict=True)))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; `pixel_spacing_mm` is that of the resized image."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.directory}")
        return self._decoded(int(index) % len(self), with_masks=True)

    def without_masks(self, indices: Sequence[int]) -> list[Example]:
        """The examples at `indices` (0 or more), as training reads them."""
        return [self._decoded(index, with_masks=False) for index in indices]

    def _decoded(self, index: int, *, with_masks: bool) -> Example:
        try:
            record = parse_record(self._records[index])
            return decode_record(record, colour=self.colour, with_masks=with_masks)
        except Exception as error:  # of ArrayRecord, protobuf or OpenCV, by what is damaged
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.directory}: record {index} of {len(self)} cannot be read ({reason}); put "
                "back a copy of the folder, or move it away and prepare the data again"
            ) from error

    def __reduce__(self):
        return type(self), (self._folder,)

    def metadata(self) -> dict[str, np.ndarray]:
        """All columns without the images, each [len(self)]; missing is "" or NaN.

        `ga_days`, `hc_mm`, `resized_spacing_mm`, `height` and `width` (of the original) are
        float64; `example_id`, `patient_id`, `plane`, `brain_plane`, `label` and `caption` strings,
        and so are further labels and groups (`Example.extra`) under their own names.
        """
        return record_files.read_columns(self._folder)

    def bad_examples(self) -> list[tuple[str, str]]:
        """(example_id, reason) of each example of the source that was left out."""
        return record_files.read_bad_examples(self._folder)


def prepare(
    source,
    directory: str | os.PathLike,
    *,
    image_size: int,
    workers: int = 0,
    max_bad_share: float = 0.01,
    progress: bool = True,
    name: str = "image_text",
    replace: bool = False,
) -> RecordDataset:
    """Writes every example of `source` at `image_size` into `directory`, or reuses what is there.

    The folder appears under its name only when it is complete: it is written beside it, under a
    hidden name, and renamed at the end. Examples that cannot be read, or that say what cannot be
    true, are left out, listed in `bad_examples.csv` and mentioned on the terminal.

    Args:
      source: `__len__` and `__getitem__(int) -> Example`; picklable if `workers` > 0.
      directory: the folder to make; its parent is made too.
      image_size: side of the stored square images in pixels.
      workers: processes that make and encode examples; the records do not depend on it.
      max_bad_share: share of bad examples, from 0 to 1, above which preparation stops.
      progress: shows a progress bar.
      name: what the progress bar says; the record files begin with it.
      replace: records of other data in `directory`, or of files that changed since, are made anew
        (and this is said). Otherwise they are refused, but for files of which nothing but the
        time is another, as after copying: then the records stay as they are.

    Raises:
      ValueError: when the folder holds records of another source or size or a user's own files,
        the source is empty or has two examples of one id, too many examples are bad, an argument
        is out of range, or the calling script lacks a main guard that `workers` needs.
    """
    if workers:
        leave_unguarded_script()
    directory = storage.path(directory)
    description = record_files.describe(source, image_size)
    if not _is_prepared(directory, source, description, replace):
        _make(
            source,
            directory,
            description,
            replace,
            image_size=image_size,
            workers=workers,
            max_bad_share=max_bad_share,
            progress=progress,
            # TFDS puts the name into file names.
            name=re.sub(r"\W+", "_", name.lower()),
        )
    dataset = RecordDataset(directory)
    say_bad_examples(dataset, name)
    return dataset


def _make(source, directory, description, replace, **arguments) -> None:
    from fetalclip_jax.data.builder import ImageText

    if storage.is_bucket(directory):
        with tempfile.TemporaryDirectory(prefix="fetalclip-records-") as temporary:
            folder = pathlib.Path(temporary) / directory.name
            _make(source, folder, description, replace, **arguments)
            record_files.upload(folder, directory)
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    temporary = tempfile.mkdtemp(
        prefix=f"{_hidden_prefix(directory)}{os.getpid()}-", dir=directory.parent
    )
    try:
        builder = ImageText(source=source, data_dir=temporary, **arguments)
        builder.build()
        _publish(storage.path(builder.data_dir), directory, description, replace)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_prepared(
    directory: storage.Path, source, description: dict[str, Any], replace: bool
) -> bool:
    """False where records are to be made; an error where others must stay."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if storage.is_bucket(directory) and record_files.is_unfinished(directory):
        return False
    found = record_files.read_summary(directory).description
    if found == description:
        return True
    before, now = record_files.read_files(directory), getattr(source, "files", {})
    changes = record_files.differences(found, description, before, now)
    if replace:
        print(f"{directory} holds other records: {'; '.join(changes)}. Preparing anew", flush=True)
        return False
    if record_files.is_copy(found, description, before, now):
        print(
            f"{directory}: the files it was made of have other times but the same names and sizes "
            "(a copy?); going on with the records as they are",
            flush=True,
        )
        return True
    raise ValueError(
        f"{directory} holds other records: {'; '.join(changes)}; put the data back as they were to "
        "go on with these records, or choose another folder (of a run: another --workdir)"
    )


def say_bad_examples(dataset: RecordDataset, name: str) -> None:
    """Mentions on the terminal what was left out of the records of `name`, if anything was."""
    if not dataset.num_bad_examples:
        return
    example_id, reason = dataset.bad_examples()[0]
    print(
        f"{name}: {dataset.num_bad_examples} of {dataset.num_bad_examples + len(dataset)} examples "
        f"left out (listed in {record_files.bad_examples_path(dataset.directory)}); first: "
        f"{example_id}: {reason}",
        flush=True,
    )


def _publish(folder: storage.Path, directory: storage.Path, description, replace: bool) -> None:
    """Gives the finished folder its name."""
    folder.chmod(0o755)
    try:
        folder.rename(directory)  # in one step; replaces an empty folder
    except OSError:
        # Another process prepared the same records in the meantime: its folder is as good.
        if record_files.read_summary(directory).description == description:
            return
        if not replace:
            raise
        # Into the temporary folder, which goes when all is done.
        directory.rename(folder.with_name(f"{folder.name}.replaced"))
        folder.rename(directory)


def _hidden_prefix(directory: storage.Path) -> str:
    # With the host's name, for process numbers mean nothing on another host of a shared disk.
    return f".{directory.name}.incomplete-{socket.gethostname()}-"


def _remove_leftovers(directory: storage.Path) -> None:
    """Deletes what a killed preparation of this folder left, if its process is gone."""
    for leftover in directory.parent.glob(f"{_hidden_prefix(directory)}*"):
        process = re.match(r"\d+", leftover.name.removeprefix(_hidden_prefix(directory)))
        if process and not _is_running(int(process[0])):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
