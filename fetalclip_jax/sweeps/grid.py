"""What `sweep()` beside `get_config()` says: which fields vary, and how points are judged.

    def sweep():
        return sweeps.product(
            sweeps.zipped(
                sweeps.values("train.global_batch_size", [32, 64]),
                sweeps.values("train.steps", [800, 400]),  # as many images
            ),
            sweeps.values("temperature", [0.05, 0.1]),
            sweeps.values("seed", range(3)),
        )

gives 2 x 2 x 3 points, each a dictionary of a dotted field of the configuration and its value.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fetalclip_jax.evaluation.sources import DataSet

Overrides = dict[str, Any]

# Of whom a point is judged.
PATIENTS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `sweep()` may return instead of a list of points, to say how they are judged.

    Attributes:
      points: overrides of each.
      studies: of `fetalclip evaluate`.
      score: "study/metric" that points are compared by; "" for the headline of the first study.
      patients: "validation", by which a point may be chosen, or "test", where nothing is chosen
        (a curve that is to be shown).
      options: study -> its options, as `studies.create` takes them.
      judged_on: another data set than points are trained on, such as patients for models of
        simulated images; None for the same.
    """

    points: Sequence[Overrides]
    studies: tuple[str, ...] = ("zero_shot.planes",)
    score: str = ""
    patients: str = "validation"
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    judged_on: DataSet | None = None

    def __post_init__(self):
        if self.patients not in PATIENTS:
            raise ValueError(f"patients={self.patients!r} is not one of {', '.join(PATIENTS)}")
        if not self.studies or isinstance(self.studies, str):
            raise ValueError(f"studies={self.studies!r} is no list of studies, or an empty one")
        study, _, metric = self.score.partition("/")
        if self.score and (study not in self.studies or not metric):
            raise ValueError(
                f"score={self.score!r} is no study/metric of the studies {', '.join(self.studies)}"
            )
        unread = sorted(self.options.keys() - set(self.studies))
        if unread:
            raise ValueError(
                f"options are for {unread[0]}, which is not one of {', '.join(self.studies)}"
            )


def values(field: str, among: Iterable[Any]) -> list[Overrides]:
    """One axis: a field of the configuration, such as "optimizer.learning_rate", and its values.

    Two names are no fields: "temperature" is the softmax temperature that training starts from
    (`model.init_logit_scale` is the logarithm of its inverse), and "temperature_learned" False
    keeps it there.
    """
    return [{field: value} for value in among]


def product(*axes: Sequence[Overrides]) -> list[Overrides]:
    """Every combination of the axes; the last one changes first.

    Raises:
      ValueError: no axis, an empty one, or a field that two of them set.
    """
    for number, axis in enumerate(axes, 1):
        if not axis:
            raise ValueError(f"axis {number} of product(...) has no values")
    return [_joined(combination) for combination in itertools.product(*axes)] if axes else []


def zipped(*axes: Sequence[Overrides]) -> list[Overrides]:
    """The first of each axis together, the second of each, and so on.

    Raises:
      ValueError: axes of other lengths, or a field that two of them set.
    """
    lengths = [len(axis) for axis in axes]
    if len(set(lengths)) > 1:
        raise ValueError(f"zipped(...) got axes of {lengths} values; give all the same number")
    return [_joined(together) for together in zip(*axes, strict=True)]


def _joined(parts: Sequence[Overrides]) -> Overrides:
    joined: Overrides = {}
    for part in parts:
        twice = sorted(joined.keys() & part.keys())
        if twice:
            raise ValueError(f"two axes set {twice[0]}; leave it to one of them")
        joined |= part
    return joined
