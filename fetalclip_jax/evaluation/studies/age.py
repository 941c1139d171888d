"""Zero-shot gestational age: brain images against prompts for each of 175 days.

Each prompt quotes the age and the resized pixel spacing, so only spacings that print differently
are encoded. The mathematics is in `evaluation.age`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.captions.prompts import GA_TEMPLATES, ga_prompts, load_templates
from fetalclip_jax.evaluation import age
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measure, Measured
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.evaluation.text_features import encode_tokens
from fetalclip_jax.models.clip import unit_length

PAPER = {"role": "all", "resample_by": "image"}
JUDGED_BY = (
    "a prediction is valid where the circumference is normal for it on the WHO growth chart; heads "
    "of the built-in phantom grow by the same chart, so that a model which learned from simulated "
    "images was taught by what judges it"
)


@dataclasses.dataclass(frozen=True)
class AgeSettings(Settings):
    """Options of the age study.

    Attributes:
      role: images that are judged, "test" or "all".
      templates: a file of age templates (`captions.prompts.load_templates`); "" for the shipped.
      top_n: best days of which the middle one is the answer.
      batch_size: prompts per call of the text tower.
      progress: show a progress bar over the distinct spacings.
    """

    role: str = "test"
    templates: str = ""
    top_n: int = 15
    batch_size: int = 175
    progress: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size < 1 or not 1 <= self.top_n <= len(age.DAYS):
            raise ValueError(
                f"batch_size={self.batch_size} must be at least 1 and top_n={self.top_n} between "
                f"1 and {len(age.DAYS)}"
            )


class Age:
    """Zero-shot gestational age of brain images with a head circumference."""

    settings_type = AgeSettings

    name = "age"

    def __init__(self, **options):
        protocols = {"default": {}, "paper": PAPER}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        file = self.settings.templates
        self.templates = load_templates(file) if file else GA_TEMPLATES
        brain = {"plane": ("brain",)}
        self.needs = (
            Need("images", self.settings.role, columns=("hc_mm", "pixel_spacing_mm"), only=brain),
            # What the model was trained on, for constant answers chosen without the judged images.
            Need("train", "train", level="metadata", optional=True),
        )

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Judges the clean brain images of `stores["images"]`; see `evaluation.study.Study`."""
        settings = self.settings
        stores["images"].check_model(model.fingerprint)
        store, left_out = judged(stores["images"].clean())
        require_finite("the image features", store.image_features, store.columns["example_id"])
        bootstrap = Bootstrap(
            store.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        scores = similarity(
            store,
            model,
            self.templates,
            batch_size=settings.batch_size,
            progress=settings.progress,
        )
        days = age.days_from_similarity(scores, settings.top_n)
        answers = _Answers(days, store.columns["hc_mm"], store.columns["ga_days"])
        baselines, constants = _baselines(answers, stores.get("train"), bootstrap)
        baselines |= answers.constant_error(bootstrap)
        found = bootstrap.estimates(answers.measures())
        unknown = ("mae_days", "mae_days_interval", "mae_constant_days")
        return Result(
            study=self.name,
            metrics=found,
            protocol=settings.to_json(leave_out=("progress",)),
            baselines=baselines,
            details={
                "valid_count": int(answers.valid(days).sum()),
                "count": len(store),
                "patients": len(np.unique(store.patients())),
                "distinct_spacings": len(set(_printed(store))),
                "left_out": left_out,
                "resample_by": settings.resample_by,
                "templates": list(self.templates),
                "judged_by": JUDGED_BY,
                "ages_known": int(answers.known.sum()),
                "scores": "mean over the templates of 100 x cosine with each day's prompt",
            }
            | constants
            | ({} if "mae_days" in found else dict.fromkeys(unknown)),
            predictions=_predictions(store, days, scores),
        )

    @staticmethod
    def measures(predictions: Predictions) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        true = np.array([float(day or "nan") for day in predictions.label.tolist()])
        days, hc_mm = predictions.prediction.astype(np.float64), predictions.extra["hc_mm"]
        return _Answers(days, hc_mm, true).measures()


def similarity(
    store: FeatureStore,
    model,
    templates: Sequence[str] = GA_TEMPLATES,
    *,
    batch_size: int = 175,
    progress: bool = True,
) -> Float[np.ndarray, "n 175"]:
    """Mean over the templates of 100 x cosine of each image with each day's prompt.

    The prompts of one spacing are encoded, compared and dropped before the next.

    Args:
      store: images with a known `resized_spacing_mm`.
      model: the loaded model.
      templates: texts for `captions.prompts.ga_prompts`.
      batch_size: texts per call of the text tower.
      progress: show a progress bar over the distinct spacings.

    Raises:
      ValueError: days that no template tells apart within the context.
    """
    spacings = _printed(store)
    distinct, counts = np.unique(spacings, return_counts=True)
    largest = counts.max()  # every group is filled up to this, so that one program serves all
    scores = np.empty((len(store), len(age.DAYS)), np.float32)
    for spacing in tqdm(distinct, "age", unit=" pixel spacings", disable=not progress):
        rows = np.flatnonzero(spacings == spacing)
        prompts = ga_prompts(age.DAYS.tolist(), float(spacing), templates)
        tokens = np.asarray(model.tokenize([text for texts in prompts for text in texts]))
        if spacing == distinct[0]:
            _check_told_apart(tokens.reshape(len(templates), len(age.DAYS), -1))
        features = encode_tokens(model, tokens, batch_size=batch_size)
        features = features.reshape(len(templates), len(age.DAYS), -1)  # t day d
        images = np.zeros((largest, store.image_features.shape[1]), np.float32)
        images[: len(rows)] = store.image_features[rows]
        scores[rows] = np.asarray(_similarity(images, features))[: len(rows)]
    return scores


def judged(store: FeatureStore) -> tuple[FeatureStore, dict[str, int]]:
    """The brain images that can be judged, and why the others among them are left out.

    Raises:
      ValueError: none can.
    """
    brain = store.columns["plane"] == "brain"
    hc_mm, spacing = store.columns["hc_mm"], store.columns["resized_spacing_mm"]
    measured = brain & np.isfinite(hc_mm)
    in_range = measured & age.in_hc_range(hc_mm)
    kept = in_range & (spacing > 0)
    if not kept.any():
        raise ValueError(
            f"age: no brain image has hc_mm within {age.HC_RANGE_MM} and a pixel spacing: of "
            f"{len(store)} images {brain.sum()} show the brain, {measured.sum()} of them have "
            f"hc_mm, {in_range.sum()} within the range; choose a data set with both"
        )
    return store.select(kept), {
        "without_hc_mm": int((brain & ~measured).sum()),
        "hc_mm_out_of_range": int((measured & ~in_range).sum()),
        "without_spacing": int((in_range & ~kept).sum()),
    }


@dataclasses.dataclass(frozen=True)
class _Answers:
    """Predicted days beside what is known of each image."""

    days: np.ndarray
    hc_mm: np.ndarray
    ga_days: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.isfinite(self.ga_days)

    def valid(self, days) -> np.ndarray:
        return who_chart.is_valid(np.broadcast_to(days, self.hc_mm.shape), self.hc_mm)

    def rate(self, days) -> Measure:
        return measure.mean(self.valid(days))

    def measures(self) -> dict[str, Measured]:
        """The valid rate, errors in days, and in the circumference that the age implies."""
        percent = 100 * np.abs(who_chart.hc_mm(self.days / 7) - self.hc_mm) / self.hc_mm
        everything = np.arange(len(self.days))
        found = {"valid_prediction_rate": Measured(self.rate(self.days), everything)}
        known = np.flatnonzero(self.known)
        if len(known):
            error = np.abs(self.days[known] - self.ga_days[known])
            found["mae_days"] = Measured(measure.mean(error, "positive"), known)
        return found | {
            "median_implied_hc_error_percent": Measured(measure.Median(percent), everything),
            "mean_implied_hc_error_percent": Measured(
                measure.mean(percent, "positive"), everything
            ),
        }

    def constant_error(self, bootstrap: Bootstrap) -> dict[str, Baseline]:
        """The strongest constant for a mean absolute error, the median of the true ages."""
        true_days = self.ga_days[self.known]
        if not len(true_days):
            return {}
        error = np.abs(np.median(true_days) - true_days).mean()
        days = round(float(np.median(true_days)))
        return {
            "mae_constant_days": Baseline(
                "mae_days",
                bootstrap.select(np.flatnonzero(self.known)).constant(error),
                f"always the median age of these images: {days // 7} weeks and {days % 7} days",
            )
        }


def _baselines(
    answers: _Answers, train: FeatureStore | None, bootstrap: Bootstrap
) -> tuple[dict[str, Baseline], dict[str, Any]]:
    """Constant ages: how often each is valid, and which day it is; None where there is none."""
    constants = {"constant": age.best_constant_days(answers.hc_mm)}
    constants |= {"train_constant": None, "train_median": None}
    notes = []
    if train is None:
        notes.append("the data set has no training images: no constant age is known from them")
    else:
        hc_mm, ga_days = (train.columns[name].astype(float) for name in ("hc_mm", "ga_days"))
        hc_mm, ga_days = hc_mm[age.in_hc_range(hc_mm)], ga_days[np.isfinite(ga_days)]
        if len(hc_mm):
            constants["train_constant"] = age.best_constant_days(hc_mm)
        else:
            low, high = age.HC_RANGE_MM
            notes.append(f"no training image has a head circumference of {low:g} to {high:g} mm")
        if len(ga_days):
            constants["train_median"] = round(float(np.median(ga_days)))
        else:
            notes.append("no training image has a known age")
    descriptions = {
        "constant": "always the one age that suits most of these images",
        "train_constant": "always the one age that suits most training images",
        "train_median": "always the median age of the training images",
    }
    baselines, details = {}, {"notes": notes} if notes else {}
    for name, days in constants.items():
        details["constant_baseline_days" if name == "constant" else f"{name}_days"] = days
        if days is None:
            details |= {f"{name}_baseline": None, f"{name}_baseline_interval": None}
        else:
            baselines[f"{name}_baseline"] = Baseline(
                "valid_prediction_rate",
                bootstrap.estimate(answers.rate(days)),
                f"{descriptions[name]}: {days // 7} weeks and {days % 7} days",
            )
    return baselines, details


@jax.jit
def _similarity(
    image_features: Float[Array, "n d"], text_features: Float[Array, "t day d"]
) -> Float[Array, "n day"]:
    # The mean of cosines is the product with the mean of the unit text features.
    flat = unit_length(text_features.reshape(-1, text_features.shape[-1]))
    texts = flat.reshape(text_features.shape).mean(axis=0)
    return 100.0 * jnp.einsum(
        "nd,ld->nl", unit_length(image_features), texts, precision=jax.lax.Precision.HIGHEST
    )


def _check_told_apart(tokens: np.ndarray) -> None:
    """Refuses templates of which none states the age within the context; tokens are t day l."""
    rows = {tokens[:, day].tobytes() for day in range(tokens.shape[1])}
    if len(rows) < tokens.shape[1]:
        raise ValueError(
            f"age: within the {tokens.shape[2]} tokens that the model reads, the prompts of "
            f"{tokens.shape[1]} days are {len(rows)} different texts: state the age earlier in the "
            "templates"
        )


def _printed(store: FeatureStore) -> np.ndarray:
    """Spacings as the prompts print them."""
    return np.array([f"{value:.2f}" for value in store.columns["resized_spacing_mm"]])


def _predictions(store: FeatureStore, days: np.ndarray, scores: np.ndarray) -> Predictions:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    ga_days = np.array(
        [f"{day:.0f}" if np.isfinite(day) else "" for day in store.columns["ga_days"]]
    )
    extra = {
        "ga_days": ga_days,
        "hc_mm": store.columns["hc_mm"],
        "valid": who_chart.is_valid(days, store.columns["hc_mm"]),
    }
    for place in range(3):
        extra[f"top{place + 1}"] = age.DAYS[best[:, place]]
        extra[f"score{place + 1}"] = np.round(
            np.take_along_axis(scores, best[:, place : place + 1], 1)[:, 0].astype(float), 4
        )
    return Predictions(
        example_id=store.columns["example_id"],
        patient_id=store.columns["patient_id"],
        label=ga_days,
        prediction=days,
        candidates=tuple(str(day) for day in age.DAYS),
        scores=scores,
        extra=extra,
        groups=group_columns(store),
    )
