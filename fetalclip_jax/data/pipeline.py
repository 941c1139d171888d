"""From records to an endless stream of training batches, through grain."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import UInt32
from ml_collections import ConfigDict

from fetalclip_jax.captions.synthesis import caption
from fetalclip_jax.data.augment import AugmentConfig, draw_zoom, train_augment
from fetalclip_jax.data.example import Example

# Distinguishes the augmentation's random stream from any other drawn from the same seed.
_AUGMENT_STREAM = 1
# Small images spend most of their time in Python itself, where threads take turns: at 96 px this
# many cost nothing, 16 lose a third of the speed. Larger images decode in parallel.
_THREADS = 4


def train_iterator(
    dataset,
    tokenizer,
    *,
    global_batch_size: int,
    seed: int,
    augment: AugmentConfig | Mapping[str, Any] | ConfigDict | None = None,
    caption_variants: int = 1,
    caption_seed: int = 0,
    worker_count: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Batches of one epoch after another, each in its own order, for ever.

    The examples of global batch number s are the same for any `process_count` and any
    `worker_count`; each process gets its own slice of them. An epoch's last, incomplete batch is
    dropped (another set of examples each time), so no batch holds an example twice. What happens
    to an example depends on (seed, its index, the epoch) alone, and the iterator's `get_state`
    and `set_state` continue exactly. Call `close()` at the end: it ends the worker processes.

    Args:
      dataset: a RecordDataset, or any sequence of `Example` with images of one shape.
      tokenizer: texts -> int32 [n, context].
      global_batch_size: examples per step over all processes.
      seed: order and augmentation.
      augment: strength of `train_augment`; None for the stored images.
      caption_variants: wordings made for an example without a caption of its own; epoch e uses
        number e % caption_variants.
      caption_seed: chooses the wordings.
      worker_count: processes that load data; 0 loads on threads of this one.
      process_index, process_count: which slice of each global batch to give.

    Returns:
      An iterator of dictionaries, with b = global_batch_size / process_count:
        image: uint8 [b, S, S] or [b, S, S, 3];  tokens: int32 [b, context];
        caption_ids: uint32 [b, 2], equal where the captions are equal.

    Raises:
      ValueError: for a batch larger than the data set or not divisible among processes, and any
        other argument out of range.
    """
    if augment is not None and not isinstance(augment, AugmentConfig):
        augment = AugmentConfig.from_mapping(augment)
    _check_sizes(len(dataset), global_batch_size, caption_variants, worker_count)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; use 0 to 2**32 - 1")
    _check_processes(global_batch_size, process_index, process_count)
    captions = _Captions(caption_variants, caption_seed)
    load = _TrainingPair(len(dataset), tokenizer, seed, augment, captions)
    batch_size = global_batch_size // process_count
    read = grain.ReadOptions(_THREADS, prefetch_buffer_size=2 * batch_size + _THREADS)
    pairs = (
        grain.MapDataset.source(dataset)
        .seed(seed)
        .map_with_index(load)
        .shuffle()[: len(dataset) // global_batch_size * global_batch_size]
        .repeat()[process_index::process_count]
        .to_iter_dataset(read)
    )
    if worker_count:
        if not flags.FLAGS.is_parsed():
            # grain reads absl flags of its own, which only exist after parsing: in a notebook, a
            # test or any program without absl's main they take their defaults.
            flags.FLAGS.mark_as_parsed()
        pairs = pairs.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))
    # After the workers: batching before them would drop a remainder in each.
    return iter(pairs.batch(batch_size, drop_remainder=True))


class _TrainingPair:
    """Makes image, tokens and caption id of one example. Runs in workers: no JAX here.

    It stands before `shuffle` on purpose. grain numbers the elements of epoch e from e * n, and
    `shuffle` hands down e * n + (the shuffled position), so here the index names both the record
    and the epoch, however the stream above is shuffled, cut and divided among processes.
    """

    def __init__(self, num_examples, tokenizer, seed, augment, captions):
        self._num_examples = num_examples
        self._tokenizer = tokenizer
        self._seed = seed
        self._augment = augment
        self._captions = captions

    def __call__(self, index: int, example: Example) -> dict[str, np.ndarray]:
        epoch, record = divmod(index, self._num_examples)
        image, zoom = example.image, 1.0
        if self._augment is not None:
            rng = np.random.default_rng([_AUGMENT_STREAM, self._seed, record, epoch])
            # A caption that came with the image may quote its scale and cannot be changed.
            if example.caption is None:
                zoom = draw_zoom(rng, self._augment)
            image = train_augment(image, rng, self._augment, zoom)
        text = self._captions(example, epoch, zoom)
        return {
            "image": image,
            "tokens": self._tokenizer([text])[0],
            "caption_ids": caption_id(text),
            "record": np.int32(record),
        }


@dataclasses.dataclass(frozen=True)
class _Captions:
    """The text of an example at an epoch, magnified `zoom` times."""

    variants: int
    seed: int

    def __call__(self, example: Example, epoch: int, zoom: float) -> str:
        if example.caption is not None:
            return example.caption
        spacing_mm = example.pixel_spacing_mm
        return caption(
            plane=example.plane,
            brain_plane=example.brain_plane,
            label=example.label,
            ga_days=example.ga_days,
            # Records hold the spacing of the resized image already.
            resized_spacing_mm=None if spacing_mm is None else spacing_mm / zoom,
            key=(self.seed, example.example_id, epoch % self.variants),
        )


def caption_id(text: str) -> UInt32[np.ndarray, "2"]:
    """A number for a caption's exact text, the same in every process and run (BLAKE2b).

    Of 64 bits, for in a batch of 32,768 captions 32 would make one false pair in eight; in two
    halves, for JAX has no 64-bit integers unless it is told to.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.frombuffer(digest, "<u4").astype(np.uint32)


def _check_sizes(num_examples, global_batch_size, caption_variants, worker_count) -> None:
    if num_examples == 0:
        raise ValueError("the data set is empty; prepare one with at least one batch of examples")
    if not 1 <= global_batch_size <= num_examples:
        raise ValueError(
            f"global_batch_size is {global_batch_size}, but the data set has {num_examples} "
            f"examples; use 1 to {num_examples}"
        )
    if caption_variants < 1:
        raise ValueError(f"caption_variants is {caption_variants}; use at least 1")
    if worker_count < 0:
        raise ValueError(f"worker_count is {worker_count}; use 0 or a number of processes")


def _check_processes(global_batch_size, process_index, process_count) -> None:
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index} of {process_count} processes")
    if global_batch_size % process_count:
        raise ValueError(
            f"global_batch_size {global_batch_size} does not divide among {process_count} "
            "processes; use a multiple of the number of processes"
        )
