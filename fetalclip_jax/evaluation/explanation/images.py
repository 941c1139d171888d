"""Activation maps of a user's own images, of which nothing else is known."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from fetalclip_jax import storage
from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import NO_IMAGE, Example, checked_index, read_image
from fetalclip_jax.evaluation import class_features
from fetalclip_jax.evaluation.explanation import cam, overlays
from fetalclip_jax.evaluation.features.pixels import PixelStore


@dataclasses.dataclass(frozen=True)
class OneImage:
    """A source of one file."""

    path: storage.Path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        """Raises BadExampleError where it cannot be decoded."""
        checked_index(index, 1)
        return Example(self.path.name, read_image(self.path))

    def metadata(self) -> dict[str, np.ndarray]:
        """See `datasets.checked.CheckedSource.metadata`."""
        return columns([(Example(self.path.name, NO_IMAGE), None)])


@dataclasses.dataclass(frozen=True)
class Explained:
    """The maps of some images.

    Attributes:
      columns: of the table, [n] each: `image`; `class`, which was looked for; `answer`, the most
        similar class; `score`, 100 x cosine with the class; `x` and `y`, where the map is largest,
        in pixels of the padded image at the model's size, "" for a map that is 0 everywhere.
      pixels: of the images at that size.
      heat: maps over them, none negative.
      method: that made them.
    """

    columns: Mapping[str, np.ndarray]
    pixels: UInt8[np.ndarray, "n s s 3"]
    heat: Float[np.ndarray, "n s s"]
    method: str

    def pictures(self) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
        """(name of a file without its ending, the image and its map side by side)."""
        for row, name in enumerate(file_names(self.columns["image"].tolist())):
            one = slice(row, row + 1)
            title = f"{self.columns['class'][row]} ({self.columns['score'][row]:.1f})"
            yield name, overlays.sheet(self.pixels[one], {self.method: self.heat[one]}, [title])


def explain(
    model,
    store: PixelStore,
    prompts: Mapping[str, Sequence[str]],
    *,
    name: str = "",
    method: str = cam.METHODS[0],
    block: int = 0,
    against_others: bool = True,
    channels: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Explained:
    """The map of every image for one class of the prompts, or for its own best one.

    Args:
      model: the loaded model.
      store: clean images.
      prompts: texts by class.
      name: the class; "" for the most similar of each image.
      method, block, channels, batch_size, progress: see `explanation.cam`.
      against_others: see `cam.target`.

    Raises:
      ValueError: a class that the prompts do not have, nothing to set it against, a model of
        several test-time views, or as the method.
    """
    classes = list(prompts)
    model.check_one_view("an activation map")  # before all images are encoded
    block = cam.choose_block(model.config.vision_cfg, block)
    check_class(prompts, name)
    embedded = class_features.embed_classes(model, prompts)
    pixels = np.asarray(store.pixels)
    scores = np.asarray(class_features.similarity(_features(model, pixels, batch_size), embedded))
    answers = scores.argmax(axis=1)
    wanted = np.full(len(pixels), classes.index(name)) if name else answers
    targets = np.stack([cam.target(embedded, at, against_others) for at in range(len(classes))])
    small = cam.heat_maps(
        *(method, model, pixels, targets[wanted], block),
        channels=channels,
        batch_size=batch_size,
        progress=progress,
    )
    heat = np.asarray(cam.upsample(small, pixels.shape[1]))
    y, x = np.divmod(heat.reshape(len(heat), -1).argmax(axis=1), pixels.shape[2])
    somewhere = heat.max(axis=(1, 2)) > 0
    table = {
        "image": store.columns["example_id"],
        "class": np.array(classes)[wanted],
        "answer": np.array(classes)[answers],
        "score": np.round(scores[np.arange(len(pixels)), wanted].astype(float), 4),
        "x": np.where(somewhere, x.astype(object), ""),
        "y": np.where(somewhere, y.astype(object), ""),
    }
    return Explained(table, pixels, heat, method)


def check_class(prompts: Mapping[str, Sequence[str]], name: str) -> None:
    """Raises ValueError for a name, other than "", that is no class of the prompts."""
    if name and name not in prompts:
        raise ValueError(f"the prompts have no class {name!r}, only {', '.join(prompts)}")


def file_names(images: Sequence[str]) -> list[str]:
    """What the map of each image is called, without ending: its name without its own ending.

    Images that differ in nothing else keep theirs.
    """
    stems = [str(pathlib.PurePosixPath(name).with_suffix("")) for name in images]
    # Some file systems do not tell capitals apart.
    times = collections.Counter(stem.casefold() for stem in stems)
    taken = {name.casefold() for name in images}
    return [
        name if times[stem.casefold()] > 1 or (stem != name and stem.casefold() in taken) else stem
        for name, stem in zip(images, stems, strict=True)
    ]


def _features(model, pixels: UInt8[np.ndarray, "n s s 3"], size: int) -> Float[np.ndarray, "n d"]:
    batches = (pixels[start : start + size] for start in range(0, len(pixels), size))
    return np.concatenate(
        [model.encode_pixels(cam.filled(one, size))[: len(one)] for one in batches]
    )
