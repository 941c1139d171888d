"""Options of probes and of few-shot probes: how the head is trained, and their protocols."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.evaluation.heads.linear import ProbeConfig
from fetalclip_jax.evaluation.heads.logistic import PENALTIES
from fetalclip_jax.evaluation.studies.settings import Settings
from fetalclip_jax.evaluation.study import TRANSFORMS

# Which options only one way of training reads.
_ONLY = {
    "logistic": ("penalties",),
    "adamw": ("learning_rates", "weight_decay", "batch_size", "epochs", "runs"),
}


@dataclasses.dataclass(frozen=True)
class LinearHeadSettings(Settings):
    """Options of any linear head on frozen features. The defaults are the tuned protocol.

    Attributes:
      transform: how images are made, see `evaluation.study.TRANSFORMS`.
      solver: "logistic" (to the end, a sweep of L2 penalties) or "adamw" (epochs and seeds).
      feature_scaling: "none", "unit" (length one) or, for "adamw", "standardise".
      penalties: that "logistic" tries.
      learning_rates, weight_decay, batch_size, epochs: of "adamw", see `heads.linear.ProbeConfig`.
      runs: seeds of "adamw" on every split; "logistic" knows none, so that it is run once.
      progress: show progress bars.
    """

    transform: str = "clip"
    solver: str = "logistic"
    feature_scaling: str = "unit"
    penalties: tuple[float, ...] = PENALTIES
    learning_rates: tuple[float, ...] = (3e-4,)
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: int = 50
    runs: int = 1
    progress: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.solver == "logistic":
            object.__setattr__(self, "runs", 1)  # it has no seed that runs could differ by
        for name, value, known in (
            ("solver", self.solver, tuple(_ONLY)),
            ("transform", self.transform, TRANSFORMS),
            ("feature_scaling", self.feature_scaling, ("none", "unit", "standardise")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")
        if self.runs < 1:
            raise ValueError(f"runs={self.runs} must be at least 1")
        if self.solver == "logistic" and self.feature_scaling == "standardise":
            raise ValueError("feature_scaling='standardise' needs solver='adamw'")
        if not self.penalties or not all(one > 0 for one in self.penalties):
            raise ValueError(f"penalties={self.penalties} must be positive numbers")
        self.head()  # says now what AdamW cannot train with

    def head(self) -> ProbeConfig:
        """What `heads.linear.fit` trains with.

        Raises:
          ValueError: no learning rate, batch or epoch.
        """
        scaling = self.feature_scaling
        return ProbeConfig(
            learning_rates=self.learning_rates,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            epochs=self.epochs,
            feature_scaling=scaling if scaling == "standardise" else "none",
        )

    def effective(self) -> dict[str, Any]:
        """The settings that had a part in the result."""
        other = _ONLY["adamw" if self.solver == "logistic" else "logistic"]
        return self.to_json(leave_out=("progress", *other))


@dataclasses.dataclass(frozen=True)
class HeadSettings(LinearHeadSettings):
    """Options of a linear head that tells classes of images apart.

    Attributes:
      splits: folder or file of official split files; "" draws splits by patient.
      copies: augmented copies of each image to learn from; the clean ones are then not trained on.
      redraws: trainings on copies drawn anew, so that their chance is part of a probe's interval;
        0 or 2 and more.
      top_k: accuracies that are reported beside that of the first answer.
    """

    splits: str = ""
    copies: int = 0
    redraws: int = 5
    top_k: tuple[int, ...] = (2,)

    def __post_init__(self):
        super().__post_init__()
        if self.copies < 0 or any(k < 2 for k in self.top_k):
            raise ValueError(
                f"copies={self.copies} must be at least 0 and top_k={self.top_k} at least 2"
            )
        if self.redraws < 0 or self.redraws == 1:
            raise ValueError(f"redraws={self.redraws} must be 0, or 2 and more to show a spread")


def check_used(study: str, settings: LinearHeadSettings, options: Mapping[str, Any]) -> None:
    """Refuses options that the chosen way of training would not read.

    Raises:
      ValueError: naming the option and the solver that reads it.
    """
    for solver, names in _ONLY.items():
        unread = [name for name in names if name in options]
        if unread and settings.solver != solver:
            raise ValueError(
                f"{study}: {unread[0]} belongs to solver={solver!r}, but solver is "
                f"{settings.solver!r} here; give both, or leave {unread[0]} out"
            )
