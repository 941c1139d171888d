"""The rows of a training batch: what workers make. NumPy only; neither JAX nor grain here."""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt32

from fetalclip_jax.captions.synthesis import state
from fetalclip_jax.data.augment import AugmentConfig, draw_zoom, train_augment
from fetalclip_jax.data.example import Example

# Distinguishes the augmentation's random stream from any other drawn from the same seed.
_AUGMENT_STREAM = 1
# What `caption_ids` go by.
POSITIVES = ("facts", "text")


@dataclasses.dataclass(frozen=True)
class Captions:
    """The text of an example at an epoch, magnified `zoom` times, and what it means.

    Attributes:
      variants: wordings made for an example without a caption of its own; epoch e uses number
        e % variants.
      seed: chooses the wordings.
      positives: "facts": captions mean the same that state the same facts, or, where they came
        with the data, whose letters are the same but for case, spaces and Unicode forms. "text":
        captions mean the same that are the same to the letter.
    """

    variants: int
    seed: int
    positives: str

    def __call__(self, example: Example, epoch: int, zoom: float) -> tuple[str, str]:
        if example.caption is not None:
            text = example.caption
            return text, text if self.positives == "text" else f"caption: {_plain(text)}"
        spacing_mm = example.pixel_spacing_mm
        statement = state(
            plane=example.plane,
            brain_plane=example.brain_plane,
            label=example.label,
            ga_days=example.ga_days,
            # Records hold the spacing of the resized image already.
            resized_spacing_mm=None if spacing_mm is None else spacing_mm / zoom,
            key=(self.seed, example.example_id, epoch % self.variants),
        )
        if self.positives == "text":
            return statement.text, statement.text
        return statement.text, f"facts: {' | '.join(statement.facts)}"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Makes rows of a batch. Picklable: worker processes call it.

    Attributes:
      dataset: a RecordDataset, or any sequence of `Example` with images of one shape. Where it has
        `labels`, one for each example, rows have their `label`.
      tokenizer: texts -> int32 [n, context].
      seed: of the augmentation.
      augment: strength of `train_augment`; None for the stored images.
      captions: what is said of an image.
    """

    dataset: Any
    tokenizer: Callable
    seed: int
    augment: AugmentConfig | None
    captions: Captions

    def __call__(self, numbers: Int64[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """The rows of some element numbers: epoch * len(dataset) + record.

        What happens to an example depends on (seed, its record, the epoch) alone, so it does not
        matter who makes a row, or with which others.
        """
        epochs, records = np.divmod(numbers, len(self.dataset))
        images, seconds, texts, meanings = [], [], [], []
        for epoch, record, example in zip(
            epochs.tolist(), records.tolist(), self._examples(records.tolist()), strict=True
        ):
            image, second, zoom = self._augmented(example, record, epoch)
            text, meaning = self.captions(example, epoch, zoom)
            images.append(image)
            seconds.append(second)
            texts.append(text)
            meanings.append(caption_id(meaning))
        rows = {
            "image": np.stack(images),
            # At once: SentencePiece starts a thread for every call, a tenth of a row's time.
            "tokens": self.tokenizer(texts),
            "caption_ids": np.stack(meanings),
            "record": records.astype(np.int32),
        }
        if seconds[0] is not None:
            rows["second_image"] = np.stack(seconds)
        labels = getattr(self.dataset, "labels", None)
        return rows if labels is None else rows | {"label": labels[records]}

    def _examples(self, records: list[int]) -> Sequence[Example]:
        if hasattr(self.dataset, "without_masks"):
            return self.dataset.without_masks(records)
        return [self.dataset[record] for record in records]

    def _augmented(
        self, example: Example, record: int, epoch: int
    ) -> tuple[np.ndarray, np.ndarray | None, float]:
        """The image, the second one where there is one, and how much both are magnified."""
        if self.augment is None:
            return example.image, example.second_image, 1.0
        rng = np.random.default_rng([_AUGMENT_STREAM, self.seed, record, epoch])
        # A caption that came with the image may quote its scale and cannot be changed.
        zoom = draw_zoom(rng, self.augment) if example.caption is None else 1.0
        image, second = train_augment(example.image, rng, self.augment, zoom), example.second_image
        if second is not None:
            second = train_augment(second, rng, self.augment, zoom)
        return image, second, zoom


def caption_id(meaning: str) -> UInt32[np.ndarray, "2"]:
    """A number for what a caption means, the same in every process and run (BLAKE2b).

    Of 64 bits, for in a batch of 32,768 captions 32 would make one false pair in eight; in two
    halves, for JAX has no 64-bit integers unless it is told to.
    """
    digest = hashlib.blake2b(meaning.encode(), digest_size=8).digest()
    return np.frombuffer(digest, "<u4").astype(np.uint32)


def _plain(text: str) -> str:
    """Case, spaces and forms of a letter do not change what a text says."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
