"""TFDS builder of HC18, from a folder the user downloaded."""

import os

from fetalclip_jax.data.sources import HC18Source
from fetalclip_jax.datasets.image_text import ImageText


class HC18(ImageText):
    """`tfds.builder("hc18", data_dir=..., root=...)`; head circumference images with their ages.

    `root` is the folder as published (zenodo.org/records/1327317): this project downloads no
    patient images. See `HC18Source` for `split`, `test_share` and `seed`.
    """

    name = "hc18"

    def __init__(
        self,
        *,
        root: str | os.PathLike,
        split: str = "all",
        test_share: float = 0.2,
        seed: int = 0,
        with_masks: bool = False,
        image_size: int = 224,
        data_dir: str | os.PathLike | None = None,
        **kwargs,
    ):
        source = HC18Source(root, split, test_share, seed, with_masks)
        super().__init__(source=source, image_size=image_size, data_dir=data_dir, **kwargs)
