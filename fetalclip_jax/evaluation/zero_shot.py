"""Zero-shot classification of planes: images against averaged prompt embeddings.

FETAL_PLANES_DB labels five of the nine candidate planes; the other four are distractors. Three
brain sub-planes are judged the same way.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fetalclip_jax.evaluation import metrics
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.tasks import ZERO_SHOT_TASKS, find_task
from fetalclip_jax.evaluation.text_features import encode_texts


def unit(features: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Features of length one; a zero vector stays zero."""
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


@jax.jit
def classify(
    image_features: Float[Array, "n d"],
    prompt_features: Float[Array, "classes prompts d"],
    prompt_exists: Bool[Array, "classes prompts"] | None = None,
) -> Float[Array, "n classes"]:
    """Scores 100 x cosine of each image with each class.

    The embedding of a class is the normalised mean of its normalised prompt embeddings.

    Args:
      image_features: projected, normalised here.
      prompt_features: projected, normalised here.
      prompt_exists: False marks padding of classes with fewer prompts.
    """
    prompts = unit(prompt_features)
    if prompt_exists is not None:
        prompts = prompts * prompt_exists[..., None]
    # The mean needs no division: the sum points the same way.
    classes = unit(prompts.sum(axis=1))
    product = jnp.einsum(
        "nd,cd->nc", unit(image_features), classes, precision=jax.lax.Precision.HIGHEST
    )
    return 100.0 * product


def encode_prompts(
    model, prompts: Mapping[str, Sequence[str]], candidates: Sequence[str], *, batch_size: int = 256
) -> tuple[Float[np.ndarray, "classes prompts d"], Bool[np.ndarray, "classes prompts"]]:
    """Features of every candidate's prompts, padded to the same number, and which exist.

    Raises:
      ValueError: if a candidate has no prompt.
    """
    missing = [name for name in candidates if not prompts.get(name)]
    if missing:
        raise ValueError(f"no prompt for {missing}; the prompts name {sorted(prompts)}")
    counts = np.array([len(prompts[name]) for name in candidates])
    encoded = encode_texts(
        model, [text for name in candidates for text in prompts[name]], batch_size=batch_size
    )
    exists = np.arange(counts.max()) < counts[:, None]
    features = np.zeros((*exists.shape, encoded.shape[-1]), np.float32)
    features[exists] = encoded
    return features, exists


def evaluate(
    store: FeatureStore,
    model,
    prompts: Mapping[str, Sequence[str]],
    task: str = "planes",
    *,
    batch_size: int = 256,
    resample_by: str = "patient",
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Judge a model's zero-shot answers on the clean images of a store.

    Args:
      store: features of the images; must have been encoded by `model`.
      model: the loaded model, for the prompts.
      prompts: texts by class name.
      task: "planes" (nine candidates, five labels) or "brain" (three sub-planes).
      batch_size: texts per call of the text tower.
      resample_by: "patient", or "image" to match the paper.
      resamples: bootstrap samples.
      seed: of the bootstrap.

    Returns:
      A JSON-able dict. `confusion` has a row per entry of `labels` (the classes that are judged)
      and a column per entry of `classes` (all candidates). `predictions` holds one row per image.

    Raises:
      ValueError: for another model's store, missing labels, missing prompts or unknown names.
    """
    task = find_task(ZERO_SHOT_TASKS, task)
    store.check_model(model.fingerprint)
    store = store.clean()
    rows, labels = task.select(store)
    store = store.select(rows)
    features, exists = encode_prompts(model, prompts, task.candidates, batch_size=batch_size)
    scores = np.asarray(classify(store.image_features, features, exists))
    predictions = scores.argmax(1)
    groups = store.bootstrap_groups(resample_by)
    size = len(task.candidates)

    def interval(statistic):
        return list(metrics.bootstrap_interval(statistic, groups, resamples=resamples, seed=seed))

    hits = {k: metrics.top_k_hits(scores, labels, k) for k in (1, 2, 3)}
    names = [name for i, name in enumerate(task.candidates) if (labels == i).any()]
    present = [task.candidates.index(name) for name in names]
    result = {
        "macro_f1": metrics.macro_f1(labels, predictions, size),
        "macro_f1_interval": interval(
            lambda w: metrics.weighted_macro_f1(w, labels, predictions[None], size)[:, 0]
        ),
    }
    for key, k in (("accuracy", 1), ("top2_accuracy", 2), ("top3_accuracy", 3)):
        result[key] = float(hits[k].mean())
        result[f"{key}_interval"] = interval(lambda w, k=k: metrics.weighted_mean(w, hits[k]))
    per_class = metrics.f1_per_class(labels, predictions, size)
    return result | {
        "per_class_f1": {task.candidates[i]: float(per_class[i]) for i in present},
        "classes": list(task.candidates),
        "labels": names,
        "confusion": metrics.confusion_matrix(labels, predictions, size)[present].tolist(),
        "count": len(labels),
        "patients": len(np.unique(store.patients())),
        "chance_macro_f1": metrics.chance_macro_f1(labels, size),
        "majority_macro_f1": metrics.majority_macro_f1(labels),
        "resample_by": resample_by,
        "predictions": _predictions(store, task.candidates, labels, scores),
    }


def _predictions(store, candidates, labels, scores):
    """One dict per image: ids, label, prediction and the three best candidates with scores."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    rows = []
    for i, label in enumerate(labels):
        row = {
            "example_id": str(store.columns["example_id"][i]),
            "patient_id": str(store.columns["patient_id"][i]),
            "label": candidates[label],
            "prediction": candidates[best[i, 0]],
        }
        for place, candidate in enumerate(best[i], start=1):
            row[f"top{place}"] = candidates[candidate]
            row[f"score{place}"] = round(float(scores[i, candidate]), 4)
        rows.append(row)
    return rows
