"""What a worker process is like, told by the images it makes. Imports no JAX, nor what does."""

import dataclasses
import os
import sys

import cv2
import numpy as np

from fetalclip_jax.data.example import Example


@dataclasses.dataclass(frozen=True)
class Probe:
    """Examples whose pixels are facts of the process that reads them.

    Attributes:
      fails_at: the example that raises an error instead.
      dies_at: the example that ends its process.
    """

    count: int = 64
    fails_at: int = -1
    dies_at: int = -1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if index == self.fails_at:
            raise ValueError(f"example {index} is broken; mend it")
        if index == self.dies_at:
            os._exit(3)
        found = [heavy in sys.modules for heavy in ("jax", "grain", "tensorflow")]
        process = os.getpid()
        pixels = [*found, cv2.getNumThreads(), process % 256, process // 256 % 256, process >> 16]
        return Example(f"e{index}", np.array([pixels], np.uint8), "Femur.")


class Letters:
    """The first letters of a text as ids."""

    def __call__(self, texts):
        return np.array([[ord(c) for c in text[:6].ljust(6)] for text in texts], np.int32)
