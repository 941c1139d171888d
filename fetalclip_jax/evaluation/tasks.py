"""The classification tasks: which column is judged, which labels count, which answers compete."""

import dataclasses

import numpy as np
from jaxtyping import Int

from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.labels import BRAIN_PLANES, OTHER, PLANES, SIX_PLANES


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task over one column of a feature store.

    Attributes:
      name: as users write it.
      column: the store's column that holds the true class names.
      labels: class names that are judged; images with another or no name are left out.
      candidates: class names that compete, in order. Those not in `labels` are distractors.
      other: the label of names outside `labels`; None leaves their images out.
    """

    name: str
    column: str
    labels: tuple[str, ...]
    candidates: tuple[str, ...]
    other: str | None = None

    def select(self, store: FeatureStore) -> tuple[np.ndarray, Int[np.ndarray, "n"]]:
        """Rows of `store` that are judged, and the index of their label among `candidates`.

        Raises:
          ValueError: if no row has a label of this task.
        """
        names = store.columns[self.column]
        if self.other is not None:
            names = np.where((names == "") | np.isin(names, self.labels), names, self.other)
        rows = np.flatnonzero(np.isin(names, self.labels))
        if len(rows) == 0:
            found = sorted(set(names.tolist()) - {""})
            raise ValueError(
                f"store has no {self.column} that task {self.name!r} judges {self.labels}; "
                f"found {found or 'no value at all'}. Encode a data set with this label."
            )
        index = {name: i for i, name in enumerate(self.candidates)}
        return rows, np.array([index[name] for name in names[rows]], np.int32)


# Nine candidates of which FETAL_PLANES_DB labels five.
ZERO_SHOT_TASKS = {
    "planes": Task("planes", "plane", ("abdomen", "brain", "femur", "heart", "cervix"), PLANES),
    "brain": Task("brain", "brain_plane", BRAIN_PLANES, BRAIN_PLANES),
}
PROBE_TASKS = {
    "planes": Task("planes", "plane", SIX_PLANES, SIX_PLANES, other=OTHER),
    "brain": Task("brain", "brain_plane", BRAIN_PLANES, BRAIN_PLANES),
}


def find_task(tasks: dict[str, Task], name: str) -> Task:
    """The task called `name`.

    Raises:
      ValueError: naming the tasks there are.
    """
    if name not in tasks:
        raise ValueError(f"task {name!r} is unknown; choose one of {sorted(tasks)}")
    return tasks[name]
