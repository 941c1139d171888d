"""Heads that learn next to nothing: the nearest centroid, and the nearest neighbours."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.heads import knn
from fetalclip_jax.evaluation.heads.centroid import Centroids
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import metrics, splits
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies import probe
from fetalclip_jax.evaluation.studies.probe_data import INPUTS, ProbeData
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS
from fetalclip_jax.evaluation.study import TRANSFORMS, Need

PROTOCOLS = {"tuned": {}, "paper": {"resample_by": "image", "transform": "opencv"}}


@dataclasses.dataclass(frozen=True)
class NearestSettings(Settings):
    """Options of a head that compares features.

    Attributes:
      transform: how images are made, see `evaluation.study.TRANSFORMS`.
      top_k: accuracies that are reported beside that of the first answer.
    """

    transform: str = "clip"
    top_k: tuple[int, ...] = (2,)

    def __post_init__(self):
        super().__post_init__()
        if self.transform not in TRANSFORMS:
            raise ValueError(f"transform={self.transform!r} is not one of {', '.join(TRANSFORMS)}")
        if any(k < 2 for k in self.top_k):
            raise ValueError(f"top_k={self.top_k} must be at least 2")


@dataclasses.dataclass(frozen=True)
class CentroidSettings(NearestSettings):
    """Options of the nearest centroid.

    Attributes:
      feature_scaling: "unit" (length one) or "none".
    """

    feature_scaling: str = "unit"

    def __post_init__(self):
        super().__post_init__()
        if self.feature_scaling not in ("none", "unit"):
            raise ValueError(f"feature_scaling={self.feature_scaling!r} is not one of none, unit")


@dataclasses.dataclass(frozen=True)
class NeighbourSettings(NearestSettings):
    """Options of nearest neighbours, which are near by cosine.

    Attributes:
      ks: numbers of neighbours; of several, the folds choose by the macro F1 of held-out patients
        among those that there are images enough for.
      temperature: of votes weighted by exp(cosine / temperature); 0 for equal votes.
      folds: of the patients to learn from.
    """

    ks: tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    temperature: float = 0.0
    folds: int = 5

    def __post_init__(self):
        super().__post_init__()
        if not self.ks or min(self.ks) < 1 or self.temperature < 0 or self.folds < 2:
            raise ValueError(
                f"ks={self.ks} must be numbers from 1, temperature={self.temperature:g} at least 0 "
                f"and folds={self.folds} at least 2"
            )

    @property
    def feature_scaling(self) -> str:
        """A cosine knows no length."""
        return "unit"


class _Nearest(abc.ABC):
    """What both have in common; of each the features are held against raw pixels."""

    family: str

    def __init__(self, task: str, **options):
        self.name, self.task = f"{self.family}.{task}", task
        self.settings = resolve(self.name, self.settings_type, PROTOCOLS, options)
        shared = {
            "columns": (COLUMNS.get(task, task),),
            "transform": self.settings.transform,
        }
        self.needs = tuple(Need(role, role, **shared) for role in ("fit", "test"))

    @abc.abstractmethod
    def _scores(self, data: ProbeData) -> tuple[Float[np.ndarray, "n c"], dict[str, Any]]:
        """Of the test images, and details."""

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Learns from `stores["fit"]`, is tested on `stores["test"]`; see `study.Study`."""
        settings = self.settings
        stores["fit"].check_model(model.fingerprint)
        judged, said = {}, {}
        for inputs in INPUTS:
            fit, test = (stores[role].clean() for role in ("fit", "test"))
            data = ProbeData(fit, test, self.task, settings, inputs)
            scores, said[inputs] = self._scores(data)
            judged[inputs] = data.classified(scores[None])
        found = judged["features"]
        measured = {
            inputs: probe.measures(one.answers, self.task, settings.top_k)
            for inputs, one in judged.items()
        }
        raw = Baseline(
            "macro_f1",
            data.bootstrap().estimate(measured["raw_pixels"]["macro_f1"].measure),
            "the same on 16 x 16 raw pixels",
        )
        absent = [
            name for place, name in enumerate(data.task.classes) if not (data.labels == place).any()
        ]
        notes = [f"no image to learn from, so never answered: {', '.join(absent)}"] * bool(absent)
        return Result(
            study=self.name,
            metrics=data.bootstrap().estimates(measured["features"]),
            protocol=settings.to_json(),
            baselines=found.baselines() | {"raw_pixels_macro_f1": raw},
            details=found.details()
            | {
                "train_images": len(data.labels),
                "train_patients": len(np.unique(data.owners)),
                "resample_by": settings.resample_by,
                "left_out": data.left_out,
            }
            | said["features"]
            | ({"notes": notes} if notes else {}),
            predictions=found.table(),
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        return probe.measures(Answers.of(predictions), task)


class NearestCentroid(_Nearest):
    """The class whose mean feature is nearest: "planes", "brain", or a column of the data set."""

    settings_type = CentroidSettings
    family = "nearest_centroid"

    def _scores(self, data):
        centroids = Centroids.fit(data.features, data.labels, len(data.task.classes))
        return centroids.scores(data.test_features), {"scores": "minus the distance to the mean"}


class Neighbours(_Nearest):
    """The vote of the nearest images: "planes", "brain", or a column of the data set."""

    settings_type = NeighbourSettings
    family = "knn"

    def _scores(self, data):
        settings, size = self.settings, len(data.task.classes)
        k, details = settings.ks[0], {}
        if len(settings.ks) > 1:
            k, details = self._chosen(data)
        found = knn.find(data.test_features, data.features, data.labels, k)
        return found.votes(size, k, settings.temperature), {
            "neighbours": k,
            "scores": "share of the neighbours' votes",
        } | details

    def _chosen(self, data):
        """The number of neighbours that serves patients best who are held out."""
        settings, size = self.settings, len(data.task.classes)
        folds = _fold_of(data, settings)
        most = len(folds) - np.bincount(folds).max()
        ks = [k for k in settings.ks if k <= most] or [min(settings.ks)]
        held_out = knn.find(
            data.features, data.features, data.labels, max(ks),
            query_folds=folds, gallery_folds=folds,
        )  # fmt: skip
        scores = [
            metrics.macro_f1(
                data.labels, held_out.votes(size, k, settings.temperature).argmax(1), size
            )
            for k in ks
        ]
        tried = {str(k): float(value) for k, value in zip(ks, scores, strict=True)}
        return ks[int(np.argmax(scores))], {"macro_f1_of_held_out_patients": tried}


def _fold_of(data: ProbeData, settings: NeighbourSettings) -> Int[np.ndarray, "n"]:
    """The fold of each image to learn from."""
    found = np.empty(len(data.owners), np.int64)
    for fold, (_, held_out) in enumerate(
        splits.folds_by_patient(data.owners, settings.folds, settings.seed)
    ):
        found[np.isin(data.owners, held_out)] = fold
    return found
