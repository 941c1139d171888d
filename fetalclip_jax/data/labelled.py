"""The records that have a class, for training on labels."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from fetalclip_jax.data.example import Example
from fetalclip_jax.data.records import RecordDataset
from fetalclip_jax.labels import Classes


class LabelledRecords:
    """Those of a `RecordDataset` that have a class, by index. Picklable, as they are.

    Attributes:
      labels: int32 [len(self)], each an index of the classes' names.
      left_out: what the others say in the place of a class, and how many there are.
    """

    def __init__(self, records: RecordDataset, classes: Classes):
        """Looks at the metadata of all records.

        Raises:
          ValueError: no record has a class.
        """
        self._records = records
        self._classes = classes
        names = records.metadata().get(classes.column, np.full(len(records), ""))
        if classes.other is not None:
            known = (names == "") | np.isin(names, classes.names)
            names = np.where(known, names, classes.other)
        self._rows = np.flatnonzero(np.isin(names, classes.names))
        unlabelled = np.delete(names, self._rows).tolist()
        self.left_out = Counter(name or "no label" for name in unlabelled)
        if not len(self._rows):
            raise ValueError(
                f"none of the {len(records)} records in {records.directory} has a {classes.column} "
                f"of {', '.join(classes.names)} (found: {', '.join(sorted(self.left_out))}); "
                "choose other config.loss.labels, or data that have them"
            )
        numbers = {name: number for number, name in enumerate(classes.names)}
        self.labels: Int32[np.ndarray, "n"] = np.array(
            [numbers[name] for name in names[self._rows].tolist()], np.int32
        )

    @property
    def fingerprint(self) -> str:
        return self._records.fingerprint

    def counts(self) -> dict[str, int]:
        """How many records each class has that has any."""
        found = np.bincount(self.labels, minlength=len(self._classes.names)).tolist()
        named = zip(self._classes.names, found, strict=True)
        return {name: count for name, count in named if count}

    def __len__(self) -> int:
        return len(self._rows)

    def without_masks(self, indices: Sequence[int]) -> list[Example]:
        return self._records.without_masks(self._rows[list(indices)].tolist())

    def metadata(self) -> dict[str, np.ndarray]:
        return {name: column[self._rows] for name, column in self._records.metadata().items()}

    def __reduce__(self):
        return type(self), (self._records, self._classes)
