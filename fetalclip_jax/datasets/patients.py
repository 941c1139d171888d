"""Patients: who is held out, and who is the same in spite of another spelling."""

import hashlib
import re
from collections.abc import Iterable
from typing import TypeVar

Patient = TypeVar("Patient", int, str)


def in_hashed_order(patients: Iterable[Patient], seed: int) -> list[Patient]:
    """The distinct patients in an order that depends on the seed and on nothing else.

    Its first so many are a group to hold out: always the same, however many images are there.
    """
    return sorted(
        set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest()
    )


def check_share(name: str, share: float) -> None:
    """Raises ValueError for a share of patients that is not between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"{name} is {share}; use a share between 0 and 1")


def normal_form(patient_id: str) -> str:
    """One form for spellings of one id: "005" and "5", "P07" and "p7"."""
    return re.sub(r"\d+", lambda number: str(int(number[0])), patient_id.strip().lower())


def check_apart(pairs: Iterable[tuple[str, str]], where: str) -> None:
    """Whether each patient is in one split only, however its id is spelled.

    Args:
      pairs: (patient id, split) of each image.
      where: names the table.

    Raises:
      ValueError: naming a patient of two splits: what is learned of it would be tested on it.
    """
    seen: dict[str, tuple[str, str]] = {}
    for patient_id, split in pairs:
        first_id, first_split = seen.setdefault(normal_form(patient_id), (patient_id, split))
        if split != first_split:
            same = "" if patient_id == first_id else f" (the same patient as {first_id!r})"
            raise ValueError(
                f"{where}: patient {patient_id!r}{same} is in {first_split} and in {split}; give "
                "all images of a patient one split"
            )
