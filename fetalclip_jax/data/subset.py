"""Some patients of prepared records: what a run learns from where it is given fewer images."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from fetalclip_jax.data.example import Example
from fetalclip_jax.data.records import RecordDataset


class Subset:
    """Records of `indices`, as a data set of their own. Picklable.

    Attributes:
      directory: of the records.
      colour: see `RecordDataset`.
      fingerprint: hexadecimal digest of the records and the choice.
    """

    def __init__(self, dataset: "RecordDataset | Subset", indices: Int64[np.ndarray, "n"]):
        self._dataset, self._indices, self.directory = dataset, indices, dataset.directory
        self.colour: bool = dataset.colour
        text = f"{dataset.fingerprint}:{indices.tolist()}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[int(self._indices[index])]

    def without_masks(self, indices: Sequence[int]) -> list[Example]:
        """The examples at `indices`, as training reads them."""
        return self._dataset.without_masks([int(self._indices[index]) for index in indices])

    def metadata(self) -> dict[str, np.ndarray]:
        """All columns without the images, see `RecordDataset.metadata`."""
        return {name: column[self._indices] for name, column in self._dataset.metadata().items()}


def of_patients(dataset: RecordDataset, images: int, seed: int) -> Subset:
    """Whole patients, drawn at random, until there are `images`: the last one's may be cut.

    A smaller subset of one seed is part of every larger one, so that what is compared between them
    is how much was learned from, and not what.

    Args:
      images: from 1 to the length of `dataset`.
      seed: of the draw.

    Raises:
      ValueError: `images` out of range.
    """
    if not 1 <= images <= len(dataset):
        raise ValueError(
            f"config.data.train_images={images}, but the training split has {len(dataset)} images; "
            f"use 1 to {len(dataset)}, or 0 for all"
        )
    names, first = np.unique(owners(dataset), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[first]
    return Subset(dataset, np.sort(np.argsort(place, kind="stable")[:images]))


def first_patients(dataset: RecordDataset, patients: int, seed: int) -> Subset:
    """All images of so many patients, see `first_names`.

    Raises:
      ValueError: `patients` out of range.
    """
    names = first_names(dataset, patients, seed)
    return Subset(dataset, np.flatnonzero(np.isin(owners(dataset), names)))


def first_names(dataset, patients: int, seed: int) -> list[str]:
    """So many patients, the first in an order that a hash of seed and patient gives.

    The fewer of one seed are among the more.

    Args:
      dataset: whatever has `metadata()`.
      patients: from 1 to those that it has; an image without a patient is one of its own.
      seed: of the order.

    Raises:
      ValueError: `patients` out of range.
    """
    names = sorted(
        set(owners(dataset).tolist()),
        key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest(),
    )
    if not 1 <= patients <= len(names):
        raise ValueError(
            f"config.data.train_patients={patients}, but the training split has {len(names)} "
            f"patients; use 1 to {len(names)}, or 0 for all"
        )
    return names[:patients]


def owners(dataset) -> np.ndarray:
    """The patient of each image."""
    columns = dataset.metadata()
    own = np.char.add("image:", columns["example_id"].astype(np.str_))
    return np.where(columns["patient_id"] == "", own, columns["patient_id"])
