"""Encoding a data set once, for every study that reads it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.data.views import NO_MASKS, NotOutlined, View, Views
from fetalclip_jax.data.workers import ordered_map
from fetalclip_jax.evaluation.features.store import FeatureStore

# Fewer examples than this are read before worker processes have started.
WORTH_WORKERS = 300


def encode(
    model,
    source,
    *,
    transform: str = "clip",
    copies: int = 0,
    only: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 128,
    workers: int = 0,
    seed: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> FeatureStore:
    """Encode every image of a source, clean and `copies` times augmented.

    Args:
      model: the loaded model.
      source: `__len__`, `[i] -> Example`.
      transform: see `data.views.Views`.
      copies: augmented copies of each image, besides the clean one.
      only: column -> values; images with others are passed over.
      batch_size: images per call of the vision tower; the last batch is filled up with black.
      workers: processes that read images; 0 reads on threads.
      seed: of the augmentation; copy k of image i depends on (seed, i, k) alone.
      fingerprint: what to say the store was made of.
      progress: show a progress bar.

    Raises:
      ValueError: if there is no image to encode, an example id occurs twice, or features are not
        finite.
    """
    if copies < 0:
        raise ValueError(f"copies {copies} must be >= 0")
    size = model.config.vision_cfg.image_size
    views = Views(source, size, transform, copies, seed, dict(only or {}))
    features, gathered = encode_views(
        model, views, len(source), batch_size=batch_size, workers=workers, progress=progress
    )
    return FeatureStore(
        image_features=features,
        columns=gathered.columns(copies),
        raw_pixels=np.stack(gathered.thumbnails),
        copy=np.tile(np.arange(copies + 1, dtype=np.int32), len(gathered.views)),
        fingerprint=dict(fingerprint or {}),
        left_out=tuple(gathered.left_out),
    )


def encode_views(
    model,
    views: Callable[[int], View | NotOutlined | BadExampleError | None],
    count: int,
    *,
    batch_size: int,
    workers: int = 0,
    progress: bool = True,
    what: str = "images",
    pixels_each: int = 1,
) -> tuple[Float[np.ndarray, "n d"], "Gathered"]:
    """The features of all pixels of some views, and what else is kept of them.

    Args:
      views: index -> its view; picklable if `workers`. None passes an example over.
      count: of indices.
      what: the examples are, for messages.
      pixels_each: images that a view holds, about: a few long ones are worth processes too.

    Raises:
      ValueError: see `encode`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} must be >= 1")
    gathered = Gathered(what)
    workers = workers if count * pixels_each >= WORTH_WORKERS else 0
    with (
        ordered_map(views, count, workers) as read,
        tqdm(total=count, desc="encoding", unit=f" {what}", disable=not progress) as bar,
    ):
        features = []
        for batch in _batches(gathered.pixels(read), batch_size):
            features.append(model.encode_pixels(_filled(batch, batch_size))[: len(batch)])
            bar.update(gathered.passed - bar.n)
        bar.update(gathered.passed - bar.n)  # those after the last full batch are passed over
    if not features:
        raise ValueError(gathered.why_empty(count))
    return np.concatenate(features), gathered


def metadata_store(source, fingerprint: Mapping[str, Any]) -> FeatureStore:
    """A store of columns alone: features of width 0, no image read."""
    known = source.metadata()
    count = len(known["example_id"])
    return FeatureStore(
        image_features=np.zeros((count, 0), np.float32),
        columns=known,
        raw_pixels=np.zeros((count, 0), np.uint8),
        copy=np.zeros(count, np.int32),
        fingerprint=dict(fingerprint),
    )


class Gathered:
    """What is kept of the views while their pixels pass by.

    Attributes:
      views: those of all images that could be read, without their pixels.
      thumbnails: of each image and copy.
      left_out: (example id, reason) of every image that could not be read.
      without_outline: how many images lack an outline that was asked for, by its name.
      passed: how many images were asked for.
    """

    def __init__(self, what: str = "images"):
        self._what = what
        self.views: list[View] = []
        self.thumbnails: list[np.ndarray] = []
        self.left_out: list[tuple[str, str]] = []
        self.without_outline: dict[str, int] = {}
        self.passed = 0  # images whose pixels have all been asked for, or that have none
        self._ids: set[str] = set()

    def pixels(self, read) -> Iterator[np.ndarray]:
        """The pixels of every image and copy, uint8 [s, s] or [s, s, 3]."""
        for view in self.whole(read):
            yield from view.pixels

    def whole(self, read) -> Iterator[View]:
        """The views as they pass, of images of which there is one."""
        for view in read:
            if isinstance(view, BadExampleError):
                self.left_out.append((view.example_id, view.reason))
            elif isinstance(view, NotOutlined):
                names = ", ".join(view.structures)
                self.without_outline[names] = self.without_outline.get(names, 0) + 1
            elif view is not None:
                self._keep(view)
                yield view
            self.passed += 1

    def _keep(self, view: View) -> None:
        name = view.example.example_id
        if name in self._ids:
            raise ValueError(
                f"example id {name!r} occurs twice: predictions and tests go by it; rename one of "
                f"the {self._what} or leave it out of the table"
            )
        self._ids.add(name)
        self.thumbnails.extend(view.thumbnails)
        # The pixels themselves are gone once encoded.
        self.views.append(dataclasses.replace(view, pixels=np.zeros(0, np.uint8), masks=NO_MASKS))

    def columns(self, copies: int) -> dict[str, np.ndarray]:
        """Columns by name, a row for each image and copy."""
        found = columns((view.example, view.resized_spacing_mm) for view in self.views)
        return {name: np.repeat(values, copies + 1) for name, values in found.items()}

    def why_empty(self, count: int) -> str:
        """What to say where nothing was kept of `count` images."""
        if not self.left_out and self.without_outline:
            found = [f"{n} have no outline of {name}" for name, n in self.without_outline.items()]
            return f"none of {count} {self._what} is outlined: {'; '.join(found)}"
        if not self.left_out:
            return (
                f"none of {count} {self._what} is of the kind the study judges: nothing to encode"
            )
        name, reason = self.left_out[0]
        return (
            f"{len(self.left_out)} of {count} {self._what} cannot be read, first {name}: {reason}"
        )


def _batches(pixels: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch = []
    for one in pixels:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _filled(batch: list[np.ndarray], size: int) -> UInt8[np.ndarray, "n s s 3"]:
    """One array of the compiled size, with colour throughout: one program for all data sets."""
    side = len(batch[0])
    filled = np.zeros((size, side, side, 3), np.uint8)
    for row, one in zip(filled, batch, strict=False):
        row[...] = one[..., None] if one.ndim == 2 else one
    return filled
