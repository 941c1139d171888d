"""The linear-probe study: folds by patient, tested on a fixed set of other patients."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.heads.linear import LinearProbes
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics import official, splits
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.probe_data import ProbeData
from fetalclip_jax.evaluation.studies.probe_settings import (
    HeadSettings,
    LinearHeadSettings,
    check_used,
)
from fetalclip_jax.evaluation.studies.settings import resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS
from fetalclip_jax.evaluation.study import AtSize, Need
from fetalclip_jax.labels import OTHER

# The published head on the published images: features as they are, one learning rate.
PAPER_HEAD = {
    "resample_by": "image",
    "transform": "opencv",
    "solver": "adamw",
    "feature_scaling": "none",
    "runs": 5,
}


@dataclasses.dataclass(frozen=True)
class ProbeSettings(HeadSettings):
    """Options of a linear probe.

    Attributes:
      folds: of the patients to learn from, where no official files give them.
    """

    folds: int = 5


PROTOCOLS = {"tuned": {}, "paper": PAPER_HEAD | {"copies": 5}}


class Probe:
    """A linear probe of one column: "planes", "brain", or a column of the data set."""

    settings_type = ProbeSettings

    inputs = "features"

    def __init__(self, task: str, **options):
        self._prepare(f"probe.{task}", task, options)

    def _prepare(self, name: str, task: str, options: Mapping[str, Any]) -> None:
        self.name, self.task = name, task
        self.settings = resolve(name, self.settings_type, PROTOCOLS, options)
        check_used(name, self.settings, options)
        self.needs = needs(self.task, self.settings)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Learns from `stores["fit"]`, is tested on `stores["test"]`; see `study.Study`."""
        settings = self.settings
        stores["fit"].check_model(model.fingerprint)
        data = ProbeData(stores["fit"], stores["test"], self.task, settings, self.inputs)
        folds, said = self._folds(data)
        probes = data.fit(folds)
        found = data.judge(probes)
        run_f1 = found.answers.run_macro_f1()
        redraws = self._redraws(data, folds)
        learnt_from = np.unique(np.concatenate([part for fold in folds for part in fold]))
        return Result(
            study=self.name,
            metrics=data.bootstrap().estimates(
                measures(found.answers, self.task, settings.top_k),
                {
                    name: [Spread.of_redraws(values, settings.copies)]
                    for name, values in redraws.items()
                },
            ),
            protocol=settings.effective(),
            baselines=found.baselines(),
            details=found.details()
            | {
                "macro_f1_deviation_over_runs": deviation(run_f1),
                "runs": len(run_f1),
                "folds": len(folds),
                "run_macro_f1": run_f1.tolist(),
                "redraws": redraws,
                "inputs": self.inputs,
                "feature_scaling": settings.feature_scaling,
                "train_patients": int(np.isin(np.unique(data.owners), learnt_from).sum()),
                "resample_by": settings.resample_by,
                "left_out": data.left_out,
                "scores": "mean probability over the runs",
            }
            | head_details(probes, settings)
            | self._unsaid()
            | said,
            predictions=found.table(),
            validation=data.out_of_fold(folds, probes),
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        return measures(Answers.of(predictions), task)

    @staticmethod
    def at(predictions: Predictions, size: str) -> AtSize:
        """The macro F1 of models trained on so many patients; see `evaluation.study.Study`."""
        answers = Answers.of(predictions, size)
        return AtSize(answers.macro_f1(), answers.run_macro_f1())

    def _unsaid(self) -> dict[str, list[str]]:
        """What the intervals do not hold."""
        if self.settings.copies != 1:
            return {}
        note = "intervals lack the chance of the augmented copies: one copy an image shows none"
        return {"notes": [note]}

    def _redraws(self, data: ProbeData, folds: list[splits.Split]) -> dict[str, list[float]]:
        """Every measure after training on other augmented copies; empty where there are none."""
        settings = self.settings
        # Of one copy an image, drawing with replacement draws nothing else.
        if not (settings.copies > 1 and settings.redraws and settings.resamples > 1):
            return {}
        found: dict[str, list[float]] = {}
        for answers in data.redrawn(folds, settings.redraws):
            for name, one in measures(answers, self.task, settings.top_k).items():
                found.setdefault(name, []).append(one.measure.value)
        return found

    def _folds(self, data: ProbeData) -> tuple[list[splits.Split], dict[str, Any]]:
        settings = self.settings
        if not settings.splits:
            return splits.folds_by_patient(data.owners, settings.folds, settings.seed), {}
        path, test_path = official.find(settings.splits, "probing", self.task)
        folds, tested = splits.read_folds(path), official.test_ids(test_path)
        listed = np.unique(np.concatenate([part for fold in folds for part in fold]))
        return folds, take_lists(data, path, listed, tested)


class RawPixels(Probe):
    """The six planes from 16 x 16 thumbnails: what a probe of features has to beat."""

    inputs = "raw_pixels"

    def __init__(self, **options):
        self._prepare("probe.raw_pixels", "planes", options)

    @staticmethod
    def measures(predictions: Predictions, task: str = "planes") -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        return measures(Answers.of(predictions), task)


def needs(task: str, settings: HeadSettings) -> tuple[Need, Need]:
    """The stores of a probe: patients to learn from, and those of the test."""
    shared = {"columns": (COLUMNS.get(task, task),), "transform": settings.transform}
    return (
        Need("fit", "fit", copies=settings.copies, **shared),
        Need("test", "test", **shared),
    )


def take_lists(
    data: ProbeData,
    path: storage.Path,
    listed: np.ndarray,
    tested: np.ndarray | None,
    *,
    sampled: bool = False,
) -> dict[str, Any]:
    """Tests the listed patients only; what the lists and the data do not share, as details.

    Args:
      path: of the lists.
      listed: patients to learn from.
      tested: patients to test; None tests those of the data.
      sampled: the lists are draws among more patients, so that others are no surprise.

    Raises:
      ValueError: lists that do not go with the data, see `official.check`.
    """
    official.check(path, listed, tested, data.patients)
    # Patients without an image of the task are missed by no list of it.
    ours = official.Patients(
        listed if sampled else np.unique(data.owners), np.unique(data.test.patients())
    )
    details = {
        "lacking": official.lacking(listed, tested, data.patients, data.owners),
        "unlisted": official.unlisted(listed, tested, ours),
    }
    if tested is not None:
        data.keep_test(tested)
    return details


def head_details(probes: LinearProbes, settings: LinearHeadSettings) -> dict[str, Any]:
    """What the validation patients chose."""
    if settings.solver == "adamw":
        return {
            "learning_rates_chosen": {
                f"{rate:g}": int((probes.learning_rate == rate).sum())
                for rate in settings.learning_rates
            },
            "median_best_epoch": float(np.median(probes.best_epoch)),
        }
    chosen, times = np.unique(probes.penalty, return_counts=True)
    return {
        "penalties_chosen": {f"{one:g}": int(n) for one, n in zip(chosen, times, strict=True)},
        # Names that readers of results know; there are no rates and epochs here.
        "learning_rates_chosen": {},
        "median_best_epoch": None,
    }


def deviation(values: np.ndarray) -> float | None:
    """Standard deviation over runs; None of a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def measures(
    answers: Answers, task: str, top_k: tuple[int, ...] | None = None
) -> dict[str, Measured]:
    """Those of the answers, and the macro F1 on the images that zero-shot judges."""
    found = answers.measures(top_k)
    if task == "planes" and OTHER in answers.candidates:
        rows = np.flatnonzero(answers.labels != answers.candidates.index(OTHER))
        if len(rows):
            found["standard_planes_macro_f1"] = Measured(answers.select(rows).macro_f1(), rows)
    return found
