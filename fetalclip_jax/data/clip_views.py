"""The clips of a source as a model is shown them: some of their frames, each as an image."""

import dataclasses

import numpy as np
from jaxtyping import Int

from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.data.views import View, Views

# "uniform": the middle frames of equal parts of the clip. "every": all frames, of clips that have
# exactly so many.
SAMPLINGS = ("uniform", "every")


@dataclasses.dataclass(frozen=True)
class ClipViews:
    """Makes the view of a clip. Picklable and free of JAX: worker processes call it.

    Attributes:
      views: of single images; its source holds clips.
      num_frames: how many a clip is shown by; `View.pixels` are they, in their order.
      sampling: one of `SAMPLINGS`.
    """

    views: Views
    num_frames: int
    sampling: str = "uniform"

    def __post_init__(self):
        check(self.num_frames, self.sampling)

    def __call__(self, index: int) -> View | BadExampleError | None:
        """Raises ValueError for a clip of another length where "every" frame is to be shown."""
        try:
            example = self.views.source[index]
            if not self.views.keeps(example):
                return None
            frames = example.frames
            if frames is None:
                raise ValueError(
                    f"{example.example_id} is an image and no clip; choose a data set of clips"
                )
            if self.sampling == "every" and len(frames) != self.num_frames:
                raise ValueError(
                    f"{example.example_id} has {len(frames)} frames, and sampling='every' takes "
                    f"clips of num_frames={self.num_frames} alone; use sampling='uniform'"
                )
            numbers = sampled(len(frames), self.num_frames)
            read = {k: frames[k] for k in dict.fromkeys(numbers.tolist())}
        except BadExampleError as error:
            return error
        shown = {
            k: self.views.view(dataclasses.replace(example, image=image, frames=None), index)
            for k, image in read.items()
        }
        ordered = [shown[k] for k in numbers.tolist()]
        return dataclasses.replace(
            ordered[0],
            pixels=np.concatenate(_alike([one.pixels for one in ordered])),
            thumbnails=np.concatenate([one.thumbnails for one in ordered]),
            frames=len(frames),
        )


def _alike(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Grey frames in colour, where another frame of the clip has some."""
    if len({one.ndim for one in frames}) == 1:
        return frames
    return [one if one.ndim == 4 else np.repeat(one[..., None], 3, -1) for one in frames]


def sampled(length: int, num_frames: int) -> Int[np.ndarray, "f"]:
    """Numbers of the frames in the middle of `num_frames` equal parts of a clip.

    Of a clip with fewer frames some come twice or more; of one with as many, each once.
    """
    # In whole numbers: (2 k + 1) / (2 n) of the length, rounded down.
    return (2 * np.arange(num_frames) + 1) * length // (2 * num_frames)


def check(num_frames: int, sampling: str) -> None:
    """Raises ValueError for what no clip can be shown by."""
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be at least 1")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling={sampling!r} is not one of {', '.join(SAMPLINGS)}")
