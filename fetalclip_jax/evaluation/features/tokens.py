"""Outputs of four blocks of the image tower beside pixels and outlines: what decoders read.

A ViT-L/14 makes 2 MiB of tokens of an image. They are stored once in half precision and read from
disk, batch by batch; where the disk has no room for them the tower runs again for every batch.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float16, Int, UInt8
from tqdm import tqdm

from fetalclip_jax import storage
from fetalclip_jax.evaluation.features import pixels
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.features.pixels import PixelStore
from fetalclip_jax.evaluation.features.rows import Rows
from fetalclip_jax.evaluation.features.spool import Spool
from fetalclip_jax.evaluation.heads.unetr import Dense
from fetalclip_jax.parallel import distributed
from fetalclip_jax.run import whole_folder

KEPT = True
# Which blocks are tapped: those of the published code, and those of the paper's figure.
TAPS = ("code", "paper")
# Where tokens are kept. "auto" stores them where the disk has room for them, twice.
PLACES = ("auto", "stored", "recomputed")
_TOKENS, _META = "tokens.npy", "tokens.json"
_GIB = 2**30
# Images that are encoded together where tokens are made again. Runs ask for any number of distinct
# images, and every number would be a program of its own.
_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class TokenStore(Rows):
    """Images, outlines and tokens, memory-mapped; `heads.unetr` reads batches of them.

    Attributes:
      images: all pixels and outlines, whichever of them this store has.
      tokens: of the same images; None where they are made again for every batch.
      taps: the blocks they are outputs of, the first being 1.
      row: of each image of this store in `images` and `tokens`.
      columns, copy, fingerprint, left_out: see `features.store.FeatureStore`.
      notes: what must be said of how it is kept.
      encoder: makes tokens of pixels where none are stored; see `bound`.
    """

    images: PixelStore
    tokens: Float16[np.ndarray, "all 4 g g w"] | None
    taps: tuple[int, ...]
    row: Int[np.ndarray, "n"]
    columns: dict[str, np.ndarray]
    copy: Int[np.ndarray, "n"]
    fingerprint: dict
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    encoder: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def of(
        cls,
        images: PixelStore,
        tokens: np.ndarray | None,
        taps: tuple[int, ...],
        notes: tuple[str, ...] = (),
    ) -> "TokenStore":
        """The store of all images of a store of pixels."""
        rows = np.arange(len(images))
        own = images.columns, images.copy, images.fingerprint, images.left_out
        return cls(images, tokens, taps, rows, *own, notes)

    @property
    def structures(self) -> tuple[str, ...]:
        """What is outlined, in the order of the masks."""
        return self.images.structures

    def select(self, rows: np.ndarray) -> "TokenStore":
        """The store of some rows (indices or a mask); nothing is read."""
        return dataclasses.replace(
            self,
            row=self.row[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            copy=self.copy[rows],
        )

    def bound(self, model) -> "TokenStore":
        """The store with the model that made it, which `batch` needs where none are stored.

        Raises:
          ValueError: it is another model.
        """
        self.check_model(model.fingerprint)

        def encode_all(shown: np.ndarray) -> np.ndarray:
            parts = [shown[start : start + _AT_ONCE] for start in range(0, len(shown), _AT_ONCE)]
            return np.concatenate(
                [
                    model.encode_patches(_filled(one, _AT_ONCE), self.taps)[: len(one)]
                    for one in parts
                ]
            )

        return dataclasses.replace(self, encoder=encode_all)

    def pixels(self, rows: Int[np.ndarray, "b"]) -> UInt8[np.ndarray, "b s s 3"]:
        """The images of some rows."""
        return self.images.pixels[self.row[rows]]

    def masks(self, rows: Int[np.ndarray, "b"]) -> Bool[np.ndarray, "b s s k"]:
        """What is true of some rows, by structure."""
        return np.moveaxis(self.images.masks[self.row[rows]], 1, -1)

    def batch(self, rows: Int[np.ndarray, "b"]) -> Dense:
        """What a decoder reads of some rows.

        Raises:
          ValueError: tokens that are not finite.
        """
        shown = self.pixels(rows)
        if self.tokens is not None:
            found = self.tokens[self.row[rows]]
            if not np.isfinite(found).all():
                raise ValueError(self._not_finite(rows, found))
        else:
            assert self.encoder is not None, "a store without tokens is bound to its model first"
            found = halved(self.encoder(shown))
        return Dense(shown, found, self.masks(rows))

    def _not_finite(self, rows, found) -> str:
        bad = ~np.isfinite(found.reshape(len(found), -1)).all(1)
        return (
            f"stored tokens are nan or infinite, first those of image "
            f"{str(self.columns['example_id'][rows[bad.argmax()]])!r}: {_TOKENS} of the folder "
            "'features' is damaged; evaluate into another --output"
        )

    def save(self, directory: str | os.PathLike) -> None:
        """Writes a folder, complete or not at all.

        Raises:
          ValueError: if `directory` exists.
        """
        assert len(self) == len(self.images), "the whole store is saved, not a part"
        meta = {"taps": self.taps, "stored": self.tokens is not None, "notes": self.notes}
        with whole_folder(storage.path(directory), _META) as partial:
            self.images.write(partial)
            if self.tokens is not None:
                np.save(partial / _TOKENS, self.tokens)
            (partial / _META).write_text(json.dumps(meta, indent=2))


def load(directory: str | os.PathLike) -> TokenStore:
    """Opens a folder that `TokenStore.save` wrote.

    Raises:
      ValueError: it is no such folder, or a file in it is damaged.
    """
    directory = storage.path(directory)
    if not (directory / _META).is_file():
        raise ValueError(f"{directory} is no store of tokens: it has no {_META}")
    images = pixels.load(directory)
    copy = storage.local_copy(directory)
    try:
        meta = json.loads((copy / _META).read_text())
        tokens = np.load(copy / _TOKENS, mmap_mode="r") if meta["stored"] else None
        if tokens is not None and len(tokens) != len(images):
            raise ValueError(f"{len(tokens)} rows of tokens for {len(images)} images")
        return TokenStore.of(images, tokens, tuple(meta["taps"]), tuple(meta["notes"]))
    except (KeyError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{directory}: damaged store of tokens ({error})") from error


def encode(model, source, need, working: Working) -> TokenStore:
    """The images of a source that have all the outlines of a need, clean and in copies.

    `need.how` says which blocks are tapped, `taps`, one of `TAPS`, and where the tokens are kept,
    `tokens`, one of `PLACES`.

    Raises:
      ValueError: there is no such image, an example id occurs twice, tokens are not finite or too
        large for half precision, or the disk has no room for them and they are to be stored.
    """
    images = pixels.encode(model, source, need, working)
    taps, place = taps_of(need.how["taps"], model.config.vision_cfg.layers), need.how["tokens"]
    if place == "recomputed":
        return TokenStore.of(images, None, taps)
    first = halved(model.encode_patches(_filled(images.pixels[:1], working.batch_size), taps))[:1]
    if notes := _without_room(first.nbytes * len(images), place):
        return TokenStore.of(images, None, taps, notes)
    tokens = Spool(np.float16)
    with tqdm(
        total=len(images), desc="encoding", unit=" images", disable=not working.progress
    ) as bar:
        for start in range(0, len(images), working.batch_size):
            shown = images.pixels[start : start + working.batch_size]
            found = model.encode_patches(_filled(shown, working.batch_size), taps)
            tokens.append(halved(found[: len(shown)]))
            bar.update(len(shown))
    return TokenStore.of(images, tokens.array(), taps)


def taps_of(name: str, blocks: int) -> tuple[int, ...]:
    """Four blocks of a tower, the first being 1; of fewer than four some occur twice.

    "code" is n // i for i = 4, 3, 2, 1, as in the published program (6, 8, 12 and 24 of 24),
    "paper" every quarter, as in the figure (6, 12, 18 and 24).

    Raises:
      ValueError: another name.
    """
    if name not in TAPS:
        raise ValueError(f"taps={name!r} is not one of {', '.join(TAPS)}")
    quarters = [blocks * k // 4 for k in (1, 2, 3, 4)]
    found = [blocks // i for i in (4, 3, 2, 1)] if name == "code" else quarters
    return tuple(max(1, one) for one in found)


def halved(tokens: Float[np.ndarray, "b 4 g g w"]) -> Float16[np.ndarray, "b 4 g g w"]:
    """Tokens in half precision.

    Raises:
      ValueError: numbers beyond its largest.
    """
    largest, limit = float(np.abs(tokens).max()), float(np.finfo(np.float16).max)
    if largest > limit:
        raise ValueError(
            f"block outputs reach {largest:g}, beyond the {limit:g} of half precision, in which "
            "tokens are kept: look at the weights of the model"
        )
    return tokens.astype(np.float16)


def _without_room(needed: int, place: str) -> tuple[str, ...]:
    """What is said where tokens of so many bytes are not stored for lack of room; else nothing.

    The processes of a job encode together: if one of them has no room, none stores.

    Raises:
      ValueError: they must be stored.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    # Once while they are made, once where they are kept.
    words = f"tokens take 2 x {needed / _GIB:.1f} GiB and {folder} has {free / _GIB:.1f} GiB left"
    words = distributed.found_anywhere(None if 2 * needed <= free else words)
    if words is None:
        return ()
    if place == "stored":
        raise ValueError(
            f"tokens='stored': {words}; make room, set TMPDIR to another disk, or choose "
            "tokens='recomputed'"
        )
    return (f"{words}: the image tower runs again for every batch",)


def _filled(batch: np.ndarray, size: int) -> Any:
    """A batch of the compiled size, the last filled up with black."""
    missing = size - len(batch)
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)])
