"""Several data sets in one: each supplies its share of every training batch."""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from fetalclip_jax.data.example import Example
from fetalclip_jax.data.records import RecordDataset
from fetalclip_jax.data.subset import Subset


class Mixture:
    """The examples of several data sets, one after another. Picklable.

    A part with fewer images than rows in a batch supplies each several times, augmented anew; so
    does a single part, of which a plain data set would refuse the batch.

    Attributes:
      names: of the parts.
      shares: of a batch's rows, summing to one.
      fingerprint: hexadecimal digest of the parts and their shares.
      labels: int32 [len(self)] where all parts have them; else there is no such attribute.
    """

    def __init__(
        self,
        parts: Sequence[RecordDataset | Subset],
        names: Sequence[str],
        shares: Sequence[float],
    ):
        """Takes one or more parts, each of one image at least and a share above 0."""
        self.names, self.shares = tuple(names), tuple(shares)
        self._parts = tuple(parts)
        self._starts = [0, *itertools.accumulate(len(part) for part in parts)]
        self._colour = any(part.colour for part in parts)
        digests = [part.fingerprint for part in parts]
        text = f"{list(zip(digests, self.shares, strict=True))}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if all(hasattr(part, "labels") for part in parts):
            self.labels = np.concatenate([part.labels for part in parts])

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Example:
        part, place = self._place(index)
        return self._as_all(self._parts[part][place])

    def without_masks(self, indices: Sequence[int]) -> list[Example]:
        """The examples at `indices`, as training reads them."""
        found = (self._place(index) for index in indices)
        return [self._as_all(self._parts[part].without_masks([place])[0]) for part, place in found]

    def metadata(self) -> dict[str, np.ndarray]:
        """The columns that all parts have, see `RecordDataset.metadata`."""
        columns = [part.metadata() for part in self._parts]
        shared = [name for name in columns[0] if all(name in one for one in columns)]
        return {name: np.concatenate([one[name] for one in columns]) for name in shared}

    def parts_of_batch(self, global_batch_size: int) -> list[tuple[int, int]]:
        """(images, rows of a batch) of each part.

        The rows that whole numbers leave go to the parts that lack most.

        Raises:
          ValueError: a part whose share is less than a row.
        """
        exact = [share * global_batch_size for share in self.shares]
        rows = [int(one) for one in exact]
        lacking = sorted(range(len(rows)), key=lambda k: rows[k] - exact[k])
        for k in lacking[: global_batch_size - sum(rows)]:
            rows[k] += 1
        for name, share, count in zip(self.names, self.shares, rows, strict=True):
            if not count:
                raise ValueError(
                    f"of global_batch_size {global_batch_size}, the share {share:g} of {name} is "
                    "no row; use a larger batch or share"
                )
        return [(len(part), count) for part, count in zip(self._parts, rows, strict=True)]

    def _place(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, int(index) - self._starts[part]

    def _as_all(self, example: Example) -> Example:
        if not self._colour or example.image.ndim == 3:
            return example
        image = cv2.cvtColor(example.image, cv2.COLOR_GRAY2RGB)
        return dataclasses.replace(example, image=image)
