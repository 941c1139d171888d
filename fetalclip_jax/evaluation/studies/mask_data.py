"""What decoders learn from and are tested on: rows of two stores of tokens, for one task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fetalclip_jax.datasets.patients import normal_form
from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.heads import unetr
from fetalclip_jax.evaluation.heads.unetr import Decoders, Dense, DenseData
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.image_lists import TEST, Lists, ids_of_images
from fetalclip_jax.evaluation.statistics.splits import Split
from fetalclip_jax.evaluation.studies.mask_settings import MaskSettings
from fetalclip_jax.evaluation.studies.probe_data import run_seeds
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
        roles = {"training images with ": fit, "test images with ": test}
        # Lists choose among the same images for both.
        for where, store in (roles if lists is None else {"": test}).items():
            for name, count in store.images.without_outline.items():
                self.said["left_out"][f"{where}no outline of {name}"] = count
        owners = fit.patients()
        if lists is not None:
            owners, test = self._listed(fit, test, lists)
        else:
            self._check_apart(owners, test)
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
        every = np.union1d(lists.listed, lists.tested)
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
        for ids, what in ((lists.listed, "listed to learn from"), (lists.tested, "listed to test")):
            missing = np.setdiff1d(ids, present)
            if len(missing):
                reason = f"images {what} that the data lacks, such as {str(missing[0])!r}"
                self.said["lacking"][reason] = len(missing)
        self.said["unlisted"] = {"images that no list names": int((names == "").sum())}
        rows = np.isin(names, lists.tested)
        if not rows.any():
            raise ValueError(
                f"{lists.path.with_name(TEST)}: none of its {len(lists.tested)} ids "
                f"names an image of the data, such as {str(lists.tested[0])!r}; choose the lists "
                "of this data set"
            )
        # An id that is in both lists itself is said where they are read.
        others = test.select(rows & ~np.isin(names, lists.listed))
        self._check_listed(fit.select(owners != ""), others, lists)
        return owners, test.select(rows)

    def _check_listed(self, learned: TokenStore, tested: TokenStore, lists: Lists) -> None:
        """Notes further images of patients that are learned from.

        Raises:
          ValueError: there are some, and the variant is not "official".
        """
        patients = tested.columns["patient_id"]
        known = {normal_form(one) for one in learned.columns["patient_id"].tolist() if one}
        shared = np.array([normal_form(one) in known for one in patients.tolist()], bool)
        if not shared.any():
            return
        first = shared.argmax()
        what = (
            f"{shared.sum()} images to test show patients that other listed images are learned "
            f"from, such as {str(tested.columns['example_id'][first])!r} of patient "
            f"{str(patients[first])!r}"
        )
        if self._settings.variant == "clean":
            raise ValueError(
                f"{lists.path}: {what}: a decoder would be tested on patients it learned from; "
                "correct the lists, or choose variant='official' to test them all the same"
            )
        self.said["notes"].append(f"{what}; they are tested all the same (variant 'official')")

    def _check_apart(self, owners, test: TokenStore) -> None:
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
        seeds = run_seeds(self._settings.seed, len(splits) * self._settings.runs)
        return self._fit(splits, seeds)

    def fit_sizes(self, sets: Mapping[int, Sequence[Split]]) -> dict[int, Decoders]:
        """Decoders as `fit_decoders` makes them, for every size.

        All sizes are trained together; the decoders of one do not depend on the others.
        """
        counts = [len(splits) * self._settings.runs for splits in sets.values()]
        seeds = [run_seeds(self._settings.seed, count) for count in counts]
        flat = [split for splits in sets.values() for split in splits]
        decoders = self._fit(flat, np.concatenate(seeds))
        ends = np.cumsum(counts)
        return {
            size: decoders.select(slice(end - count, end))
            for size, count, end in zip(sets, counts, ends, strict=True)
        }

    def _fit(self, splits: Sequence[Split], seeds: np.ndarray) -> Decoders:
        settings = self._settings
        pairs = [rows for split in splits for rows in [self.rows(split)] * settings.runs]
        train_rows, validation_rows = zip(*pairs, strict=True)
        return unetr.fit(
            self.read(self.fit),
            train_rows,
            validation_rows,
            classes=len(self.structures),
            config=settings.decoder(),
            seeds=seeds,
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
