"""Segmentation: decoders on frozen tokens, in folds by patient, tested on a fixed set of others."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import outlines, overlays
from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.heads.unetr import Decoders
from fetalclip_jax.evaluation.outlines import Outlines
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics import image_lists, splits
from fetalclip_jax.evaluation.statistics.image_lists import Lists
from fetalclip_jax.evaluation.statistics.intervals import Spread, variance
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies import mask_judge
from fetalclip_jax.evaluation.studies.mask_data import MaskData, needs
from fetalclip_jax.evaluation.studies.mask_settings import PAPER, MaskSettings
from fetalclip_jax.evaluation.studies.settings import resolve
from fetalclip_jax.labels import structures


@dataclasses.dataclass(frozen=True)
class SegmentationSettings(MaskSettings):
    """Options of segmentation.

    Attributes:
      folds: of the patients to learn from, where no lists give them.
      folds_run: how many of the folds are trained on and tested; the first ones.
    """

    folds: int = 5
    folds_run: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.folds < 2 or self.folds_run < 1:
            raise ValueError(
                f"folds={self.folds} must be at least 2 and folds_run={self.folds_run} at least 1"
            )


PAPER_OF_FOLDS = PAPER | {"copies": 5, "folds_run": 5}
# Small structures take longer: 500 steps in place of 200.
_OF_SEVERAL = {"epochs": 20}


class Segmentation:
    """Decoders of one task: "head", "abdomen", "four_chamber", or any outlined structure."""

    settings_type = SegmentationSettings

    def __init__(self, task: str, **options):
        self.name, self.task = f"segmentation.{task}", task
        tuned = _OF_SEVERAL if len(structures(task)) > 1 else {}
        protocols = {"tuned": tuned, "paper": PAPER_OF_FOLDS}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        self.scores = outlines.scores(task)
        self.needs = needs(task, self.settings)

    def run(self, stores: Mapping[str, TokenStore], model) -> Result:
        """Learns from `stores["fit"]`, is tested on `stores["test"]`; see `study.Study`."""
        settings = self.settings
        lists = None
        if settings.splits:
            lists = image_lists.read(settings.splits, "probing", settings.variant)
        data = MaskData(stores, model, settings, lists)
        folds = self._folds(data, lists)
        decoders = data.fit_decoders(folds)
        found = mask_judge.judge(data, decoders)
        measured = found.measures()
        by_run = run_values(found)
        return Result(
            study=self.name,
            metrics=data.bootstrap().estimates(measured, spreads(by_run)),
            protocol=settings.effective(),
            baselines=mask_judge.baselines(data, folds, measured),
            details=about(data, found)
            | {
                "runs": len(decoders),
                "folds": len(folds),
                "run_values": by_run,
                "median_best_epoch": float(np.median(decoders.best_epoch)),
                "train_images": int(np.mean([len(data.rows(fold)[0]) for fold in folds])),
            },
            predictions=mask_judge.predictions(data, {"": found}),
            pictures=pictures(data, found, decoders),
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> Mapping[str, Measured]:
        """See `evaluation.study.Study`."""
        del task  # the structures are in the predictions
        return outlines.of_result(predictions)

    def _folds(self, data: MaskData, lists: Lists | None) -> list[splits.Split]:
        """Those that are run.

        Raises:
          ValueError: one in which no image shows a structure.
        """
        settings = self.settings
        if lists is None:
            folds = splits.folds_by_patient(data.pool, settings.folds, settings.seed)
        else:
            folds = list(lists.folds)
        folds = folds[: settings.folds_run]
        for number, fold in enumerate(folds):
            if unseen := data.unseen(fold):
                where = f"{lists.path}: " if lists is not None else ""
                raise ValueError(
                    f"{where}fold {number}: no {unseen[0]}; choose fewer folds or another seed, or "
                    "a study of the other structures"
                )
        return folds


def run_values(found: Outlines) -> dict[str, list[float]]:
    """Every metric of each run; empty of a single one."""
    runs = len(found.predicted)
    if runs < 2:
        return {}
    values: dict[str, list[float]] = {}
    for run in range(runs):
        for name, one in found.of_run(run).measures().items():
            values.setdefault(name, []).append(one.measure.value)
    return {name: own for name, own in values.items() if len(own) == runs}


def spreads(values: Mapping[str, list[float]]) -> dict[str, list[Spread]]:
    """The chance of training: of the mean over the runs, by metric."""
    return {name: [Spread(variance(own) / len(own), len(own) - 1)] for name, own in values.items()}


def about(data: MaskData, found: Outlines) -> dict[str, Any]:
    """What every result of segmentation says."""
    annotation = mask_judge.annotation_error(data)
    notes = []
    if annotation:
        notes.append(
            f"ellipses through the annotated outlines themselves, at this size of pixels, are "
            f"{annotation['mae_mm']:.1f} mm off, on average {annotation['bias_mm']:+.1f} mm"
        )
    counts = found.undefined(data.test.columns["resized_spacing_mm"])
    undefined = {f"{reason} (images x runs)": n for reason, n in counts.items()}
    return data.said | {
        "structures": list(data.structures),
        "count": len(data.test),
        "patients": len(np.unique(data.test.patients())),
        "pixels": int(data.test.images.pixels.shape[1]),
        "taps": list(data.fit.taps),
        "sizes_count": data.unit,
        "annotation_hc_error": annotation,
        "notes": data.said["notes"] + notes,
        "lacking": data.said["lacking"] | undefined,
        "scores": "pixels of at least probability 0.5, at the model's size of pixels",
    }


def pictures(data: MaskData, found: Outlines, decoders: Decoders) -> list[Picture]:
    """The best, the median and the worst image by its Dice, all structures and runs together."""
    rows, dice = overlays.chosen(found.image_dice)
    return [
        overlays.picture(
            data.test.pixels(rows),
            data.test.masks(rows),
            mask_judge.drawn(data, decoders, rows),
            data.structures,
            dice,
            data.test.columns["example_id"][rows].tolist(),
        )
    ]
