"""Options of segmentation: how decoders are trained, and the protocols."""

import dataclasses
from typing import Any

from fetalclip_jax.evaluation.features.tokens import PLACES, TAPS
from fetalclip_jax.evaluation.heads.unetr import DecoderConfig
from fetalclip_jax.evaluation.statistics.image_lists import VARIANTS
from fetalclip_jax.evaluation.studies.settings import Settings
from fetalclip_jax.evaluation.study import TRANSFORMS

INPUTS = ("tokens", "image")


@dataclasses.dataclass(frozen=True)
class MaskSettings(Settings):
    """Options of decoders on frozen tokens. The defaults are the tuned protocol.

    Attributes:
      splits: folder or file of image lists in the form of HC18's official ones; "" draws splits by
        patient.
      variant: of the lists, "clean" or "official", see `statistics.image_lists`.
      copies: augmented copies of each image to learn from; the clean ones are then not trained on.
      transform: how images are made, see `evaluation.study.TRANSFORMS`.
      taps: which blocks are read, "code" or "paper", see `features.tokens.taps_of`.
      tokens: "stored", "recomputed", or "auto": stored where the disk has room.
      inputs: "tokens" (and the image), or "image" alone: what the decoder does by itself.
      runs: seeds on every split.
      learning_rate, schedule, weight_decay, batch_size, epochs, width: of `heads.unetr`.
      steps_per_epoch: in place of a pass over the training images; 0 for a pass.
      progress: show progress bars.
    """

    splits: str = ""
    variant: str = "clean"
    copies: int = 0
    transform: str = "clip"
    taps: str = "code"
    tokens: str = "auto"
    inputs: str = "tokens"
    runs: int = 1
    learning_rate: float = 3e-3
    schedule: str = "cosine"
    weight_decay: float = 0.01
    batch_size: int = 8
    epochs: int = 8
    steps_per_epoch: int = 25
    width: int = 32
    progress: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name, value, known in (
            ("variant", self.variant, VARIANTS),
            ("transform", self.transform, TRANSFORMS),
            ("taps", self.taps, TAPS),
            ("tokens", self.tokens, PLACES),
            ("inputs", self.inputs, INPUTS),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")
        if self.copies < 0 or self.runs < 1 or self.steps_per_epoch < 0:
            raise ValueError(
                f"copies={self.copies} and steps_per_epoch={self.steps_per_epoch} must be at least "
                f"0 and runs={self.runs} at least 1"
            )
        self.decoder()  # says now what cannot be trained with

    def decoder(self) -> DecoderConfig:
        """What `heads.unetr.fit` trains with.

        Raises:
          ValueError: no learning rate, batch or epoch.
        """
        return DecoderConfig(
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch or None,
            width=self.width,
        )

    def effective(self) -> dict[str, Any]:
        """The settings that had a part in the result."""
        unread = () if self.splits else ("variant",)
        return self.to_json(leave_out=("progress", "tokens", *unread))


# The published training; how images are made and copied as for the published probes.
PAPER = {
    "resample_by": "image",
    "transform": "opencv",
    "runs": 5,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "epochs": 100,
    "steps_per_epoch": 0,
}
