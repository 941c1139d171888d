"""TFDS builder of the simulated data set."""

import os

from fetalclip_jax.data.sources import PhantomSource
from fetalclip_jax.datasets.image_text import ImageText


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
