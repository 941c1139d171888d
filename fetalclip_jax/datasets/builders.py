"""TFDS builders of the data sets, by name: `tfds.builder("hc18", data_dir=..., root=...)`.

Apart from the sources, which worker processes import and which must not bring TFDS along.
"""

import os

from fetalclip_jax.data.builder import ImageText
from fetalclip_jax.datasets.hc18 import HC18Source
from fetalclip_jax.datasets.phantom import PhantomSource


class Phantom(ImageText):
    """`tfds.builder("phantom", data_dir=..., stop=7200)`; needs no files.

    The first `stop` - `start` examples from `start` on of one seed; see `PhantomSource`.
    """

    name = "phantom"

    def __init__(
        self,
        *,
        stop: int,
        start: int = 0,
        seed: int = 0,
        image_size: int = 96,
        data_dir: str | os.PathLike | None = None,
        **kwargs,
    ):
        source = PhantomSource(seed, start, stop, image_size=image_size)
        super().__init__(source=source, image_size=image_size, data_dir=data_dir, **kwargs)


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
