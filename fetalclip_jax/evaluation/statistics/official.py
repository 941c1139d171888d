"""Where the official split files of FetalCLIP lie, and how they meet the data at hand.

<root>/probing/<task>/train_val_split.json            five folds
<root>/few_data_training/<task>/train_val_split.json  support sets by size
       ... and test_split.json beside each
"""

import dataclasses
import os

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.evaluation.statistics import splits

_FOLDERS = {
    "planes": "classification_six_fetal_planes",
    "brain": "classification_brain_subplanes",
}
_TRAIN, _TEST = "train_val_split.json", "test_split.json"


@dataclasses.dataclass(frozen=True)
class Patients:
    """Which patients a data set has images of, for the roles of a probe.

    Attributes:
      fit: distinct patients of the images that probes may learn from.
      test: distinct patients of the test images.
    """

    fit: np.ndarray
    test: np.ndarray


def find(root: str | os.PathLike[str], kind: str, task: str) -> tuple[storage.Path, storage.Path]:
    """The file of training and validation ids and, beside it, that of the test ids.

    Args:
      root: that file itself, its folder, or a folder above it in the official layout.
      kind: "probing" or "few_data_training".
      task: "planes", "brain", or a column, whose file must be named directly.

    Raises:
      ValueError: no such file; names the places that were tried.
    """
    root = storage.path(root)
    if root.is_file():
        return root, root.with_name(_TEST)
    below = [root]
    if task in _FOLDERS:
        name = _FOLDERS[task]
        below += [root / name, root / kind / name, root / "splits" / kind / name]
    for folder in below:
        if (folder / _TRAIN).is_file():
            return folder / _TRAIN, folder / _TEST
    raise ValueError(
        f"splits={root}: no {_TRAIN} there, nor in "
        f"{', '.join(str(folder.relative_to(root)) for folder in below[1:]) or 'a known folder'}; "
        "give the file, its folder or the folder above `probing` and `few_data_training`"
    )


def test_ids(path: storage.Path) -> np.ndarray | None:
    """Listed test patients; None where there is no such file."""
    return splits.read_test_ids(path) if path.is_file() else None


def check(
    path: storage.Path, listed: np.ndarray, tested: np.ndarray | None, patients: Patients
) -> None:
    """Refuses lists and data of which one trains on what the other tests.

    Args:
      path: of the lists, for the message.
      listed: patients that are trained on or validate.
      tested: patients of the test list.

    Raises:
      ValueError: naming a patient; also where the data has none of the listed patients.
    """
    clashes = [("the test images of the data", np.intersect1d(listed, patients.test))]
    if tested is not None:
        clashes += [
            ("its own test list", np.intersect1d(listed, tested)),
            (
                "the test list and in the fit images of the data",
                np.intersect1d(tested, patients.fit),
            ),
        ]
    for where, both in clashes:
        if len(both):
            raise ValueError(
                f"{path}: {len(both)} patients, such as {str(both[0])!r}, are to be learnt from "
                f"and are in {where} too: a probe would be tested on patients it trained on"
            )
    if not np.isin(listed, patients.fit).any():
        shown = f", whose ids are such as {str(patients.fit[0])!r}" if len(patients.fit) else ""
        raise ValueError(
            f"{path}: the data has no image of any of its {len(listed)} patients, such as "
            f"{str(listed[0])!r}{shown}; choose the split files of this data set"
        )
    if tested is not None and not np.isin(tested, patients.test).any():
        raise ValueError(
            f"{path.with_name(_TEST)}: the data has no test image of any of its {len(tested)} "
            f"patients, such as {str(tested[0])!r}"
        )


def lacking(
    listed: np.ndarray, tested: np.ndarray | None, patients: Patients, owners: np.ndarray
) -> dict[str, int]:
    """How many patients the files ask for that the data cannot show, by what is the matter with
    them and the first of them.

    Args:
      owners: patients to learn from with an image of the task. In the complete FETAL_PLANES_DB
        every listed patient has one, so that one without is an image missing here.
    """
    present = np.intersect1d(listed, patients.fit)
    found = {
        "patients to learn from that the data lacks": np.setdiff1d(listed, present),
        "patients to learn from without an image of the task": np.setdiff1d(present, owners),
    }
    if tested is not None:
        found["patients to test that the data lacks"] = np.setdiff1d(tested, patients.test)
    return {
        f"{reason}, such as {str(missing[0])!r}": len(missing)
        for reason, missing in found.items()
        if len(missing)
    }


def unlisted(listed: np.ndarray, tested: np.ndarray | None, patients: Patients) -> dict[str, int]:
    """How many patients the data has that the files do not name; they are left out."""
    found = {"patients to learn from that no list names": np.setdiff1d(patients.fit, listed)}
    if tested is not None:
        found["patients to test that no list names"] = np.setdiff1d(patients.test, tested)
    return {reason: len(missing) for reason, missing in found.items() if len(missing)}
