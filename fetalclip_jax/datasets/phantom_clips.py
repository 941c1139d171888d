"""Simulated clips of four-chamber hearts over one beat: normal ones and two defects."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.data.example import NO_IMAGE, Example, checked_index
from fetalclip_jax.datasets import patients
from fetalclip_jax.datasets.phantom import simulated_facts
from fetalclip_jax.labels import HEART_LABELS

ONE_DATA_SET = True
ROLES = {"train": "train", "validation": "validation", "fit": "pool", "test": "test", "all": "all"}
# One clip a patient. Half of the abnormal hearts have a septal defect, half are hypoplastic.
DEFAULTS = {
    "pool_clips": 600,
    "test_clips": 300,
    "frames": 8,
    "abnormal_share": 0.5,
}
_VALIDATION_SHARE = 0.1  # of the pool
# The phantom's images begin at patient 0: clips show others, for a million of its patients.
_FIRST_PATIENT = 1_000_000
_TEST_PATIENTS = 2_000_000
_COLUMNS = ("ga_days", "pixel_spacing_mm", "plane", "patient_id", "label")


def open_split(
    root: str | os.PathLike, split: str, options: Mapping[str, Any], image_size: int, seed: int
) -> "PhantomClips":
    """One group of simulated patients; `root` is not used, for there are no files.

    "pool" is what heads learn from, "train" and "validation" are its first nine tenths and the
    rest. With `test_clips=0` there is no test split, and studies test in folds.

    Raises:
      ValueError: for an unknown split, or a number or share that cannot be drawn.
    """
    del root
    pool, test, share = options["pool_clips"], options["test_clips"], options["abnormal_share"]
    if pool < 2 or test < 0 or options["frames"] < 1:
        raise ValueError(
            f"phantom_clips needs pool_clips={pool} of 2 or more, test_clips={test} of 0 or more "
            f"and frames={options['frames']} of 1 or more"
        )
    patients.check_share("abnormal_share", share)
    train = pool - max(1, round(_VALIDATION_SHARE * pool))
    parts = {
        "train": [(_FIRST_PATIENT, pool, slice(0, train))],
        "validation": [(_FIRST_PATIENT, pool, slice(train, pool))],
        "pool": [(_FIRST_PATIENT, pool, slice(None))],
        "test": [(_TEST_PATIENTS, test, slice(None))] if test else [],
    }
    parts["all"] = parts["pool"] + parts["test"]
    parts = {name: ranges for name, ranges in parts.items() if ranges}
    if split not in parts:
        raise ValueError(f"phantom_clips has no split {split!r}; it has {', '.join(parts)}")
    return PhantomClips(
        seed, parts[split], tuple(parts), image_size, options["frames"], share, split
    )


class PhantomClips:
    """Simulated clips, every one a pure function of the seed and its number."""

    def __init__(
        self,
        seed: int,
        ranges: list[tuple[int, int, slice]],
        splits: tuple[str, ...],
        image_size: int,
        frames: int,
        abnormal_share: float,
        split: str,
    ):
        """`ranges` are (first patient, how many clips are drawn from there, which of them)."""
        from fetalclip_jax.phantom.simulator import VERSION, Phantom

        # Hearts alone: the field of view is then that of the heart.
        self._phantom = Phantom(
            seed=seed, image_size=image_size, images_per_patient=1, plane_weights={"heart": 1.0}
        )
        self._frames = frames
        self._patients = [
            patient
            for first, count, part in ranges
            for patient in _with_share(self._phantom, first, count, abnormal_share)[part]
        ]
        self.facts = simulated_facts(
            splits=splits,
            roles={role: name for role, name in ROLES.items() if name in splits},
            columns=_COLUMNS,
        )
        self.missing: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.files: dict[str, tuple[int, int]] = {}
        self.description: dict[str, Any] = {
            "type": "phantom_clips",
            "version": VERSION,
            "seed": seed,
            "split": split,
            "ranges": [[first, count] for first, count, _ in ranges],
            "clips": len(self._patients),
            "image_size": image_size,
            "frames": frames,
            "abnormal_share": abnormal_share,
        }

    def __len__(self) -> int:
        return len(self._patients)

    def __getitem__(self, index: int) -> Example:
        example = self.bare(index)
        frames = self._phantom.clip(self._patients[index], self._frames)
        return dataclasses.replace(example, image=frames[len(frames) // 2], frames=frames)

    def bare(self, index: int) -> Example:
        """The example without its frames, which are not drawn."""
        from fetalclip_jax.phantom.simulator import CLIP_FIELD

        drawn = self._phantom.bare(self._patients[checked_index(index, len(self))])
        return Example(
            example_id=drawn.example_id.replace("phantom", "clip"),
            image=NO_IMAGE,
            ga_days=drawn.ga_days,
            pixel_spacing_mm=CLIP_FIELD * drawn.pixel_spacing_mm,
            plane=drawn.plane,
            patient_id=drawn.patient_id,
            label=drawn.label,
        )


def _with_share(phantom, first: int, count: int, abnormal_share: float) -> list[int]:
    """The first patients whose hearts add up to the share of abnormal ones, in a hashed order."""
    normal, *defects = HEART_LABELS
    abnormal = round(abnormal_share * count)
    wanted = {normal: count - abnormal}
    wanted |= {
        name: (abnormal + place) // len(defects) for place, name in enumerate(reversed(defects))
    }
    chosen, patient = [], first
    while len(chosen) < count:
        label = phantom.bare(patient).label
        if wanted[label]:
            wanted[label] -= 1
            chosen.append(patient)
        patient += 1
    # In their own order the last ones would be all of the kind that is rarer than asked for.
    return patients.in_hashed_order(chosen, phantom.seed)
