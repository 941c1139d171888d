"""The feature store: one data set, encoded once, for every probe and zero-shot study.

A store holds the rows of each image side by side: the clean one (`copy` 0) and its augmented
copies (`copy` 1, 2, ...). Studies train on augmented copies and judge clean rows.
"""

import dataclasses
import json
import os
import zipfile

import numpy as np
from jaxtyping import Float, Int, UInt8

from fetalclip_jax import storage
from fetalclip_jax.evaluation.features.rows import Rows
from fetalclip_jax.run import whole_folder

_ARRAYS, _META = "arrays.npz", "meta.json"


@dataclasses.dataclass(frozen=True)
class FeatureStore(Rows):
    """Features and metadata of one encoded data set.

    Attributes:
      image_features: projected image features, not normalised.
      columns: metadata by name, [n] each; a missing text is "", a missing number is nan. Beside
        those of `data.columns` the group and label columns of the data set.
      raw_pixels: the image shrunk to 16 x 16 by area, for the raw-pixel baseline.
      copy: 0 for the clean image, k for its k-th augmented copy.
      fingerprint: what made the store: `model`, `data`, `image_size`, `transform`, `copies`, ...
      left_out: (example id, reason) of every image that could not be read.
    """

    image_features: Float[np.ndarray, "n d"]
    columns: dict[str, np.ndarray]
    raw_pixels: UInt8[np.ndarray, "n p"]
    copy: Int[np.ndarray, "n"]
    fingerprint: dict
    left_out: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        bad = ~np.isfinite(self.image_features).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the features of {bad.sum()} of {len(bad)} images are nan or infinite, first that "
                f"of {self.columns['example_id'][bad.argmax()]}: what is not finite is no feature; "
                "encode again with a model whose parameters are finite"
            )

    def select(self, rows: np.ndarray) -> "FeatureStore":
        """The store of some rows (indices or a mask)."""
        return dataclasses.replace(
            self,
            image_features=self.image_features[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            raw_pixels=self.raw_pixels[rows],
            copy=self.copy[rows],
        )

    def save(self, directory: str | os.PathLike) -> None:
        """Write `arrays.npz` and `meta.json`; the folder appears complete or not at all.

        Raises:
          ValueError: if `directory` exists.
        """
        columns = {f"columns/{name}": values for name, values in self.columns.items()}
        meta = {"fingerprint": self.fingerprint, "left_out": self.left_out}
        with whole_folder(storage.path(directory), _META) as partial:
            np.savez(
                partial / _ARRAYS,
                image_features=self.image_features,
                raw_pixels=self.raw_pixels,
                copy=self.copy,
                **columns,
            )
            (partial / _META).write_text(json.dumps(meta, indent=2))

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "FeatureStore":
        """Read a folder written by `save`.

        Raises:
          ValueError: if the folder is no feature store or a file in it is damaged.
        """
        directory = storage.path(directory)
        for name in (_ARRAYS, _META):
            if not (directory / name).is_file():
                raise ValueError(f"{directory} is no feature store: it has no {name}")
        copy = storage.local_copy(directory)
        try:
            meta = json.loads((copy / _META).read_text())
            with np.load(copy / _ARRAYS, allow_pickle=False) as arrays:
                prefix = "columns/"
                return cls(
                    image_features=arrays["image_features"],
                    columns={
                        name.removeprefix(prefix): arrays[name]
                        for name in arrays.files
                        if name.startswith(prefix)
                    },
                    raw_pixels=arrays["raw_pixels"],
                    copy=arrays["copy"],
                    fingerprint=meta["fingerprint"],
                    left_out=tuple(map(tuple, meta["left_out"])),
                )
        except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{directory}: damaged feature store ({error})") from error
