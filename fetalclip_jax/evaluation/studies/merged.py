"""The paper's merged table: five planes and three brain planes as eight classes.

Each class keeps the F1 of its own task (nine and three candidates); the mean is over all eight, so
that FetalCLIP's published 87.1 is (5 x 97.27 + 3 x 70.15) / 8.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from fetalclip_jax.captions import prompts as prompt_files
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import metrics
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
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
        estimate = bootstrap.estimate(joint.macro_f1(), joint.weighted_macro_f1)
        table = joint.table()
        return Result(
            study=self.name,
            metrics={
                "macro_f1": estimate,
                "planes_macro_f1": parts["planes"].macro_f1(),
                "brain_macro_f1": parts["brain"].macro_f1(),
            },
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
            predictions=joint.predictions(),
        )


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

    def macro_f1(self) -> float:
        return float(np.concatenate([self._f1(part) for part in self.parts.values()]).mean())

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

    def weighted_macro_f1(self, weights: np.ndarray) -> np.ndarray:
        total, classes = 0.0, 0.0
        for name, part in self.parts.items():
            f1, present = metrics.weighted_f1_per_class(
                weights[:, self.rows[name]], part.labels, part.predictions, len(part.candidates)
            )
            total = total + (f1[:, 0] * present).sum(-1)
            classes = classes + present.sum(-1)
        return total / classes

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
        )

    def _f1(self, part):
        f1 = metrics.f1_per_class(part.labels, part.predictions[0], len(part.candidates))
        return f1[np.unique(part.labels)]

    def _texts(self, name):
        part, rows = self.parts[name], self.rows[name]
        names = np.array(part.candidates, np.str_)
        columns = []
        for classes in (part.labels, part.predictions[0]):
            text = np.full(len(self.images), "", names.dtype)
            text[rows] = names[classes]
            columns.append(text)
        return columns
