"""Batches on their way to the devices: placed one ahead, their texts cut to a few lengths."""

from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from fetalclip_jax.parallel import sharding

# A step is compiled for each length that occurs: not many, and each a multiple of what hardware
# likes.
_LENGTHS = 4
_MULTIPLE = 8

Batch = Mapping[str, np.ndarray]


def text_lengths(context_length: int) -> tuple[int, ...]:
    """The lengths texts are cut to, ascending: quarters of the context, in multiples of 8."""
    quarters = (context_length * i / _LENGTHS for i in range(1, _LENGTHS + 1))
    rounded = (int(-(-quarter // _MULTIPLE) * _MULTIPLE) for quarter in quarters)
    return tuple(sorted({min(length, context_length) for length in rounded}))


def placed(
    batches: Iterator[Batch], mesh: Mesh, make_room: Callable[[], None] = lambda: None
) -> Iterator[tuple[dict[str, jax.Array], Batch]]:
    """Each batch as global arrays, beside this process's rows of it.

    Texts are cut after the longest of the whole batch, whatever process has it: padding that
    follows all texts changes no feature. Several processes have to agree on it: they place a batch
    before the one ahead of it is given out, so that the agreement passes while devices compute.

    Args:
      batches: what `data.pipeline.train_iterator` gives; endless.
      make_room: waits until the devices can take another program, see `flight`.
    """
    if jax.process_count() == 1:
        for local in batches:
            yield cut_texts(local, mesh), local
        return
    ahead, longest, local = _place(next(batches), mesh)
    while True:
        now = ahead, longest, local
        local = next(batches)
        if jax.default_backend() == "cpu":
            make_room()  # its programs share their threads: the agreement is one
        ahead, longest, local = _place(local, mesh)
        yield _cut(now[0], int(jax.device_get(now[1]))), now[2]


def cut_texts(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """One batch as `placed` gives it."""
    placed_batch, longest, _ = _place(batch, mesh)
    return _cut(placed_batch, int(jax.device_get(longest)))


def _place(local: Batch, mesh: Mesh):
    """A batch of all processes, the length of its longest text, and this process's rows."""
    batch = sharding.global_batch(local, mesh)
    if jax.process_count() == 1:
        return batch, _longest(local["tokens"]), local
    # Queued behind the step that runs now, and ready before the next one ends.
    longest = jax.jit(_longest, out_shardings=sharding.replicated(mesh))(batch["tokens"])
    if jax.default_backend() == "cpu":
        longest.block_until_ready()  # programs of many devices share its threads, see `flight`
    return batch, longest, local


def _longest(tokens):
    # The largest id is the end of text.
    return tokens.argmax(axis=1).max() + 1


def _cut(batch: dict[str, jax.Array], longest: int) -> dict[str, jax.Array]:
    tokens = batch["tokens"]
    lengths = text_lengths(tokens.shape[1])
    length = next(length for length in lengths if length >= longest)
    return batch | {"tokens": jax.lax.slice_in_dim(tokens, 0, length, axis=1)}
