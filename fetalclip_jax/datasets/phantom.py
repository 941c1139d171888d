"""The simulator as a data set."""

from collections.abc import Mapping
from typing import Any

from fetalclip_jax.data.example import Example, checked_index


class PhantomSource:
    """The simulated examples with indices `start` to `stop` (exclusive) of one seed."""

    def __init__(
        self,
        seed: int,
        start: int,
        stop: int,
        image_size: int = 96,
        images_per_patient: int = 6,
        plane_weights: Mapping[str, float] | None = None,
        with_masks: bool = False,
    ):
        """`image_size` is the longer side in pixels.

        Raises:
          ValueError: for an empty or negative range.
        """
        from fetalclip_jax.phantom.simulator import VERSION, Phantom

        if not 0 <= start < stop:
            raise ValueError(f"phantom examples {start} to {stop} are none; use 0 <= start < stop")
        self._start = start
        self._stop = stop
        self._phantom = Phantom(
            seed=seed,
            image_size=image_size,
            images_per_patient=images_per_patient,
            plane_weights=None if plane_weights is None else dict(plane_weights),
            with_masks=with_masks,
        )
        self.description: dict[str, Any] = {
            "type": "phantom",
            "version": VERSION,
            "seed": seed,
            "start": start,
            "stop": stop,
            "image_size": image_size,
            "images_per_patient": images_per_patient,
            "plane_weights": None if plane_weights is None else dict(plane_weights),
            "with_masks": with_masks,
        }

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Example:
        return self._phantom[self._start + checked_index(index, len(self))]
