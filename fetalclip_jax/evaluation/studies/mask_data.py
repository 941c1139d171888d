"""What decoders learn from and are tested on: rows of two stores of tokens, for one task."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.heads import unetr
from fetalclip_jax.evaluation.heads.unetr import Decoders, Dense, DenseData
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.image_lists import Lists, ids_of_images
from fetalclip_jax.evaluation.statistics.splits import Split
from fetalclip_jax.evaluation.studies.mask_settings import MaskSettings
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.labels import OUTLINED, Outlined

# Masks that are read at a time.
ROWS_AT_ONCE = 256


def needs(task: str, settings: MaskSettings) -> tuple[Need, Need]:
    """The stores of a task: images to learn from, and those of the test.

    Lists of images choose among all of them.
    """
    what = OUTLINED.get(task, Outlined((task,)))
    # A decoder that reads the image alone needs no tokens.
    place = "recomputed" if settings.inputs == "image" else settings.tokens
    shared = {
        "transform": settings.transform,
        "level": "tokens",
        "masks": what.structures,
        "only": {"plane": (what.plane,)} if what.plane else {},
        "how": {"taps": settings.taps, "tokens": place},
    }
    fit, test = ("all", "all") if settings.splits else ("fit", "test")
    return Need("fit", fit, copies=settings.copies, **shared), Need("test", test, **shared)


class MaskData:
    """Images to learn from and to be tested on, for one task.

    Attributes:
      structures: to outline.
      fit: images to learn from, and their copies.
      owners: of each of them, whom splits go by: a patient, or a listed id; "" where no list
        names it.
      trains: whether a row may train: augmented copies, or clean images where there are none.
      validates: whether a row may validate: clean images.
      test: the clean, judged images.
      said: what is left out and lacking, as details of a result.
      unit: of what splits consist, "patients" or "images".
      progress: show progress bars.
    """

    def __init__(
        self,
        stores: dict[str, TokenStore],
        model,
        settings: MaskSettings,
        lists: Lists | None = None,
    ):
        """Takes the rows of a task.

        Raises:
          ValueError: stores of another model, patients in both, lists that name no image, no image
            with an outline to learn from, or a structure that no image to test shows.
        """
        fit, test = stores["fit"].bound(model), stores["test"].bound(model).clean()
        self.structures, self._settings = fit.structures, settings
        self.unit, self.progress = "patients", settings.progress
        self.said: dict[str, Any] = {"left_out": {}, "lacking": {}, "unlisted": {}, "notes": []}
        self.said["notes"] += dict.fromkeys((*fit.notes, *test.notes))
        owners = fit.patients()
        if lists is not None:
            owners, test = self._listed(fit, test, lists)
        self._check_apart(owners, test, lists)
        areas = areas_of(fit)
        shown = (areas > 0).any(1)
        # Copies may have moved a structure out of the image.
        self.fit, self.owners, self.areas = fit.select(shown), owners[shown], areas[shown]
        self.validates = self.fit.copy == 0
        copied = self.fit.copy > 0
        self.trains = copied if copied.any() else self.validates
        if not self.validates.any():
            raise ValueError(
                f"no image to learn from shows {', '.join(self.structures)}: all masks are empty"
            )
        if empty := int(((fit.copy == 0) & ~shown).sum()):
            self.said["left_out"]["training images with empty masks"] = empty
        # Empty masks are kept here: what is drawn where there is nothing counts.
        tested = areas_of(test)
        unseen = np.array(self.structures)[~tested.any(0)]
        if len(unseen):
            raise ValueError(
                f"no image to test shows {', '.join(unseen)}: all masks are empty; choose a study "
                "of the other structures, or images that show it"
            )
        if empty := int((~tested.any(1)).sum()):
            self.said["notes"].append(
                f"{empty} of the {len(test)} test images show no {' or '.join(self.structures)}: "
                "what is drawn there lowers the Dice"
            )
        self.test = test

    def _listed(self, fit: TokenStore, test: TokenStore, lists: Lists):
        """Owners of the images to learn from, and the test images, as the lists say."""
        columns = (fit.columns["example_id"], fit.columns["patient_id"])
        owners = ids_of_images(lists.listed, *columns)
        every = lists.listed if lists.tested is None else np.union1d(lists.listed, lists.tested)
        names = ids_of_images(every, test.columns["example_id"], test.columns["patient_id"])
        present = np.unique(names[names != ""])
        if not np.isin(lists.listed, present).any():
            raise ValueError(
                f"{lists.path}: the data has no image of any of its {len(lists.listed)} ids, such "
                f"as {str(lists.listed[0])!r}; its example ids are such as "
                f"{str(test.columns['example_id'][0])!r}: choose the lists of this data set"
            )
        if len(present) == (names != "").sum():
            self.unit = "images"
        self.said["notes"] += lists.notes
        tested = np.setdiff1d(present, lists.listed) if lists.tested is None else lists.tested
        for ids, what in ((lists.listed, "listed to learn from"), (tested, "listed to test")):
            if missing := len(np.setdiff1d(ids, present)):
                self.said["lacking"][f"images {what} that the data lacks"] = missing
        self.said["unlisted"] = {"images that no list names": int((names == "").sum())}
        rows = np.isin(names, tested)
        if not rows.any():
            raise ValueError(
                f"{lists.path}: the data has no image of any of its {len(tested)} test ids"
                + (f", such as {str(tested[0])!r}" if len(tested) else "")
            )
        return owners, test.select(rows)

    def _check_apart(self, owners, test: TokenStore, lists: Lists | None) -> None:
        if lists is not None:
            return  # what they share is known, and said
        both = np.intersect1d(owners, test.patients())
        if len(both):
            raise ValueError(
                f"{len(both)} patients are in the images to learn from and in the test set, such "
                f"as {str(both[0])!r}: a decoder would be tested on patients it learned from"
            )

    @property
    def pool(self) -> np.ndarray:
        """Distinct patients, or listed ids, that can be learned from."""
        return np.unique(self.owners[(self.owners != "") & self.validates])

    def rows(self, split: Split) -> tuple[Int[np.ndarray, "a"], Int[np.ndarray, "b"]]:
        """Training and validation rows of a split."""
        train, validation = split
        return (
            np.flatnonzero(self.trains & np.isin(self.owners, train)),
            np.flatnonzero(self.validates & np.isin(self.owners, validation)),
        )

    def unseen(self, split: Split) -> list[str]:
        """Structures that no training, or no validation, image of a split shows."""
        found = []
        for rows, what in zip(self.rows(split), ("training", "validation"), strict=True):
            shown = (self.areas[rows] > 0).any(0)
            found += [
                f"{what} image shows {name}"
                for name, seen in zip(self.structures, shown, strict=True)
                if not seen
            ]
        return found

    def fit_decoders(self, splits: Sequence[Split]) -> Decoders:
        """`runs` decoders of every split, ordered split by split.

        Raises:
          ValueError: a split without an image to train or to validate on.
        """
        settings = self._settings
        pairs = [rows for split in splits for rows in [self.rows(split)] * settings.runs]
        train_rows, validation_rows = zip(*pairs, strict=True)
        draw = np.random.default_rng([settings.seed, len(pairs)])
        return unetr.fit(
            self.read(self.fit),
            train_rows,
            validation_rows,
            classes=len(self.structures),
            config=settings.decoder(),
            seeds=draw.integers(0, 2**32, len(pairs), dtype=np.uint32),
            progress=self.progress,
        )

    def bootstrap(self) -> Bootstrap:
        settings = self._settings
        groups = self.test.bootstrap_groups(settings.resample_by)
        return Bootstrap(groups, settings.resamples, settings.seed)

    def read(self, store: TokenStore) -> DenseData:
        """What decoders read of some of the images."""
        return store if self._settings.inputs == "tokens" else _ImageAlone(store)


class _ImageAlone:
    """Images whose tokens say nothing."""

    def __init__(self, store: TokenStore):
        self._store = store

    def batch(self, rows: Int[np.ndarray, "b"]) -> Dense:
        blank = np.zeros((len(rows), 4, 1, 1, 1), np.float16)
        return Dense(self._store.pixels(rows), blank, self._store.masks(rows))


def areas_of(store: TokenStore) -> Int[np.ndarray, "n k"]:
    """Pixels of every mask."""
    starts = range(0, len(store), ROWS_AT_ONCE)
    parts = [np.arange(start, min(start + ROWS_AT_ONCE, len(store))) for start in starts]
    return np.concatenate([store.masks(part).sum((1, 2)) for part in parts])
