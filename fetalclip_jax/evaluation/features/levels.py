"""What can be stored of the images of a data set, by name. A new level is a line here.

A level is a module with
  encode(model, source, need, working) -> a store of the source's images, as `need` says
  load(path) -> a store that was saved there; ValueError for one that is damaged
  KEPT        whether stores are saved, for the next evaluation
and a store has `columns`, `copy`, `left_out`, `fingerprint`, `select(rows)`, `patients()` and
`save(path)`, see `features.store.FeatureStore`; it may have `notes`, sentences that are said.
"""

import dataclasses
import importlib
import types
from collections.abc import Mapping
from typing import Any

LEVELS = {
    "feature": "fetalclip_jax.evaluation.features.projected",
    "metadata": "fetalclip_jax.evaluation.features.metadata",
    "frames": "fetalclip_jax.evaluation.features.frames",
    "images": "fetalclip_jax.evaluation.features.images",
    "pixels": "fetalclip_jax.evaluation.features.pixels",
    "tokens": "fetalclip_jax.evaluation.features.tokens",
}
# What these store is of a single view of an image; a model of several test-time views has none.
OF_ONE_VIEW = ("pixels", "tokens")


@dataclasses.dataclass(frozen=True)
class Working:
    """How a level is to encode, whatever it stores.

    Attributes:
      batch_size: images per call of the image tower.
      workers: processes that read images.
      seed: of augmented copies.
      fingerprint: what the store says it was made of.
      progress: show a progress bar.
    """

    batch_size: int = 64
    workers: int = 0
    seed: int = 0
    fingerprint: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    progress: bool = True


def of(name: str) -> types.ModuleType:
    """The module of a level."""
    return importlib.import_module(LEVELS[name])
