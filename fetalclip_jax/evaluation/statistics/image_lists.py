"""Lists of images to segment: the official ones of HC18, and any in their form.

<root>/probing/segmentation_hc/train_val_split.json             five folds
<root>/few_data_training/segmentation_hc/train_val_split.json   support sets by number of images
       ... and test_id.json beside each

The published test list of HC18 writes "5" where the lists to learn from write "005": images that
are tested are learned from too, 18 of 161 in probing. `variant` says what is done about that.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from fetalclip_jax import storage
from fetalclip_jax.datasets.patients import normal_form
from fetalclip_jax.evaluation.statistics import splits
from fetalclip_jax.evaluation.statistics.splits import Split

VARIANTS = ("clean", "official")
_FOLDER, _TRAIN, TEST = "segmentation_hc", "train_val_split.json", "test_id.json"


@dataclasses.dataclass(frozen=True)
class Lists:
    """Ids in one spelling ("5"), whatever the files write.

    Attributes:
      path: of the lists to learn from.
      folds: of "probing"; empty for "few_data_training".
      sets: of "few_data_training", by size; empty for "probing".
      tested: test ids.
      notes: what must be said of the lists.
    """

    path: storage.Path
    folds: Sequence[Split]
    sets: Mapping[int, Sequence[Split]]
    tested: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def listed(self) -> np.ndarray:
        """Every id to learn from or to validate by."""
        return np.unique([i for split in self._splits() for part in split for i in part])

    def _splits(self) -> Iterable[Split]:
        yield from self.folds
        for draws in self.sets.values():
            yield from draws


def read(root: str | os.PathLike[str], kind: str, variant: str = "clean") -> Lists:
    """The lists of a study.

    Args:
      root: the file of the lists to learn from, its folder, or one above it in the official layout.
      kind: "probing" or "few_data_training".
      variant: "clean" leaves out of the test what is learned from under another spelling;
        "official" keeps it.

    Raises:
      ValueError: no such file, what is wrong with one, or lists in which an id is learned from and
        tested under one spelling, unless `variant` is "official".
    """
    path = _find(storage.path(root), kind)
    folds = splits.read_folds(path) if kind == "probing" else []
    sets = {} if kind == "probing" else splits.read_support_sets(path)
    test_path = path.with_name(TEST)
    if not test_path.is_file():
        raise ValueError(
            f"{path}: there is no {TEST} beside it; add it, with the ids of the images to test as "
            '{"id": "test"}'
        )
    tested = splits.read_test_ids(test_path)
    given = Lists(path, folds, sets, tested).listed
    tested, notes = _without_leak(test_path, tested, given, variant)
    return Lists(
        path,
        [_normal_split(one) for one in folds],
        {size: [_normal_split(one) for one in draws] for size, draws in sets.items()},
        tested,
        notes,
    )


def ids_of_images(
    listed: np.ndarray, example_ids: np.ndarray, patient_ids: np.ndarray
) -> np.ndarray:
    """The listed id of each image, in one spelling; "" of images that no list means.

    An id is the name of an image: 5 is HC18's 005_HC.png, and 005_2HC.png, a further image of that
    head, is in no list. Ids of which none is the name of an image are patients.
    """
    names = np.array([normal_form(one).removesuffix("_hc") for one in example_ids.tolist()])
    if not np.isin(listed, names).any():
        names = np.array([normal_form(one) for one in patient_ids.tolist()])
    return np.where(np.isin(names, listed), names, "")


def _find(root: storage.Path, kind: str) -> storage.Path:
    if root.is_file():
        return root
    folders = [root, root / _FOLDER, root / kind / _FOLDER, root / "splits" / kind / _FOLDER]
    for folder in folders:
        if (folder / _TRAIN).is_file():
            return folder / _TRAIN
    raise ValueError(
        f"splits={root}: no {_TRAIN} there, nor in "
        f"{', '.join(str(folder.relative_to(root)) for folder in folders[1:])}; give the file, its "
        "folder or the folder above `probing` and `few_data_training`"
    )


def _without_leak(
    path: storage.Path, tested: np.ndarray, given: np.ndarray, variant: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Normal test ids by variant, and a note on those that are learned from too."""
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
    same = np.intersect1d(tested, given)
    if len(same) and variant == "clean":
        raise ValueError(
            f"{path}: {len(same)} of {len(tested)} test ids, such as {str(same[0])!r}, are in the "
            "lists to learn from too: a decoder would be tested on images it learned from; correct "
            "the lists, or choose variant='official' to test them all the same"
        )
    learned = {normal_form(one): one for one in given.tolist()}
    leaks: Bool[np.ndarray, "n"] = np.array([normal_form(one) in learned for one in tested])
    normal = np.array([normal_form(one) for one in tested])
    if not leaks.any():
        return normal, ()
    first = str(tested[leaks.argmax()])
    what = (
        f"{leaks.sum()} of the {len(tested)} test images are learned from too: the test list "
        f"writes {first!r}, the lists to learn from {learned[normal_form(first)]!r}"
    )
    if variant == "official":
        return normal, (f"{what}; they are tested all the same (variant 'official')",)
    return normal[~leaks], (f"{what}; they are not tested (variant 'clean')",)


def _normal_split(split: Split) -> Split:
    train, validation = (np.array([normal_form(one) for one in part.tolist()]) for part in split)
    return train, validation
