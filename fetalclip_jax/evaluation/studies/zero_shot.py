"""Zero-shot classification: images against averaged prompt embeddings.

The classes of the prompts compete. FETAL_PLANES_DB labels five of the nine planes of the paper; the
other four are distractors. Three brain planes, and any column with prompts of a user's own, are
judged the same way.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax.captions import prompts as prompt_files
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.class_features import embed_classes, similarity
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.classification import Classification
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS, Task
from fetalclip_jax.evaluation.study import AtSize, Need

# Planes of the paper that compete and are never the truth, whatever a data set labels.
DISTRACTORS = {"planes": ("kidney", "lips_nose", "profile_patient", "spine")}

PAPER = {"role": "all", "resample_by": "image"}


@dataclasses.dataclass(frozen=True)
class ZeroShotSettings(Settings):
    """Options of a zero-shot classification.

    Attributes:
      role: images that are judged, "test" or "all".
      prompts: a shipped set ("planes", "brain") or a JSON file {class: [prompts]}, whose classes
        are the candidates.
      distractors: candidates that compete and whose images are not judged.
      top_k: accuracies that are reported beside that of the first answer.
      batch_size: prompts per call of the text tower.
    """

    role: str = "test"
    prompts: str = ""
    distractors: tuple[str, ...] = ()
    top_k: tuple[int, ...] = (2, 3)
    batch_size: int = 256

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size < 1 or any(k < 2 for k in self.top_k):
            raise ValueError(
                f"batch_size={self.batch_size} must be at least 1 and top_k={self.top_k} at least 2"
            )


class ZeroShot:
    """Zero-shot classification of one column: "planes", "brain", or a column of the data set."""

    settings_type = ZeroShotSettings

    def __init__(self, task: str, **options):
        self.name, self.task = f"zero_shot.{task}", task
        own = {
            "prompts": task if task in prompt_files.SHIPPED else "",
            "distractors": DISTRACTORS.get(task, ()),
        }
        protocols = {"default": own, "paper": own | PAPER}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        if not self.settings.prompts:
            raise ValueError(
                f"{self.name} needs prompts: a JSON file of the classes of column {task!r}, "
                '{"class": ["a prompt", ...], ...}'
            )
        self.prompts = prompt_files.load_prompts(self.settings.prompts)
        self.needs = (Need("images", self.settings.role, columns=(COLUMNS.get(task, task),)),)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Judges the clean images of `stores["images"]`; see `evaluation.study.Study`."""
        settings = self.settings
        store = stores["images"]
        store.check_model(model.fingerprint)
        store = store.clean()
        found, task = classify(store, model, self.task, self.prompts, settings)
        return Result(
            study=self.name,
            metrics=found.metrics(settings.top_k),
            protocol=settings.to_json(),
            baselines=found.baselines(),
            details=found.details()
            | {
                "resample_by": settings.resample_by,
                "left_out": task.left_out(store),
                "scores": "100 x cosine of the image and the mean of a class's prompts",
                "logit_scale": model.logit_scale,
            },
            predictions=found.table(),
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        return Answers.of(predictions).measures()

    @staticmethod
    def at(predictions: Predictions, size: str) -> AtSize:
        """The macro F1 of models trained on so many patients; see `evaluation.study.Study`."""
        answers = Answers.of(predictions, size)
        return AtSize(answers.macro_f1(), answers.run_macro_f1())


def classify(
    store: FeatureStore,
    model,
    task: str,
    prompts: Mapping[str, Sequence[str]],
    settings: ZeroShotSettings,
) -> tuple[Classification, Task]:
    """Answers to the images of a store whose label is among the classes of the prompts.

    Raises:
      ValueError: no image has such a label, prompts that say the same of two classes, or features
        that are not finite.
    """
    candidates = tuple(prompts)
    judged = tuple(name for name in candidates if name not in settings.distractors)
    task = Task(task, COLUMNS.get(task, task), judged)
    rows, labels = task.select(store, candidates)
    images = store.select(rows)
    require_finite("the image features", images.image_features, images.columns["example_id"])
    classes = embed_classes(model, prompts, batch_size=settings.batch_size)
    bootstrap = Bootstrap(
        images.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
    )
    scores = np.asarray(similarity(images.image_features, classes))[None]  # runs n c
    return Classification(scores, labels, candidates, images, bootstrap), task
