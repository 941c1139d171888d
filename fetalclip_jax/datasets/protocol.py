"""What every data set is: a sequence of examples that says of itself what code must know."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from fetalclip_jax.data.example import Example


@dataclasses.dataclass(frozen=True)
class SourceFacts:
    """What is true of a data set; nothing else in the code asks for its name.

    Attributes:
      splits: those that may be opened.
      roles: what a split is for -> its name: "train" (pretraining), "validation" (chosen by, while
        pretraining), "fit" (probes learn from it), "test", "all".
      columns: what its examples know, of the fields of `Example` and the keys of its `extra`.
      simulated: drawn by a program, so that no number measured on it is evidence about patients.
      ages_from: where `ga_days` comes from: "recorded", "head circumference" or "" for no ages.
      group_columns: keys of `Example.extra`, by which results may be split: machine, operator.
      masks: structures that are outlined.
      second_images: whether examples have a `second_image`.
      plausible: field -> (low, high), where that is not `data.checks.PLAUSIBLE`.
      citation, licence: of whoever made it.
    """

    splits: tuple[str, ...]
    roles: Mapping[str, str]
    columns: tuple[str, ...]
    simulated: bool = False
    ages_from: str = ""
    group_columns: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    second_images: bool = False
    plausible: Mapping[str, tuple[float | int, float | int]] = dataclasses.field(
        default_factory=dict
    )
    citation: str = ""
    licence: str = ""


@runtime_checkable
class Source(Protocol):
    """One split of a data set. Picklable: worker processes read it.

    Attributes:
      facts: of the whole data set.
      description: JSON-able; changes whenever any example could, so that a repaired file is read
        again. Holds no absolute path: a data set may be moved.
      missing: files that the data set lists and that are not there (a partial download).
      notes: what has to be said when it is opened: files missing, measurements that are not used.
      files: name -> (size in bytes, time of the last change in ns) of each file that is read.
    """

    facts: SourceFacts
    description: dict[str, Any]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    files: Mapping[str, tuple[int, int]]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError for one that cannot be read, IndexError beyond the end."""
        ...

    def bare(self, index: int) -> Example:
        """The example without its image (`data.example.NO_IMAGE`), at no cost; raises likewise."""
        ...
