"""Classification tasks: which column is judged, and which images of it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.labels import TASKS

# Studies say "planes" and "brain" for two columns that data sets have; any other column of a data
# set is a task under its own name.
COLUMNS = {name: classes.column for name, classes in TASKS.items()}


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task over one column of a feature store.

    Attributes:
      name: as users write it.
      column: the store's column that holds the true class names.
      classes: class names that are judged; images with another or no name are left out.
      other: the label of names outside `classes`; None leaves their images out.
    """

    name: str
    column: str
    classes: tuple[str, ...]
    other: str | None = None

    def names(self, store: FeatureStore) -> np.ndarray:
        """The class of each row under this task; "" where it is not judged."""
        names = column(store, self.column)
        if self.other is not None:
            names = np.where((names == "") | np.isin(names, self.classes), names, self.other)
        return np.where(np.isin(names, self.classes), names, "")

    def select(
        self, store: FeatureStore, among: Sequence[str] = ()
    ) -> tuple[np.ndarray, Int[np.ndarray, "n"]]:
        """Rows of `store` that are judged, and the index of their label.

        Args:
          among: names that labels are an index of; the task's own classes if empty.

        Raises:
          ValueError: if no row has a label of this task.
        """
        names = self.names(store)
        rows = np.flatnonzero(names != "")
        if len(rows) == 0:
            found = sorted(set(column(store, self.column).tolist()) - {""})
            raise ValueError(
                f"task {self.name!r} judges {self.column} {', '.join(self.classes)}; none of "
                f"{len(store)} images has one (found {', '.join(found) or 'no value at all'}): "
                "choose a data set with this label, or prompts of its classes"
            )
        index = {name: i for i, name in enumerate(among or self.classes)}
        return rows, np.array([index[name] for name in names[rows]], np.int32)

    def left_out(self, store: FeatureStore) -> dict[str, int]:
        """How many images are not judged, by what their label says."""
        unjudged = column(store, self.column)[self.names(store) == ""].tolist()
        return {name or "no label": count for name, count in sorted(Counter(unjudged).items())}


def probe_task(name: str, store: FeatureStore) -> Task:
    """The task of a probe: six planes, three brain planes, or the values of any other column.

    Raises:
      ValueError: a column without two values to tell apart.
    """
    if name in TASKS:
        return Task(name, TASKS[name].column, TASKS[name].names, TASKS[name].other)
    found = tuple(sorted(set(column(store, name).tolist()) - {""}))
    if len(found) < 2:
        raise ValueError(
            f"column {name!r} has {', '.join(found) or 'no value'} alone: a probe needs two classes"
        )
    return Task(name, name, found)


def column(store: FeatureStore, name: str) -> np.ndarray:
    """Values of one column as text.

    Raises:
      ValueError: no such column; names those there are.
    """
    if name not in store.columns:
        raise ValueError(
            f"the data set has no column {name!r}; it has {', '.join(sorted(store.columns))}"
        )
    values = store.columns[name]
    if values.dtype.kind != "U":
        raise ValueError(f"column {name!r} holds numbers, not class names")
    return values


def numbers(store: FeatureStore, name: str) -> Float[np.ndarray, "n"]:
    """Values of one column as numbers, nan where unknown; texts that are numbers are read.

    Raises:
      ValueError: no such column, or one of texts.
    """
    if name not in store.columns:
        raise ValueError(
            f"the data set has no column {name!r}; it has {', '.join(sorted(store.columns))}"
        )
    values = store.columns[name]
    if values.dtype.kind != "U":
        return values.astype(np.float64)
    try:
        found = np.array([float(value or "nan") for value in values.tolist()])
    except ValueError as error:
        raise ValueError(
            f"column {name!r} holds texts, not numbers ({error}): a probe learns classes, "
            f"probe.{name}"
        ) from error
    if np.isinf(found).any():
        raise ValueError(f"column {name!r} holds an infinite number; correct the table")
    return found
