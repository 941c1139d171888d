"""What a study is: what it needs of a data set, and what it makes of the features."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation.features.rows import Rows
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.measure import Measure, Measured

# How images of a store are made: "clip" is open_clip's antialiased transform of the padded image;
# "opencv" pads too, but shrinks by OpenCV's cubic without antialiasing, as the paper's probes do.
TRANSFORMS = ("clip", "opencv")


@dataclasses.dataclass(frozen=True)
class Need:
    """A store of features that a study reads.

    Attributes:
      name: under which the study finds it.
      role: "test", "fit" (patients that probes learn from) or "all"; `SourceFacts.roles` says which
        split of a data set that is.
      columns: labels or numbers without which the study makes no sense, such as ("plane",).
      copies: augmented copies of each image beside the clean one.
      transform: one of `TRANSFORMS`.
      level: what is stored of an image, a key of `features.levels.LEVELS`: "feature": one projected
        vector; "metadata": its columns alone, nothing is encoded and `image_features` is [n, 0];
        "images": the like, and images are read when they are asked for; "frames": of a clip, the
        features of `how["num_frames"]` frames side by side.
      masks: structures that have to be outlined, such as ("head",); the examples then hold `masks`.
      how: further arguments of the level, such as which blocks are tapped.
      optional: a data set that has no split of this role is judged without it: the store is then
        missing from `stores`.
      only: column -> values; other images are not encoded. Empty keeps all.
      otherwise: what a user can do where no image has these values; "" for nothing.
    """

    name: str
    role: str
    columns: tuple[str, ...] = ()
    copies: int = 0
    transform: str = "clip"
    level: str = "feature"
    optional: bool = False
    only: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    masks: tuple[str, ...] = ()
    how: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    otherwise: str = ""

    @property
    def unit(self) -> str:
        """What a row of the store is, in the plural."""
        return "clips" if self.level == "frames" else "images"

    def why_none(self, count: int) -> str:
        """What to say where none of `count` images has the values of `only`."""
        kinds = [
            f"{column} {' or '.join(map(repr, values))}" for column, values in self.only.items()
        ]
        words = f"none of {count} {self.unit} is of {' and '.join(kinds) or 'any kind'}"
        return f"{words}; {self.otherwise}" if self.otherwise else words


@dataclasses.dataclass(frozen=True)
class AtSize:
    """The first metric of a study with a curve, of the decoders or probes of one size.

    Attributes:
      measure: its mean over the runs, as a function of images.
      runs: its value in every run, ordered by support set.
    """

    measure: Measure
    runs: Float[np.ndarray, "m"]


@runtime_checkable
class Study(Protocol):
    """Made of its settings by `studies.create`; run once per model and data set.

    Its class takes the options as keywords; of a family, "zero_shot.*", the task comes first. That
    of a study with a curve has `at(predictions, size) -> AtSize` too.

    Attributes:
      settings_type: a dataclass of its options, `studies.settings.Settings` and more.
      settings: the options it was made with.
      name: such as "zero_shot.planes"; names its files.
      needs: the stores it reads.
      scores: metric -> whether less of it is better, of those that models may be chosen by, the
        headline first; empty for a study that tells of the data. Studies whose measures need no
        more than answers to images may go without.
    """

    settings_type: type
    settings: Any
    name: str
    needs: tuple[Need, ...]

    def run(self, stores: Mapping[str, Rows], model: Any) -> Result:
        """Judges `model` by its stored features; `evaluate` fills in model, data and cost."""
        ...

    @staticmethod
    def measures(predictions: Predictions, *task: str) -> Mapping[str, Measured]:
        """What the study measured, by metric, as functions of images: for tests and subgroups.

        Args:
          predictions: that `run` returned.
          task: of a family, the last part of the study's name.
        """
        ...
