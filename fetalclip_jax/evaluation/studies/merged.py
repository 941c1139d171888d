"""The paper's merged table: five planes and three brain planes as eight classes.

Each class keeps the F1 of its own task (nine and three candidates); the mean is over all eight, so
that FetalCLIP's published 87.1 is (5 x 97.27 + 3 x 70.15) / 8.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from fetalclip_jax.captions import prompts as prompt_files
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure, metrics
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measured, OfSums
from fetalclip_jax.evaluation.studies.classification import Classification
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS
from fetalclip_jax.evaluation.studies.zero_shot import (
    DISTRACTORS,
    PAPER,
    ZeroShotSettings,
    classify,
)
from fetalclip_jax.evaluation.study import Need


@dataclasses.dataclass(frozen=True)
class MergedSettings(Settings):
    """Options of the merged table.

    Attributes:
      role: images that are judged, "test" or "all".
      prompts: of the planes; see `ZeroShotSettings`.
      brain_prompts: of the brain planes.
      distractors: planes that compete and whose images are not judged.
      batch_size: prompts per call of the text tower.
    """

    role: str = "test"
    prompts: str = "planes"
    brain_prompts: str = "brain"
    distractors: tuple[str, ...] = DISTRACTORS["planes"]
    batch_size: int = 256


class Merged:
    """Zero-shot classification of planes and brain planes, averaged over all their classes."""

    settings_type = MergedSettings

    name = "zero_shot.merged"

    def __init__(self, **options):
        protocols = {"default": {}, "paper": PAPER}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        self.prompts = {
            "planes": prompt_files.load_prompts(self.settings.prompts),
            "brain": prompt_files.load_prompts(self.settings.brain_prompts),
        }
        self.needs = (Need("images", self.settings.role, columns=tuple(COLUMNS.values())),)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Judges the clean images of `stores["images"]`; see `evaluation.study.Study`."""
        settings = self.settings
        store = stores["images"]
        store.check_model(model.fingerprint)
        store = store.clean()
        parts, left_out = {}, {}
        for name, prompts in self.prompts.items():
            options = ZeroShotSettings(
                resample_by=settings.resample_by,
                resamples=settings.resamples,
                seed=settings.seed,
                distractors=settings.distractors if name == "planes" else (),
                batch_size=settings.batch_size,
            )
            parts[name], task = classify(store, model, name, prompts, options)
            left_out[name] = task.left_out(store)
        joint = _Joint(store, parts)
        bootstrap = Bootstrap(
            joint.images.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        predictions, table = joint.predictions(), joint.table()
        found = self.measures(predictions)
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(found),
            protocol=settings.to_json(),
            baselines={
                "chance_macro_f1": Baseline(
                    "macro_f1",
                    bootstrap.constant(joint.chance_macro_f1()),
                    "a uniform guess among the candidates of each task",
                )
            },
            details={
                "table": table,
                "per_class_f1": {row["class"]: row["f1"] for row in table},
                "count": len(joint.images),
                "patients": len(np.unique(joint.images.patients())),
                "resample_by": settings.resample_by,
                "left_out": left_out,
            },
            predictions=predictions,
        )

    @staticmethod
    def measures(predictions: Predictions) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        columns = {
            "planes": (predictions.label, predictions.prediction),
            "brain": (predictions.extra["brain_label"], predictions.extra["brain_prediction"]),
        }
        parts = {
            name: (np.flatnonzero(label != ""), _indexed(label, answer))
            for name, (label, answer) in columns.items()
        }
        both = np.arange(len(predictions.example_id))
        found = {"macro_f1": Measured(_merged(parts, len(both)), both)}
        for name, (rows, (labels, answers, classes)) in parts.items():
            one = measure.macro_f1(labels[rows], answers[None, rows], classes)
            found[f"{name}_macro_f1"] = Measured(one, rows)
        return found


def _indexed(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels and answers as indices of their names, -1 for none, and how many names there are."""
    names = sorted(set(np.concatenate(columns).tolist()) - {""})
    index = {name: i for i, name in enumerate(names)} | {"": -1}
    return *(np.array([index[one] for one in column.tolist()]) for column in columns), len(names)


def _merged(parts, images: int) -> OfSums:
    """The mean F1 over the classes of all parts, over the images of any."""
    measures = []
    for rows, (labels, answers, classes) in parts.values():
        one = measure.f1_per_class(labels[rows], answers[None, rows], classes)
        spread = np.zeros((images, one.parts.shape[1]))
        spread[rows] = one.parts  # images that a part does not judge add nothing to it
        measures.append((measure.OfSums(spread, one.of_sums), classes))

    def of_sums(sums):
        total, present, start = 0.0, 0.0, 0
        for one, classes in measures:
            own = sums[..., start : start + one.parts.shape[1]]
            here = own[..., :classes] > 0
            total = total + (one.of_sums(own)[..., 0, :] * here).sum(-1)
            present = present + here.sum(-1)
            start += one.parts.shape[1]
        return total / present

    return OfSums(np.concatenate([one.parts for one, _ in measures], 1), of_sums)


class _Joint:
    """Two classifications of overlapping images, over the images of either."""

    def __init__(self, store: FeatureStore, parts: dict[str, Classification]):
        self.parts = parts
        ids = store.columns["example_id"]
        judged = {
            name: np.isin(ids, part.store.columns["example_id"]) for name, part in parts.items()
        }
        either = np.logical_or.reduce(list(judged.values()))
        self.images = store.select(either)
        # Rows of each part among the images of either.
        self.rows = {name: np.flatnonzero(mask[either]) for name, mask in judged.items()}

    def chance_macro_f1(self) -> float:
        """Each task's chance, weighted by its classes."""
        chance = [
            (
                len(np.unique(part.labels)),
                metrics.chance_macro_f1(part.labels, len(part.candidates)),
            )
            for part in self.parts.values()
        ]
        return sum(n * value for n, value in chance) / sum(n for n, _ in chance)

    def table(self) -> list[dict]:
        """One row per class: its task, F1, recall and number of images."""
        return [
            {
                "class": name,
                "task": task,
                "f1": f1,
                "recall": details["per_class_recall"][name],
                "count": int((part.labels == part.candidates.index(name)).sum()),
            }
            for task, part in self.parts.items()
            for details in [part.details()]
            for name, f1 in details["per_class_f1"].items()
        ]

    def predictions(self) -> Predictions:
        """The planes' answers, and those of the brain planes; "" where an image is not judged."""
        planes, brain = (self._texts(name) for name in ("planes", "brain"))
        return Predictions(
            example_id=self.images.columns["example_id"],
            patient_id=self.images.columns["patient_id"],
            label=planes[0],
            prediction=planes[1],
            extra={"brain_label": brain[0], "brain_prediction": brain[1]},
            groups=group_columns(self.images),
        )

    def _texts(self, name):
        part, rows = self.parts[name], self.rows[name]
        names = np.array(part.candidates, np.str_)
        columns = []
        for classes in (part.labels, part.answers.predictions[0]):
            text = np.full(len(self.images), "", names.dtype)
            text[rows] = names[classes]
            columns.append(text)
        return columns
