"""From records to an endless stream of training batches, in an order that grain draws."""

import collections
import concurrent.futures
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int64
from ml_collections import ConfigDict

from fetalclip_jax.data.augment import AugmentConfig
from fetalclip_jax.data.mixture import Mixture
from fetalclip_jax.data.rows import POSITIVES, Captions, Rows
from fetalclip_jax.data.workers import ordered_calls

# Rows that a worker makes at a time: enough that handing them over costs little, few enough that
# all workers help with the first batch, and that a large batch is not in memory many times.
_CHUNK = 64
# Whole batches kept ready beside those in the making.
_READY = 2

Batch = dict[str, np.ndarray]


def train_iterator(
    dataset,
    tokenizer,
    *,
    global_batch_size: int,
    seed: int,
    augment: AugmentConfig | Mapping[str, Any] | ConfigDict | None = None,
    caption_variants: int = 1,
    caption_seed: int = 0,
    positives: str = "text",
    first_step: int = 0,
    part: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> "BatchStream":
    """Batches of one epoch after another, each in its own order, for ever.

    Global batch number s is a function of the data, the sizes and the seeds alone: whoever begins
    at `first_step=s` sees what it would have seen after s batches, on any number of hosts and
    workers, and reads nothing of what lies before. An epoch's last, incomplete batch is dropped
    (another set of examples each time), so no batch holds an example twice.

    Args:
      dataset: a RecordDataset, or any sequence of `Example` with images of one shape. Of each part
        of a `Mixture` a batch has equally many rows, those of the first part first; a part of fewer
        images than that stands in a batch several times.
      tokenizer: texts -> int32 [n, context].
      global_batch_size: examples per step over all parts.
      seed: order and augmentation.
      augment: strength of `train_augment`; None for the stored images.
      caption_variants, caption_seed, positives: see `rows.Captions`.
      first_step: number of the first batch to give.
      part: (i, n) for the i-th of n equal runs of rows of each global batch.
      workers: processes that make the rows; 0 makes them on threads of this one.

    Returns:
      An iterator of dictionaries, with b = global_batch_size / n:
        image: uint8 [b, S, S] or [b, S, S, 3];  tokens: int32 [b, context];
        caption_ids: uint32 [b, 2], equal where the captions mean the same;
        record: int32 [b], the example's number in the data set;
        second_image: like image, of a data set that has them;
        label: int32 [b], of a data set that has `labels`.

    Raises:
      ValueError: for a batch larger than the data set or not divisible into parts, and any
        other argument out of range.
    """
    if augment is not None and not isinstance(augment, AugmentConfig):
        augment = AugmentConfig.from_mapping(augment)
    parts = [(len(dataset), global_batch_size)]
    if isinstance(dataset, Mixture):
        parts = dataset.parts_of_batch(global_batch_size)
    else:
        _check_size(len(dataset), global_batch_size)
    _check(caption_variants, workers, first_step)
    _check_part(global_batch_size, *part)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; use 0 to 2**32 - 1")
    if positives not in POSITIVES:
        raise ValueError(f"positives is {positives!r}, not one of {', '.join(POSITIVES)}")
    captions = Captions(caption_variants, caption_seed, positives)
    rows = Rows(dataset, tokenizer, seed, augment, captions)
    order = _Order(parts, seed)
    return BatchStream(_batches(rows, order, first_step, part, workers))


class BatchStream(Iterator[Batch]):
    """Batches, some of them made ahead in the background. `close` ends threads and workers."""

    def __init__(self, batches: Generator[Batch, None, None]):
        self._batches = batches
        # A thread of its own draws the order and puts batches together, beside the accelerator's
        # work instead of between two steps.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ready = collections.deque(self._thread.submit(next, batches) for _ in range(_READY))

    def __next__(self) -> Batch:
        if not self._ready:
            raise StopIteration
        try:
            batch = self._ready.popleft().result()
        except BaseException:
            self.close()
            raise
        self._ready.append(self._thread.submit(next, self._batches))
        return batch

    def close(self) -> None:
        """Waits for what is being made and drops it; there are no more batches afterwards."""
        self._ready.clear()
        self._thread.shutdown(cancel_futures=True)
        self._batches.close()


class _Order:
    """Which element stands at which place of the stream.

    An element's number is epoch * num_examples + record: grain numbers the elements of epoch e
    from e * num_examples, and its shuffle, which is a function of the index and holds no list,
    hands down the shuffled place within the epoch. Each part has epochs of its own.
    """

    def __init__(self, parts: Sequence[tuple[int, int]], seed: int):
        """`parts`: (examples, rows of a batch) of each."""
        self.batch_size = sum(rows for _, rows in parts)
        self._total = sum(examples for examples, _ in parts)
        self._rows = []  # (part, row among those of the part) of every row of a batch
        self._parts = []  # (numbers, examples, rows, first record)
        first = 0
        for place, (examples, rows) in enumerate(parts):
            numbers = (
                grain.MapDataset.source(range(examples))
                .seed((seed + place) % 2**32)
                .map_with_index(lambda number, _: number)
                .shuffle()
            )
            if rows <= examples:
                numbers = numbers[: examples // rows * rows]
            self._rows += [(place, row) for row in range(rows)]
            self._parts.append((numbers.repeat(), examples, rows, first))
            first += examples

    def __call__(self, step: int, rows: range) -> Int64[np.ndarray, "n"]:
        """The numbers of some rows of a global batch."""
        return np.array([self._number(step, *self._rows[row]) for row in rows], np.int64)

    def _number(self, step: int, part: int, row: int) -> int:
        numbers, examples, rows, first = self._parts[part]
        epoch, record = divmod(int(numbers[step * rows + row]), examples)
        return epoch * self._total + first + record


def _batches(
    rows: Rows, order: _Order, first_step: int, part: tuple[int, int], workers: int
) -> Generator[Batch, None, None]:
    chunks = _chunks(order, part)
    work = (order(step, chunk) for step in itertools.count(first_step) for chunk in chunks)
    # A batch ahead for all, and one chunk for each that may have to wait for its turn.
    ahead = 1 + -(-len(chunks) // max(workers, 1))
    with ordered_calls(rows, work, workers, ahead=ahead) as made:
        while True:
            yield _joined([next(made) for _ in chunks])


def _chunks(order: _Order, part: tuple[int, int]) -> list[range]:
    """The rows of a part of a batch, cut up."""
    index, count = part
    size = order.batch_size // count
    first, end = index * size, (index + 1) * size
    return [range(start, min(start + _CHUNK, end)) for start in range(first, end, _CHUNK)]


def _joined(chunks: list[Batch]) -> Batch:
    if len(chunks) == 1:
        return chunks[0]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _check_size(num_examples: int, global_batch_size: int) -> None:
    if num_examples == 0:
        raise ValueError("the data set is empty; prepare one with at least one batch of examples")
    if not 1 <= global_batch_size <= num_examples:
        raise ValueError(
            f"global_batch_size is {global_batch_size}, but the data set has {num_examples} "
            f"examples; use 1 to {num_examples}"
        )


def _check(caption_variants: int, workers: int, first_step: int) -> None:
    if caption_variants < 1:
        raise ValueError(f"caption_variants is {caption_variants}; use at least 1")
    if workers < 0:
        raise ValueError(
            f"workers is {workers}; use 0 for threads of this process, or a number of processes"
        )
    if first_step < 0:
        raise ValueError(f"first_step is {first_step}; batches are numbered from 0")


def _check_part(global_batch_size: int, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise ValueError(f"part is {index} of {count}; use 0 to count - 1")
    if global_batch_size % count:
        raise ValueError(
            f"global_batch_size {global_batch_size} does not divide into {count} parts; use a "
            "multiple of the number of processes"
        )
