"""Zero-shot classification: images against averaged prompt embeddings.

The classes of the prompts compete. FETAL_PLANES_DB labels five of the nine planes of the paper; the
other four are distractors. Three brain planes, and any column with prompts of a user's own, are
judged the same way.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fetalclip_jax.captions import prompts as prompt_files
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.classification import Classification
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS, Task
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.evaluation.text_features import encode_tokens
from fetalclip_jax.models.clip import unit_length

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


@jax.jit
def similarity(
    image_features: Float[Array, "n d"], class_features: Float[Array, "classes d"]
) -> Float[Array, "n classes"]:
    """100 x cosine of each image with each class.

    Args:
      image_features: projected, normalised here.
      class_features: of length one, as `embed_classes` makes them.
    """
    return 100.0 * jnp.einsum(
        "nd,cd->nc",
        unit_length(image_features),
        class_features,
        precision=jax.lax.Precision.HIGHEST,
    )


def embed_classes(
    model, prompts: Mapping[str, Sequence[str]], *, batch_size: int = 256
) -> Float[np.ndarray, "classes d"]:
    """The embedding of every class: the normalised mean of its normalised prompt embeddings.

    Args:
      model: anything with `tokenize` and `encode_text`.
      prompts: texts by class name; each class has at least one.
      batch_size: prompts per call of the text tower.

    Raises:
      ValueError: two classes whose prompts are the same to the model.
    """
    counts = np.array([len(texts) for texts in prompts.values()])
    tokens = np.asarray(model.tokenize([text for texts in prompts.values() for text in texts]))
    parts = np.split(tokens, np.cumsum(counts)[:-1])
    _check_told_apart(dict(zip(prompts, parts, strict=True)))
    encoded = encode_tokens(model, tokens, batch_size=batch_size)
    # Classes with fewer prompts than others are padded.
    exists = np.arange(counts.max()) < counts[:, None]
    features = np.zeros((*exists.shape, encoded.shape[-1]), np.float32)
    features[exists] = encoded
    return np.asarray(_mean_direction(features, exists))


@jax.jit
def _mean_direction(
    prompts: Float[Array, "classes prompts d"], exists: Bool[Array, "classes prompts"]
) -> Float[Array, "classes d"]:
    flat = unit_length(prompts.reshape(-1, prompts.shape[-1])).reshape(prompts.shape)
    # The mean needs no division: the sum points the same way.
    return unit_length((flat * exists[..., None]).sum(axis=1))


def _check_told_apart(tokens: dict[str, Int[np.ndarray, "prompts context"]]) -> None:
    """Refuses two classes of which every prompt is the same, once cut to the context."""
    first: dict[tuple, str] = {}
    for name, rows in tokens.items():
        key = tuple(sorted(row.tobytes() for row in rows))
        if key in first:
            raise ValueError(
                f"the prompts of {first[key]!r} and {name!r} are the same within the "
                f"{rows.shape[1]} tokens that the model reads: no answer tells them apart; say "
                "what differs earlier in the prompt"
            )
        first[key] = name
