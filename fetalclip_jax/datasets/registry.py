"""Every data set by name. A new one is a file beside this one, and a line in `KINDS`.

A module of a data set holds
  DEFAULTS    its options with their defaults; `config.data.<name>` is made of them
  ROLES       what a split is for -> its name: "train", "validation", "fit", "test", "all"
  ONE_DATA_SET  whether every folder of the kind holds the same data set, or a part of it
  open_split(root, split, options, image_size, seed) -> Source
and imports neither JAX nor TFDS: processes that prepare records import it.
"""

import copy
import functools
import importlib
import os
import types
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.datasets.checked import CheckedSource

KINDS = {
    "phantom": "fetalclip_jax.datasets.phantom",
    "hc18": "fetalclip_jax.datasets.hc18",
    "fetal_planes_db": "fetalclip_jax.datasets.fetal_planes_db",
    "image_text": "fetalclip_jax.datasets.image_text",
    "clips": "fetalclip_jax.datasets.clips",
    "phantom_clips": "fetalclip_jax.datasets.phantom_clips",
}

# The option by which a data set that has outlines is asked for them.
MASKS_OPTION = "with_masks"
# The option by which a data set that can draw an anatomy twice is asked to.
SECOND_IMAGES_OPTION = "second_images"


def open_source(
    kind: str,
    root: str | os.PathLike = "",
    split: str = "train",
    *,
    options: Mapping[str, Any] = types.MappingProxyType({}),
    image_size: int = 224,
    seed: int = 0,
) -> CheckedSource:
    """One split of a data set. What is missing from it is said on the terminal, once.

    Args:
      kind: a name in `KINDS`.
      root: folder of the data set as published; the phantom needs none.
      split: one of the data set's; `roles(kind)` says which is for what.
      options: of this data set, over its defaults; see `default_options`.
      image_size: longer side in pixels of images that are drawn rather than read.
      seed: of what is simulated, and of the groups of patients that are held out.

    Returns:
      A `Source` of examples as they are on disk. Reading one that says what cannot be true
      raises BadExampleError.

    Raises:
      ValueError: unknown kind, split or option, or whatever the data set finds wrong with `root`.
    """
    module = _module(kind)
    effective = copy.deepcopy(module.DEFAULTS)
    for name, value in options.items():
        if name not in effective:
            known = ", ".join(effective) or "none"
            raise ValueError(f"{kind} has no option {name!r}; it has {known}")
        effective[name] = value
    source = CheckedSource(module.open_split(root, split, effective, image_size, seed))
    for note in source.notes:
        _say_once(f"{kind}: {note}")
    return source


def default_options() -> dict[str, dict[str, Any]]:
    """Options of every data set with their defaults, by kind."""
    return {kind: copy.deepcopy(_module(kind).DEFAULTS) for kind in KINDS}


def roles(kind: str) -> dict[str, str]:
    """What a split is for ("train", "validation", "fit", "test", "all") -> its name.

    Raises:
      ValueError: unknown kind.
    """
    return dict(_module(kind).ROLES)


def is_one_data_set(kind: str) -> bool:
    """Whether every folder of a kind holds the same patients, so that splits must agree.

    Raises:
      ValueError: unknown kind.
    """
    return _module(kind).ONE_DATA_SET


def _module(kind: str) -> types.ModuleType:
    if kind not in KINDS:
        raise ValueError(f"data set {kind!r} is not one of {', '.join(KINDS)}")
    return importlib.import_module(KINDS[kind])


@functools.cache
def _say_once(line: str) -> None:
    # Splits of one data set share what is missing, and a run opens several of them.
    print(line, flush=True)
