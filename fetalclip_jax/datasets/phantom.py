"""The simulator as a data set."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.data.checks import PLAUSIBLE
from fetalclip_jax.data.example import NO_IMAGE, Example, checked_index
from fetalclip_jax.datasets.protocol import SourceFacts

ONE_DATA_SET = True
ROLES = {"train": "train", "validation": "pool", "fit": "pool", "test": "test", "all": "all"}
# Three groups of patients: pretraining, fitting probes, and testing.
DEFAULTS = {
    "images_per_patient": 6,
    "train_images": 7200,
    "pool_images": 1500,
    "test_images": 1500,
    "with_masks": False,
    "second_images": False,  # asked for by config.loss.consistency_weight
}
_COLUMNS = (
    "ga_days",
    "pixel_spacing_mm",
    "plane",
    "brain_plane",
    "hc_mm",
    "patient_id",
    "label",
)
_MASKS = (
    "head",
    "abdomen",
    "stomach",
    "spine",
    "thorax",
    "aorta",
    "heart",
    "septum",
    "left_atrium",
    "left_ventricle",
    "right_atrium",
    "right_ventricle",
)
# Pixels of a few of its small images are wider than those of any scanner.
_WIDEST_PIXEL_MM = 10.0


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "PhantomSource":
    """One group of simulated patients; `root` is not used, for there are no files.

    "all" are the patients that pretraining does not see, pool and test.

    Raises:
      ValueError: for an unknown split or a size that cuts a patient in two.
    """
    train, pool, test = (options[f"{group}_images"] for group in ("train", "pool", "test"))
    ranges = {
        "train": (0, train),
        "pool": (train, train + pool),
        "test": (train + pool, train + pool + test),
        "all": (train, train + pool + test),
    }
    if split not in ranges:
        raise ValueError(f"the phantom has no split {split!r}; it has {', '.join(ranges)}")
    per_patient = options["images_per_patient"]
    for name in ("train_images", "pool_images", "test_images"):
        if per_patient < 1 or options[name] % per_patient:
            raise ValueError(
                f"the phantom's {name}={options[name]} is not a multiple of images_per_patient="
                f"{per_patient}: a patient would fall into two splits"
            )
    return PhantomSource(
        seed,
        *ranges[split],
        image_size=image_size,
        images_per_patient=per_patient,
        with_masks=options["with_masks"],
        second_images=options["second_images"],
    )


def simulated_facts(**of_the_data_set: Any) -> SourceFacts:
    """What is true of all that the simulator draws, beside the fields that are given."""
    from fetalclip_jax.phantom.simulator import VERSION

    return SourceFacts(
        simulated=True,
        ages_from="recorded",
        plausible={"pixel_spacing_mm": (PLAUSIBLE["pixel_spacing_mm"][0], _WIDEST_PIXEL_MM)},
        citation=f"the built-in simulator, version {VERSION}",
        licence="Apache-2.0",
        **of_the_data_set,
    )


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
        second_images: bool = False,
    ):
        """`image_size` is the longer side in pixels; `second_images` are drawn by other machines.

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
        self.facts = simulated_facts(
            splits=("train", "pool", "test", "all"),
            roles=ROLES,
            columns=_COLUMNS,
            masks=_MASKS if with_masks else (),
            second_images=second_images,
        )
        self.missing: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.files: dict[str, tuple[int, int]] = {}
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
        if second_images:
            self.description["second_images"] = True

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Example:
        index = self._start + checked_index(index, len(self))
        example = _example(self._phantom[index])
        if not self.facts.second_images:
            return example
        return dataclasses.replace(example, second_image=self._phantom.second_image(index))

    def bare(self, index: int) -> Example:
        """The example without its image, which is not drawn."""
        return _example(self._phantom.bare(self._start + checked_index(index, len(self))))


def _example(drawn) -> Example:
    """A simulated example without the fetus behind it."""
    known = {one.name: getattr(drawn, one.name) for one in dataclasses.fields(drawn)}
    del known["fetus"]
    return Example(**known | {"image": NO_IMAGE if drawn.image is None else drawn.image})
