"""TFDS builders of every data set, by name: `tfds.builder("hc18", data_dir=..., root=...)`.

Apart from the sources, which worker processes import and which must not bring TFDS along.
"""

import os
from typing import Any

from fetalclip_jax.data import records
from fetalclip_jax.data.builder import ImageText
from fetalclip_jax.datasets import registry


def make_builder(kind: str) -> type[ImageText]:
    """The builder of a registered data set, which TFDS then finds by its name."""
    own_options = registry.default_options()[kind]

    class Builder(ImageText):
        """Records of one split; see `datasets.registry.open_source` for the arguments."""

        name = kind

        def __init__(
            self,
            *,
            root: str | os.PathLike = "",
            split: str = "all",
            image_size: int = 224,
            seed: int = 0,
            data_dir: str | os.PathLike | None = None,
            **kwargs: Any,
        ):
            options = {name: kwargs.pop(name) for name in own_options if name in kwargs}
            source = registry.open_source(
                kind, root, split, options=options, image_size=image_size, seed=seed
            )
            super().__init__(source=source, image_size=image_size, data_dir=data_dir, **kwargs)

        def build(self) -> None:
            super().build()
            records.say_bad_examples(records.RecordDataset(self.data_dir), kind)

    return Builder


BUILDERS = {kind: make_builder(kind) for kind in registry.KINDS}
