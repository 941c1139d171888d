"""What decoders learn from and are tested on: rows of two stores of tokens, for one task."""

import dataclasses
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.heads import unetr
from fetalclip_jax.evaluation.heads.unetr import Decoders, Dense
from fetalclip_jax.evaluation.outlines import Outlines
from fetalclip_jax.evaluation.result import Baseline, Predictions
from fetalclip_jax.evaluation.statistics import segmentation
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.image_lists import Lists, ids_of_images
from fetalclip_jax.evaluation.statistics.splits import Split
from fetalclip_jax.evaluation.studies.mask_settings import MaskSettings
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.labels import OUTLINED, Outlined

HEAD = "head"
_ROWS_AT_ONCE = 256
_HALF = 0.5


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
          ValueError: stores of another model, patients in both, lists that name no image, or no
            image with an outline.
        """
        fit, test = stores["fit"].bound(model), stores["test"].bound(model).clean()
        self.structures, self._settings = fit.structures, settings
        self.unit = "patients"
        self.said: dict[str, Any] = {"left_out": {}, "lacking": {}, "unlisted": {}, "notes": []}
        self.said["notes"] += dict.fromkeys((*fit.notes, *test.notes))
        owners = fit.patients()
        if lists is not None:
            owners, test = self._listed(fit, test, lists)
        self._check_apart(owners, test, lists)
        areas = _areas(fit)
        shown = (areas > 0).any(1)
        # Copies may have moved a structure out of the image.
        self.fit, self.owners, self.areas = fit.select(shown), owners[shown], areas[shown]
        self.validates = self.fit.copy == 0
        copied = self.fit.copy > 0
        self.trains = copied if copied.any() else self.validates
        outlined = (_areas(test) > 0).any(1)
        if not outlined.any() or not self.validates.any():
            raise ValueError(
                f"no image to {'test' if self.validates.any() else 'learn from'} shows "
                f"{', '.join(self.structures)}: all masks are empty"
            )
        empty = {"test": (~outlined).sum(), "training": ((fit.copy == 0) & ~shown).sum()}
        self.said["left_out"] |= {
            f"{where} images with empty masks": int(count)
            for where, count in empty.items()
            if count
        }
        self.test = test.select(outlined)

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
            self._read(self.fit),
            train_rows,
            validation_rows,
            classes=len(self.structures),
            config=settings.decoder(),
            seeds=draw.integers(0, 2**32, len(pairs), dtype=np.uint32),
            progress=settings.progress,
        )

    def judge(self, decoders: Decoders, distances: bool = True) -> Outlines:
        """What every run draws on the test images.

        Args:
          distances: measure Hausdorff distances and circumferences too; else they are nan.
        """
        data, rows = self._read(self.test), np.arange(len(self.test))
        progress = self._settings.progress
        found = [
            self._compared(probability, batch, distances)
            for batch, probability in decoders.probabilities(data, rows, progress=progress)
        ]
        return self._outlines(found)

    def drawn(self, decoders: Decoders, rows: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n s s k"]:
        """What most of the runs draw on some test images."""
        found = decoders.probabilities(self._read(self.test), rows)
        return np.concatenate([(one >= _HALF).mean(0) >= _HALF for _, one in found])

    def baselines(self, splits: Sequence[Split], metrics: Container[str]) -> dict[str, Baseline]:
        """One mask for all images, one circumference, and the annotated outline measured alike.

        Args:
          splits: whose training images the constants are of.
          metrics: names of those that there are to compare with.
        """
        rows = np.unique(np.concatenate([self.rows(split)[0] for split in splits]))
        share = _mean_mask(self.fit, rows)
        batches = np.array_split(np.arange(len(self.test)), -(-len(self.test) // 32))
        one_mask, truth = (
            self._outlines([self._compared(shown(batch), batch, True) for batch in batches])
            for shown in (
                lambda batch: np.broadcast_to(share, (1, len(batch), *share.shape)),
                lambda batch: self.test.masks(batch)[None].astype(np.float32),
            )
        )
        constant = "one mask for all images: every pixel that most training images have"
        given = [
            (f"constant_mask_{name}", name, one_mask, constant)
            for name in ("dice", "image_dice", "hausdorff95_mm")
        ]
        if truth.hc_mm is not None:
            words = "the ellipse through the annotated outline, at this size of pixels"
            given.append(("annotation_hc_error_mm", "hc_absolute_error_mm", truth, words))
            known = self.fit.columns["hc_mm"][rows]
            if np.isfinite(known).any():
                always = float(np.nanmean(known))
                one = dataclasses.replace(truth, hc_mm=np.full_like(truth.hc_mm, always))
                words = f"always the mean circumference of the training images, {always:.0f} mm"
                given.append(("constant_hc_error_mm", "hc_absolute_error_mm", one, words))
        bootstrap, found = self.bootstrap(), {}
        for name, metric, drawn, words in given:
            measured = drawn.measures().get(metric)
            if measured is not None and metric in metrics:
                estimate = bootstrap.select(measured.rows).estimate(measured.measure)
                found[name] = Baseline(metric, estimate, words)
        return found

    def predictions(self, outlines: dict[str, Outlines]) -> Predictions:
        """The table of the last of `outlines`, and what every run drew, by key."""
        last, columns = list(outlines.values())[-1], self.test.columns
        drawn = last.predicted.mean(0) > 0
        return Predictions(
            example_id=columns["example_id"],
            patient_id=columns["patient_id"],
            label=self._named(last.true > 0),
            prediction=self._named(drawn),
            candidates=self.structures,
            extra=last.columns(),
            groups=group_columns(self.test),
            runs={key: one.kept() for key, one in outlines.items()},
        )

    def bootstrap(self) -> Bootstrap:
        settings = self._settings
        groups = self.test.bootstrap_groups(settings.resample_by)
        return Bootstrap(groups, settings.resamples, settings.seed)

    def _read(self, store: TokenStore):
        return store if self._settings.inputs == "tokens" else _ImageAlone(store)

    def _named(self, there: Bool[np.ndarray, "n k"]) -> np.ndarray:
        names = np.array(self.structures)
        return np.array([", ".join(names[row]) for row in there], np.str_)

    def _compared(self, probability: np.ndarray, rows: np.ndarray, distances: bool):
        """Numbers [runs, b, q] of some test images, in the order of `Outlines.kept`."""
        true = self.test.masks(rows)
        drawn = probability >= _HALF
        both, predicted, _ = segmentation.areas(drawn, np.broadcast_to(true, drawn.shape))
        spacing = self.test.columns["resized_spacing_mm"][rows]
        runs, images, structures = both.shape
        away = np.full(both.shape, np.nan)
        hc_mm = np.full((runs, images), np.nan)
        for run in range(runs if distances else 0):
            for k in range(structures):
                away[run, :, k] = segmentation.hausdorff95(
                    drawn[run, ..., k], true[..., k], spacing
                )
            if HEAD in self.structures:
                k = self.structures.index(HEAD)
                for i, shown in enumerate(self.test.pixels(rows)):
                    hc_mm[run, i] = segmentation.head_circumference_mm(
                        probability[run, i, ..., k].astype(np.float64),
                        float(spacing[i]),
                        segmentation.content(shown),
                    )
        return both, predicted, away, hc_mm

    def _outlines(self, batches) -> Outlines:
        both, predicted, away, hc_mm = (
            np.concatenate(parts, 1) for parts in zip(*batches, strict=True)
        )
        is_head = HEAD in self.structures
        return Outlines(
            self.structures,
            _areas(self.test),
            both.astype(np.float64),
            predicted.astype(np.float64),
            away,
            hc_mm if is_head else None,
            self.test.columns["hc_mm"].astype(np.float64) if is_head else None,
        )


class _ImageAlone:
    """Images whose tokens say nothing."""

    def __init__(self, store: TokenStore):
        self._store = store

    def batch(self, rows: Int[np.ndarray, "b"]) -> Dense:
        blank = np.zeros((len(rows), 4, 1, 1, 1), np.float16)
        return Dense(self._store.pixels(rows), blank, self._store.masks(rows))


def _areas(store: TokenStore) -> Int[np.ndarray, "n k"]:
    """Pixels of every mask."""
    starts = range(0, len(store), _ROWS_AT_ONCE)
    parts = [np.arange(start, min(start + _ROWS_AT_ONCE, len(store))) for start in starts]
    return np.concatenate([store.masks(part).sum((1, 2)) for part in parts])


def _mean_mask(store: TokenStore, rows: np.ndarray) -> np.ndarray:
    """The share of images that have each pixel, float32 [s, s, k]."""
    total = 0.0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        total = total + store.masks(rows[start : start + _ROWS_AT_ONCE]).sum(0)
    return (total / len(rows)).astype(np.float32)
