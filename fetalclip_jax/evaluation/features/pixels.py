"""The pixels that a model is shown, and the outlines of what they show: for what has to look."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from tqdm import tqdm

from fetalclip_jax import storage
from fetalclip_jax.data.views import Views
from fetalclip_jax.data.workers import ordered_map
from fetalclip_jax.evaluation.features.encoding import WORTH_WORKERS, Gathered
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.features.rows import Rows
from fetalclip_jax.evaluation.features.spool import Spool
from fetalclip_jax.run import whole_folder

KEPT = True
_PIXELS, _MASKS, _COLUMNS, _META = "pixels.npy", "masks.npy", "columns.npz", "meta.json"


@dataclasses.dataclass(frozen=True)
class PixelStore(Rows):
    """Images of the model's size with their outlines, memory-mapped.

    Attributes:
      pixels: as `models.preprocess.normalise` takes them.
      masks: of each of `structures`, moved and turned as the image is.
      structures: what is outlined, in the order of the masks.
      columns: see `features.store.FeatureStore`.
      copy: 0 for the clean image, k for its k-th augmented copy.
      fingerprint: what made the store.
      left_out: (example id, reason) of every image that could not be read.
      candidates: how many images of the kind there were to choose from.
      without_outline: how many of those that were looked at lack an outline, by its name.
    """

    pixels: UInt8[np.ndarray, "n s s 3"]
    masks: Bool[np.ndarray, "n k s s"]
    structures: tuple[str, ...]
    columns: dict[str, np.ndarray]
    copy: Int[np.ndarray, "n"]
    fingerprint: dict
    left_out: tuple[tuple[str, str], ...] = ()
    candidates: int = 0
    without_outline: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def select(self, rows: np.ndarray) -> "PixelStore":
        """The store of some rows (indices or a mask), read into memory."""
        return dataclasses.replace(
            self,
            pixels=self.pixels[rows],
            masks=self.masks[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            copy=self.copy[rows],
        )

    def mask(self, structure: str) -> Bool[np.ndarray, "n s s"]:
        """The masks of one structure."""
        return self.masks[:, self.structures.index(structure)]

    def save(self, directory: str | os.PathLike) -> None:
        """Writes a folder, complete or not at all.

        Raises:
          ValueError: if `directory` exists.
        """
        with whole_folder(storage.path(directory), _META) as partial:
            self.write(partial)

    def write(self, folder: pathlib.Path) -> None:
        """Writes the files of `save` into a folder that is there."""
        meta = {
            "fingerprint": self.fingerprint,
            "left_out": self.left_out,
            "structures": self.structures,
            "candidates": self.candidates,
            "without_outline": dict(self.without_outline),
        }
        np.save(folder / _PIXELS, self.pixels)
        np.save(folder / _MASKS, self.masks)
        columns = {f"columns/{name}": values for name, values in self.columns.items()}
        np.savez(folder / _COLUMNS, copy=self.copy, **columns)
        (folder / _META).write_text(json.dumps(meta, indent=2))


def load(directory: str | os.PathLike) -> PixelStore:
    """Opens a folder that `PixelStore.save` wrote.

    Raises:
      ValueError: it is no such folder, or a file in it is damaged.
    """
    directory = storage.path(directory)
    for name in (_PIXELS, _MASKS, _COLUMNS, _META):
        if not (directory / name).is_file():
            raise ValueError(f"{directory} is no store of pixels: it has no {name}")
    copy = storage.local_copy(directory)
    try:
        meta = json.loads((copy / _META).read_text())
        with np.load(copy / _COLUMNS, allow_pickle=False) as arrays:
            row_copy = arrays["copy"]
            columns = {
                name.removeprefix("columns/"): arrays[name]
                for name in arrays.files
                if name != "copy"
            }
        return PixelStore(
            pixels=np.load(copy / _PIXELS, mmap_mode="r"),
            masks=np.load(copy / _MASKS, mmap_mode="r"),
            structures=tuple(meta["structures"]),
            copy=row_copy,
            columns=columns,
            fingerprint=meta["fingerprint"],
            left_out=tuple(map(tuple, meta["left_out"])),
            candidates=meta["candidates"],
            without_outline=meta["without_outline"],
        )
    except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{directory}: damaged store of pixels ({error})") from error


def encode(model, source, need, working: Working) -> PixelStore:
    """The images of a source that have all the outlines of a need, clean and in copies.

    `need.how["images"]` bounds their number: those whose ids have the smallest hashes are taken,
    in that order. Without it all are, in the order of the source.

    Raises:
      ValueError: there is no such image, or an example id occurs twice.
    """
    size = model.config.vision_cfg.image_size
    views = Views(
        source, size, need.transform, need.copies, working.seed, dict(need.only), need.masks
    )
    order = _order(source, need)
    wanted = min(need.how.get("images", len(order)), len(order))
    gathered = Gathered()
    pixels, masks = Spool(np.uint8), Spool(bool)
    workers = working.workers if wanted >= WORTH_WORKERS else 0
    with (
        ordered_map(_Chosen(views, order), len(order), workers) as read,
        tqdm(total=wanted, desc="reading", unit=" images", disable=not working.progress) as bar,
    ):
        for view in gathered.whole(read):
            pixels.append(_colour(view.pixels))
            masks.append(view.masks.reshape(len(view.pixels), len(need.masks), size, size))
            bar.update()
            if len(gathered.views) == wanted:
                break
    if not gathered.views:
        raise ValueError(gathered.why_empty(len(order) or len(source)))
    return PixelStore(
        pixels=pixels.array(),
        masks=masks.array(),
        structures=tuple(need.masks),
        columns=gathered.columns(need.copies),
        copy=np.tile(np.arange(need.copies + 1, dtype=np.int32), len(gathered.views)),
        fingerprint=dict(working.fingerprint),
        left_out=tuple(gathered.left_out),
        candidates=len(order),
        without_outline=gathered.without_outline,
    )


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """Views of some indices. Picklable, as `Views` is."""

    views: Views
    indices: Sequence[int]

    def __call__(self, index: int):
        return self.views(self.indices[index])


def _order(source, need) -> list[int]:
    """Indices of the images of the kind, in the order in which they are taken."""
    known = source.metadata()
    kept = np.ones(len(source), bool)
    for name, values in need.only.items():
        kept &= np.isin(known[name], values)
    order = np.flatnonzero(kept).tolist()
    if "images" not in need.how:
        return order
    ids = known["example_id"]
    return sorted(order, key=lambda i: hashlib.sha256(ids[i].encode()).digest())


def _colour(pixels: UInt8[np.ndarray, "n s s *c"]) -> UInt8[np.ndarray, "n s s 3"]:
    # Colour throughout: one program for all data sets.
    return pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=-1)
