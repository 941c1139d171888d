"""The records that have a class, for training on labels."""

from collections import Counter

import numpy as np
from jaxtyping import Int32

from fetalclip_jax.data.records import RecordDataset
from fetalclip_jax.data.subset import Subset
from fetalclip_jax.labels import Classes


class LabelledRecords(Subset):
    """Those of a data set of records that have a class.

    Attributes:
      labels: int32 [len(self)], each an index of the classes' names.
      left_out: what the others say in the place of a class, and how many there are.
    """

    def __init__(self, records: RecordDataset | Subset, classes: Classes):
        """Looks at the metadata of all records.

        Raises:
          ValueError: no record has a class.
        """
        names = records.metadata().get(classes.column, np.full(len(records), ""))
        if classes.other is not None:
            known = (names == "") | np.isin(names, classes.names)
            names = np.where(known, names, classes.other)
        rows = np.flatnonzero(np.isin(names, classes.names))
        self.left_out = Counter(name or "no label" for name in np.delete(names, rows).tolist())
        if not len(rows):
            raise ValueError(
                f"none of the {len(records)} records in {records.directory} has a {classes.column} "
                f"of {', '.join(classes.names)} (found: {', '.join(sorted(self.left_out))}); "
                "choose other config.loss.labels, or data that have them"
            )
        super().__init__(records, rows)
        self._names = classes.names
        numbers = {name: number for number, name in enumerate(classes.names)}
        self.labels: Int32[np.ndarray, "n"] = np.array(
            [numbers[name] for name in names[rows].tolist()], np.int32
        )

    def counts(self) -> dict[str, int]:
        """How many records each class has that has any."""
        found = np.bincount(self.labels, minlength=len(self._names)).tolist()
        return {name: n for name, n in zip(self._names, found, strict=True) if n}
