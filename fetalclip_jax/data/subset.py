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
      fingerprint: hexadecimal digest of the records and the choice.
    """

    def __init__(self, dataset: "RecordDataset | Subset", indices: Int64[np.ndarray, "n"]):
        self._dataset, self._indices, self.directory = dataset, indices, dataset.directory
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
    columns = dataset.metadata()
    own = np.char.add("image:", columns["example_id"].astype(np.str_))
    owners = np.where(columns["patient_id"] == "", own, columns["patient_id"])
    names, first = np.unique(owners, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[first]
    return Subset(dataset, np.sort(np.argsort(place, kind="stable")[:images]))
