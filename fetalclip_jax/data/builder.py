"""The TFDS builder of image-text records. It needs no network and no TensorFlow."""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from fetalclip_jax import storage
from fetalclip_jax.data import record_files
from fetalclip_jax.data.encoding import (
    RECORD_COLUMNS,
    RECORD_NUMBER_COLUMNS,
    RECORD_TEXT_COLUMNS,
    decode_extra,
    is_colour_png,
)
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.data.preparation import encoded_records, stores_extra, stores_second_images

SPLIT = "records"


class _LocalInfo(tfds.core.DatasetInfo):
    """Dataset info that never looks for precomputed statistics in TFDS' cloud bucket."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; the base class also leaves an empty temporary folder per call."""


class ImageText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes any source of `Example` as ArrayRecord, in the source's order.

    Images are passed to TFDS as encoded bytes in a scalar feature: its own Image feature would
    import TensorFlow to encode them.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Without this TFDS searches for a file of checksums, and for that
    # imports a package (importlib_resources) that it does not install.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        source,
        image_size: int,
        data_dir: str | os.PathLike | None = None,
        name: str | None = None,
        workers: int = 0,
        max_bad_share: float = 0.01,
        progress: bool = True,
        **kwargs,
    ):
        """See `data.records.prepare`; TFDS makes `data_dir`/`name`/`VERSION` and takes `kwargs`.

        Raises:
          ValueError: for an argument out of range.
        """
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}; use a positive number of pixels")
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share is {max_bad_share}; use a share from 0 to 1")
        if name is not None:
            self.name = name
        self._source = source
        self._image_size = image_size
        self._workers = workers
        self._max_bad_share = max_bad_share
        self._progress = progress
        data_dir = None if data_dir is None else os.fspath(data_dir)
        super().__init__(data_dir=data_dir, file_format="array_record", **kwargs)

    def build(self) -> None:
        """`download_and_prepare` without TFDS' own chatter.

        Raises:
          ValueError: for a source without a readable example, with too many bad ones, or with
            two examples of one id.
        """
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            self.download_and_prepare()

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {
            "image": tfds.features.Scalar(dtype=np.object_, doc="PNG bytes, square"),
            "masks": tfds.features.Scalar(dtype=np.object_, doc="PNG bytes, masks stacked"),
            "mask_names": tfds.features.Text(doc="names of the masks, one per line"),
        }
        features |= {column: tfds.features.Text() for column in RECORD_TEXT_COLUMNS}
        features |= {
            column: tfds.features.Scalar(dtype=np.float32) for column in RECORD_NUMBER_COLUMNS
        }
        if stores_second_images(self._source):
            features["second_image"] = tfds.features.Scalar(dtype=np.object_, doc="PNG, square")
        if stores_extra(self._source):
            features["extra"] = tfds.features.Text(doc="JSON: further labels and groups")
        return _LocalInfo(
            builder=self,
            description="Ultrasound images with captions, or the metadata captions are made of.",
            features=tfds.features.FeaturesDict(features),
            # Records keep the order of their source; training shuffles by index instead.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # The images are already on this machine, or simulated.
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        total = len(self._source)
        if total == 0:
            raise ValueError(f"{self.name}: the source is empty; there is nothing to prepare")
        columns: dict[str, list[Any]] = {column: [] for column in RECORD_COLUMNS}
        extra: list[dict[str, str]] = []
        bad_examples: list[BadExampleError] = []
        indices: dict[str, int] = {}
        colour = False
        for index, record in enumerate(self._encoded(total)):
            if isinstance(record, BadExampleError):
                bad_examples.append(record)
                self._check_bad_share(bad_examples, total)
                continue
            self._check_unique(indices, record["example_id"], index)
            for column, values in columns.items():
                values.append(record[column])
            extra.append(decode_extra(record))
            colour = colour or is_colour_png(record["image"])
            yield index, record
        # TFDS works in a folder of its own here, which gets its name when everything is in it.
        record_files.write(
            storage.path(self.data_dir),
            record_files.Summary(
                description=record_files.describe(self._source, self._image_size),
                colour=colour,
                num_bad_examples=len(bad_examples),
            ),
            columns,
            bad_examples,
            extra=extra,
            files=getattr(self._source, "files", {}),
        )

    def _encoded(self, total: int) -> Iterator[dict[str, Any] | BadExampleError]:
        encoded = encoded_records(self._source, self._image_size, self._workers)
        # Closing ends the worker processes at once when preparation stops early.
        with contextlib.closing(encoded):
            yield from tqdm.tqdm(
                encoded,
                desc=f"preparing {self.name}",
                total=total,
                unit=" images",
                disable=not self._progress,
            )

    def _check_unique(self, indices: dict[str, int], example_id: str, index: int) -> None:
        if (first := indices.setdefault(example_id, index)) != index:
            raise ValueError(
                f"{self.name}: examples {first} and {index} have the same example_id "
                f"{example_id!r}; give each its own"
            )

    def _check_bad_share(self, bad_examples: list[BadExampleError], total: int) -> None:
        allowed = math.floor(self._max_bad_share * total)
        if len(bad_examples) > allowed or len(bad_examples) == total:
            listed = "; ".join(str(error) for error in bad_examples[:5])
            raise ValueError(
                f"{self.name}: {len(bad_examples)} of {total} examples cannot be read, with "
                f"max_bad_share={self._max_bad_share:g} allowing {allowed}. First: {listed}"
            )
