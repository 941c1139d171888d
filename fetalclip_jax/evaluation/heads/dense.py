"""Images with tokens and masks, read in batches while the last batch is computed."""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float16, Int, UInt8


@dataclasses.dataclass(frozen=True)
class Dense:
    """Some images: what a decoder reads of them, and the truth.

    Attributes:
      pixels: as the tower takes them before normalisation, grey or RGB.
      tokens: outputs of four blocks, without the class token, the first block first.
      masks: of each structure.
    """

    pixels: UInt8[np.ndarray, "b S S"] | UInt8[np.ndarray, "b S S 3"]
    tokens: Float16[np.ndarray, "b 4 G G W"]
    masks: Bool[np.ndarray, "b S S classes"]


@runtime_checkable
class DenseData(Protocol):
    """Images by row, whether they lie in memory, on a disk or are encoded when asked for."""

    def batch(self, rows: Int[np.ndarray, "b"]) -> Dense:
        """The images of these rows, in this order. Called from another thread, one at a time."""


def batches_without_end(
    rows: Int[np.ndarray, "n"], size: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "{size}"]]:
    """Row numbers for training: a new shuffle of all rows whenever one is used up."""
    # Few rows are repeated; of many, what is left of a shuffle is dropped.
    shuffles = -(-size // len(rows))
    while True:
        order = np.concatenate([generator.permutation(rows) for _ in range(shuffles)])
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def padded_batches(
    rows: Int[np.ndarray, "n"], size: int
) -> Iterator[tuple[Int[np.ndarray, "{size}"], int]]:
    """Every row once, and how many rows of each batch are real: the last is filled up."""
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        yield np.concatenate([batch, batch[-1:].repeat(size - len(batch))]), len(batch)


def fetched(data: DenseData, requests: Iterable) -> Iterator[dict[str, jax.Array]]:
    """The images of each request (rows of every run), read while the last ones are computed."""
    names = [field.name for field in dataclasses.fields(Dense)]

    def fetch(request):
        rows = np.stack(request)
        # Runs share images; each is read once.
        distinct, places = np.unique(rows, return_inverse=True)
        found = data.batch(distinct)
        places = places.reshape(rows.shape)
        return {name: jnp.asarray(getattr(found, name)[places]) for name in names}

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = []
        for request in requests:
            waiting.append(pool.submit(fetch, request))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        for one in waiting:
            yield one.result()
