"""Zero-shot gestational age: brain images against prompts for each of 175 days.

Each prompt quotes the age and the resized pixel spacing, so only spacings that print differently
are encoded. A predicted age is valid when the true head circumference is normal for it (WHO).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.captions.prompts import ga_prompts
from fetalclip_jax.evaluation import metrics
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.text_features import encode_texts
from fetalclip_jax.evaluation.zero_shot import unit

# 14 weeks 0 days to 38 weeks 6 days.
DAYS = np.arange(14 * 7, 38 * 7 + 7)
# Images whose true head circumference lies outside are not judged.
HC_RANGE_MM = (100.0, 342.0)


@dataclasses.dataclass(frozen=True)
class ValidPredictionRate:
    """Share of predictions at whose age the true head circumference is normal.

    Attributes:
      rate: count / total.
      count: valid predictions.
      total: images whose head circumference is judged (100 to 342 mm).
      interval: bootstrap interval of the rate.
    """

    rate: float
    count: int
    total: int
    interval: tuple[float, float]


def days_from_similarity(
    scores: Float[np.ndarray, "n 175"], top_n: int = 15
) -> Int[np.ndarray, "n"]:
    """Predicted age in days: the middle of the best days.

    The `top_n` days of the highest scores are taken (of equal scores, the earlier day), sorted by
    day, and element `top_n // 2` is the answer.

    Args:
      scores: similarity of each image with each day of `DAYS`.
      top_n: number of best days, 1 to 175.

    Raises:
      ValueError: if `scores` is not [n, 175], holds nan, or `top_n` is out of range.
    """
    # NumPy, so that ties are those of the scores as given and not of a cast to float32.
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] != len(DAYS):
        raise ValueError(f"scores must have shape [n, {len(DAYS)}], found {scores.shape}")
    if not 1 <= top_n <= len(DAYS):
        raise ValueError(f"top_n must lie between 1 and {len(DAYS)}, found {top_n}")
    if np.isnan(scores).any():
        raise ValueError("scores hold nan: the features of some image or prompt are not finite")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_n]
    return DAYS[np.sort(best, axis=1)[:, top_n // 2]]


def valid_prediction_rate(
    days: Int[np.ndarray, "n"],
    hc_mm: Float[np.ndarray, "n"],
    *,
    groups: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ValidPredictionRate:
    """Share of valid ages among the images with a head circumference of 100 to 342 mm.

    Args:
      days: predicted ages.
      hc_mm: true head circumferences; values out of range or nan are left out.
      groups: patient ids for the bootstrap; None resamples images.
      resamples: bootstrap samples.
      seed: of the bootstrap.

    Raises:
      ValueError: if the lengths differ or no head circumference is in range.
    """
    days, hc_mm = np.asarray(days), np.asarray(hc_mm, np.float64)
    if days.shape != hc_mm.shape or days.ndim != 1:
        raise ValueError(f"one age per head circumference: found {days.shape} and {hc_mm.shape}")
    kept = _in_range(hc_mm)
    if not kept.any():
        raise ValueError(f"no head circumference lies within {HC_RANGE_MM} mm")
    valid = who_chart.is_valid(days[kept], hc_mm[kept])
    groups = np.arange(len(valid)) if groups is None else np.asarray(groups)[kept]
    interval = metrics.bootstrap_interval(
        lambda w: metrics.weighted_mean(w, valid), groups, resamples=resamples, seed=seed
    )
    return ValidPredictionRate(float(valid.mean()), int(valid.sum()), len(valid), interval)


def best_constant_days(hc_mm: Float[np.ndarray, "n"]) -> int:
    """The one age that is valid for the most head circumferences (the earliest of equals)."""
    low, high = who_chart.hc_mm(DAYS / 7, 2.5), who_chart.hc_mm(DAYS / 7, 97.5)
    hc_mm = np.asarray(hc_mm, np.float64)[:, None]
    return int(DAYS[((low <= hc_mm) & (hc_mm <= high)).sum(0).argmax()])


def similarity(
    store: FeatureStore, model, *, batch_size: int = 175, progress: bool = True
) -> Float[np.ndarray, "n 175"]:
    """Mean over the templates of 100 x cosine of each image with each day's prompt.

    The prompts of one spacing are encoded, compared and dropped before the next.

    Args:
      store: images with a known `resized_spacing_mm`.
      model: the loaded model.
      batch_size: texts per call of the text tower.
      progress: show a progress bar over the distinct spacings.
    """
    spacings = np.array([f"{value:.2f}" for value in store.columns["resized_spacing_mm"]])
    distinct, counts = np.unique(spacings, return_counts=True)
    largest = counts.max()  # every group is filled up to this, so that one program serves all
    scores = np.empty((len(store), len(DAYS)), np.float32)
    for spacing in tqdm(distinct, desc="pixel spacings", disable=not progress):
        rows = np.flatnonzero(spacings == spacing)
        templates = ga_prompts(DAYS.tolist(), float(spacing))
        texts = [text for template in templates for text in template]
        text_features = encode_texts(model, texts, batch_size=batch_size)
        text_features = text_features.reshape(len(templates), len(DAYS), -1)  # t day d
        images = np.zeros((largest, store.image_features.shape[1]), np.float32)
        images[: len(rows)] = store.image_features[rows]
        scores[rows] = np.asarray(_similarity(images, text_features))[: len(rows)]
    return scores


def evaluate(
    store: FeatureStore,
    model,
    train_hc_mm: Float[np.ndarray, "m"] | None = None,
    train_ga_days: Float[np.ndarray, "m"] | None = None,
    *,
    batch_size: int = 175,
    resample_by: str = "patient",
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Judge a model's zero-shot ages on the clean brain images of a store.

    Args:
      store: images with `plane` "brain", `hc_mm` and `resized_spacing_mm`; encoded by `model`.
      model: the loaded model.
      train_hc_mm: head circumferences of the training images, for the constant age that was
        chosen without seeing the evaluated images.
      train_ga_days: ages of the training images, for their median as a constant answer.
      batch_size: texts per call of the text tower.
      resample_by: "patient", or "image" to match the paper.
      resamples: bootstrap samples.
      seed: of the bootstrap.
      progress: show a progress bar.

    Returns:
      A JSON-able dict: the valid prediction rate of the model and of constant answers, the error
      in days where the true age is known, and the implied head circumference error, that of
      the chart's median at the predicted age. `predictions` holds one row per image.

    Raises:
      ValueError: for another model's store, or if no image can be judged.
    """
    store.check_model(model.fingerprint)
    store, unjudged = _judged(store.clean())
    hc_mm, true_days = store.columns["hc_mm"], store.columns["ga_days"]
    groups = store.bootstrap_groups(resample_by)
    scores = similarity(store, model, batch_size=batch_size, progress=progress)
    days = days_from_similarity(scores)

    def rate(answer):
        answer = np.broadcast_to(answer, hc_mm.shape)
        return valid_prediction_rate(answer, hc_mm, groups=groups, resamples=resamples, seed=seed)

    def interval(statistic, rows=slice(None)):
        return list(
            metrics.bootstrap_interval(statistic, groups[rows], resamples=resamples, seed=seed)
        )

    valid = rate(days)
    result = {
        "valid_prediction_rate": valid.rate,
        "valid_prediction_rate_interval": list(valid.interval),
        "valid_count": valid.count,
        "count": valid.total,
        "patients": len(np.unique(store.patients())),
        "distinct_spacings": len({f"{s:.2f}" for s in store.columns["resized_spacing_mm"]}),
        "left_out": unjudged,
        "resample_by": resample_by,
    }
    for name, constant in _constants(hc_mm, train_hc_mm, train_ga_days).items():
        found = None if constant is None else rate(constant)
        result[f"{name}_baseline"] = None if found is None else found.rate
        result[f"{name}_baseline_interval"] = None if found is None else list(found.interval)
        result[f"{name}_baseline_days" if name == "constant" else f"{name}_days"] = constant
    known = np.flatnonzero(np.isfinite(true_days))
    if len(known):
        error = np.abs(days[known] - true_days[known])
        # The strongest constant for a mean absolute error is the median of the true ages.
        constant_error = np.abs(np.median(true_days[known]) - true_days[known])
        result["mae_days"] = float(error.mean())
        result["mae_days_interval"] = interval(lambda w: metrics.weighted_mean(w, error), known)
        result["mae_constant_days"] = float(constant_error.mean())
    else:
        result |= {"mae_days": None, "mae_days_interval": None, "mae_constant_days": None}
    percent = 100 * np.abs(who_chart.hc_mm(days / 7) - hc_mm) / hc_mm
    return result | {
        "median_implied_hc_error_percent": float(np.median(percent)),
        "median_implied_hc_error_percent_interval": interval(
            lambda w: metrics.weighted_median(w, percent)
        ),
        "mean_implied_hc_error_percent": float(percent.mean()),
        "mean_implied_hc_error_percent_interval": interval(
            lambda w: metrics.weighted_mean(w, percent)
        ),
        "predictions": _predictions(store, days, scores),
    }


@jax.jit
def _similarity(
    image_features: Float[Array, "n d"], text_features: Float[Array, "t day d"]
) -> Float[Array, "n day"]:
    # The mean of cosines is the product with the mean of the unit text features.
    texts = unit(text_features).mean(axis=0)
    return 100.0 * jnp.einsum(
        "nd,ld->nl", unit(image_features), texts, precision=jax.lax.Precision.HIGHEST
    )


def _in_range(hc_mm):
    return (hc_mm >= HC_RANGE_MM[0]) & (hc_mm <= HC_RANGE_MM[1])


def _judged(store):
    """The brain images that can be judged, and why the others among them are left out."""
    brain = store.columns["plane"] == "brain"
    hc_mm, spacing = store.columns["hc_mm"], store.columns["resized_spacing_mm"]
    measured = brain & np.isfinite(hc_mm)
    in_range = measured & _in_range(hc_mm)
    kept = in_range & (spacing > 0)
    if not kept.any():
        raise ValueError(
            "store has no brain image with hc_mm within "
            f"{HC_RANGE_MM} and resized_spacing_mm: of {len(store)} images {brain.sum()} show "
            f"the brain, {measured.sum()} of them have hc_mm, {in_range.sum()} within the range"
        )
    return store.select(kept), {
        "without_hc_mm": int((brain & ~measured).sum()),
        "hc_mm_out_of_range": int((measured & ~in_range).sum()),
        "without_spacing": int((in_range & ~kept).sum()),
    }


def _constants(hc_mm, train_hc_mm, train_ga_days):
    train = train_median = None
    if train_hc_mm is not None:
        train_hc_mm = np.asarray(train_hc_mm, np.float64)
        train_hc_mm = train_hc_mm[_in_range(train_hc_mm)]
        train = best_constant_days(train_hc_mm) if len(train_hc_mm) else None
    if train_ga_days is not None:
        train_ga_days = np.asarray(train_ga_days, np.float64)
        train_ga_days = train_ga_days[np.isfinite(train_ga_days)]
        train_median = round(float(np.median(train_ga_days))) if len(train_ga_days) else None
    return {
        "constant": best_constant_days(hc_mm),
        "train_constant": train,
        "train_median": train_median,
    }


def _predictions(store, days, scores):
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    rows = []
    for i, day in enumerate(days):
        true_days = store.columns["ga_days"][i]
        hc_mm = float(store.columns["hc_mm"][i])
        row = {
            "example_id": str(store.columns["example_id"][i]),
            "patient_id": str(store.columns["patient_id"][i]),
            "ga_days": int(true_days) if np.isfinite(true_days) else "",
            "hc_mm": hc_mm,
            "prediction": int(day),
            "valid": bool(who_chart.is_valid(day, hc_mm)),
        }
        for place, index in enumerate(best[i], start=1):
            row[f"top{place}"] = int(DAYS[index])
            row[f"score{place}"] = round(float(scores[i, index]), 4)
        rows.append(row)
    return rows
