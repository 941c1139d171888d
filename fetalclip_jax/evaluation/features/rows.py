"""What every store has, whatever it keeps of an image: a row for each image and copy."""

import abc
from typing import TypeVar

import numpy as np

AnyRows = TypeVar("AnyRows", bound="Rows")


class Rows(abc.ABC):
    """Who the rows of a store are.

    Attributes:
      columns: metadata by name, [n] each; a missing text is "", a missing number is nan.
      copy: 0 for the clean image, k for its k-th augmented copy, [n].
      fingerprint: what made the store.
    """

    columns: dict[str, np.ndarray]
    copy: np.ndarray
    fingerprint: dict

    def __len__(self) -> int:
        return len(self.copy)

    @abc.abstractmethod
    def select(self: AnyRows, rows: np.ndarray) -> AnyRows:
        """The store of some rows (indices or a mask)."""

    def clean(self: AnyRows) -> AnyRows:
        """The rows of images that were not augmented.

        Raises:
          ValueError: if there are none.
        """
        if not (self.copy == 0).any():
            raise ValueError("the store has no clean image (copy 0): encode it again")
        return self.select(self.copy == 0)

    def patients(self) -> np.ndarray:
        """Patient ids; an image without one is a patient of its own."""
        patient, example = self.columns["patient_id"], self.columns["example_id"]
        return np.where(patient == "", np.char.add("image:", example), patient)

    def bootstrap_groups(self, resample_by: str) -> np.ndarray:
        """What a bootstrap draws: "patient" ids, or "image" ids to match the paper.

        Raises:
          ValueError: for another word.
        """
        if resample_by not in ("patient", "image"):
            raise ValueError(f"resample_by must be 'patient' or 'image', found {resample_by!r}")
        return self.patients() if resample_by == "patient" else np.arange(len(self))

    def check_model(self, fingerprint: str) -> None:
        """Raise ValueError if another model than `fingerprint` made these features."""
        made_by = self.fingerprint.get("model")
        if made_by != fingerprint:
            raise ValueError(
                f"the store was encoded by model {made_by!r}, not by {fingerprint!r}: "
                "encode the data set again with the model that is judged"
            )
