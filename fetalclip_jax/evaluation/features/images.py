"""The images of a data set, each read when it is asked for: nothing is encoded or stored."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.evaluation.features.encoding import metadata_store
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.features.store import FeatureStore

KEPT = False
load = FeatureStore.load


@dataclasses.dataclass(frozen=True)
class ImageStore(FeatureStore):
    """A store of columns that can show its images.

    Attributes:
      source: of the images.
      places: where each example id is in it.
    """

    source: Any = None
    places: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def image(self, example_id: str) -> UInt8[np.ndarray, "h w *c"] | None:
        """One image as it is; None where it cannot be read."""
        try:
            return self.source[self.places[example_id]].image
        except BadExampleError:
            return None


def encode(model, source, need, working: Working) -> ImageStore:
    """See `features.levels`."""
    del model, need
    known = metadata_store(source, working.fingerprint)
    fields = {field.name: getattr(known, field.name) for field in dataclasses.fields(known)}
    ids = known.columns["example_id"].tolist()
    return ImageStore(**fields, source=source, places={name: i for i, name in enumerate(ids)})
