"""Prepared data sets: ArrayRecord folders written once and read by index."""

import os
import pathlib
import re
import shutil
import socket
import tempfile
from typing import Any

import numpy as np

from fetalclip_jax.data import record_files
from fetalclip_jax.data.encoding import decode_record
from fetalclip_jax.data.example import Example


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
        # TFDS takes half a second to import; only who reads records pays for it. Its decoder
        # gives 3,700 images of 96 px per second and core, so nothing faster is built here.
        import tensorflow_datasets as tfds

        from fetalclip_jax.data.builder import SPLIT

        self.directory = pathlib.Path(directory)
        summary = record_files.read_summary(self.directory)
        self.description: dict[str, Any] = summary.description
        self.fingerprint: str = summary.fingerprint
        self.image_size: int = summary.description["image_size"]
        self.colour: bool = summary.colour
        self.num_bad_examples: int = summary.num_bad_examples
        self._records = tfds.builder_from_directory(self.directory).as_data_source(split=SPLIT)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; `pixel_spacing_mm` is that of the resized image."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.directory}")
        return decode_record(self._records[int(index) % len(self)], colour=self.colour)

    def __reduce__(self):
        return type(self), (self.directory,)

    def metadata(self) -> dict[str, np.ndarray]:
        """All columns without the images, each [len(self)]; missing is "" or NaN.

        `ga_days`, `hc_mm`, `resized_spacing_mm`, `height` and `width` (of the original) are
        float64; `example_id`, `patient_id`, `plane`, `brain_plane`, `label` and `caption` strings.
        """
        return record_files.read_columns(self.directory)


def prepare(
    source,
    directory: str | os.PathLike,
    *,
    image_size: int,
    workers: int = 0,
    max_bad_share: float = 0.01,
    progress: bool = True,
    name: str = "image_text",
) -> RecordDataset:
    """Writes every example of `source` at `image_size` into `directory`, or reuses what is there.

    The folder appears under its name only when it is complete: it is written beside it, under a
    hidden name, and renamed at the end. Undecodable examples are left out and listed in
    `bad_examples.csv`.

    Args:
      source: `__len__` and `__getitem__(int) -> Example`; picklable if `workers` > 0.
      directory: the folder to make; its parent is made too.
      image_size: side of the stored square images in pixels.
      workers: processes that make and encode examples; the records do not depend on it.
      max_bad_share: share of undecodable examples, from 0 to 1, above which preparation stops.
      progress: shows a progress bar.
      name: what the progress bar says; the record files begin with it.

    Raises:
      ValueError: when the folder holds records of another source or size or a user's own files,
        the source is empty, too many examples are bad, or an argument is out of range.
    """
    from fetalclip_jax.data.builder import ImageText

    directory = pathlib.Path(directory)
    description = record_files.describe(source, image_size)
    if _is_prepared(directory, description):
        return RecordDataset(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    temporary = tempfile.mkdtemp(
        prefix=f"{_hidden_prefix(directory)}{os.getpid()}-", dir=directory.parent
    )
    try:
        builder = ImageText(
            source=source,
            image_size=image_size,
            data_dir=temporary,
            # TFDS puts the name into file names.
            name=re.sub(r"\W+", "_", name.lower()),
            workers=workers,
            max_bad_share=max_bad_share,
            progress=progress,
        )
        builder.build()
        _publish(pathlib.Path(builder.data_dir), directory, description)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return RecordDataset(directory)


def _is_prepared(directory: pathlib.Path, description: dict[str, Any]) -> bool:
    """False where there is nothing yet; an error where there is something else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    found = record_files.read_summary(directory).description
    if found != description:
        raise ValueError(
            f"{directory} holds other records: {record_files.differences(found, description)}; "
            "choose another folder, or delete this one to make it anew"
        )
    return True


def _publish(folder: pathlib.Path, directory: pathlib.Path, description: dict[str, Any]) -> None:
    """Gives the finished folder its name, in one step."""
    folder.chmod(0o755)
    try:
        folder.rename(directory)  # replaces an empty folder
    except OSError:
        # Another process prepared the same records in the meantime: its folder is as good.
        if not _is_prepared(directory, description):
            raise


def _hidden_prefix(directory: pathlib.Path) -> str:
    # With the host's name, for process numbers mean nothing on another host of a shared disk.
    return f".{directory.name}.incomplete-{socket.gethostname()}-"


def _remove_leftovers(directory: pathlib.Path) -> None:
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
