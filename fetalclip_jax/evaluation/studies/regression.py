"""Supervised regression: ridge from frozen features to an age, a circumference, any number.

Patients to learn from choose the penalty by cross-validation; other patients are judged.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.heads import ridge
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import agreement, splits
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.probe_data import check_apart
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import numbers
from fetalclip_jax.evaluation.study import Need

# Numbers that are read off the brain, as the paper's zero-shot age is.
_OF_THE_BRAIN = ("ga_days", "hc_mm")
_UNITS = ("days", "weeks", "mm", "cm", "g", "kg")
SPACINGS = ("product", "input", "none")


@dataclasses.dataclass(frozen=True)
class RegressionSettings(Settings):
    """Options of a regression.

    Attributes:
      plane: images of this plane alone; "" for all.
      spacing: what the resized pixel spacing (mm) does. An image resized to a fixed number of
        pixels does not say how large a pixel is. "product": each input is there times the spacing
        too, for a size in mm is one in pixels times the spacing; "input": the spacing is one input
        more; "none".
      folds: of the patients to learn from, which choose the penalty.
      penalties: that are tried, see `heads.ridge`.
      feature_scaling: "standardise", "unit" (length one) or "none".
    """

    plane: str = ""
    spacing: str = "product"
    folds: int = 5
    penalties: tuple[float, ...] = ridge.PENALTIES
    feature_scaling: str = "standardise"

    def __post_init__(self):
        super().__post_init__()
        for name, value, known in (
            ("spacing", self.spacing, SPACINGS),
            ("feature_scaling", self.feature_scaling, ("standardise", "unit", "none")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")
        if not self.penalties or not all(one > 0 for one in self.penalties):
            raise ValueError(f"penalties={self.penalties} must be positive numbers")
        if self.folds < 2:
            raise ValueError(f"folds={self.folds} must be at least 2")


class Regression:
    """Ridge regression of one column of numbers: "ga_days", "hc_mm", or another of the data."""

    settings_type = RegressionSettings

    def __init__(self, column: str, **options):
        self.name, self.column = f"regression.{column}", column
        tuned = {"plane": "brain"} if column in _OF_THE_BRAIN else {}
        protocols = {"tuned": tuned, "paper": tuned | {"resample_by": "image"}}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        errors = dict.fromkeys((metric_name("mae", column), "percent_error"), True)
        self.scores = errors | {"r2": False}
        only = {"plane": (self.settings.plane,)} if self.settings.plane else {}
        otherwise = "give the option plane another one, or plane='' for the images of all planes"
        self.needs = tuple(
            Need(role, role, (column,), only=only, otherwise=otherwise) for role in ("fit", "test")
        )

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Learns from `stores["fit"]`, is judged on `stores["test"]`; see `study.Study`."""
        settings = self.settings
        stores["fit"].check_model(model.fingerprint)
        check_apart(stores["fit"], stores["test"])
        clean = {name: stores[name].clean() for name in ("fit", "test")}
        with_spacing = settings.spacing != "none" and all(map(_knows_spacing, clean.values()))
        fit, _ = _judged(clean["fit"], self.column, with_spacing)
        test, left_out = _judged(clean["test"], self.column, with_spacing)
        data = _Data(fit, test, self.column, settings, with_spacing)
        fits = {kind: data.fit(kind) for kind in data.kinds()}
        predictions = data.predictions(fits)
        bootstrap = Bootstrap(
            test.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        chosen, tried = fits["features"].penalty, sorted(settings.penalties)
        notes = []
        if settings.spacing != "none" and not with_spacing:
            notes.append("no image has a pixel spacing: the features alone are regressed on")
        if len(tried) > 1 and chosen in (tried[0], tried[-1]):
            notes.append(f"the penalty chosen, {chosen:g}, is at the edge of those tried")
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(self.measures(predictions, self.column)),
            protocol=settings.to_json(),
            baselines=data.baselines(predictions, bootstrap),
            details={
                "column": self.column,
                "count": len(test),
                "patients": len(np.unique(test.patients())),
                "train_images": len(fit),
                "train_patients": len(np.unique(fit.patients())),
                "penalties": {kind: found.penalty for kind, found in fits.items()},
                "out_of_fold_rmse": float(np.sqrt(fits["features"].errors.min())),
                "spacing": settings.spacing if with_spacing else "none",
                "left_out": left_out,
                "resample_by": settings.resample_by,
            }
            | ({"notes": notes} if notes else {}),
            predictions=predictions,
        )

    @staticmethod
    def measures(predictions: Predictions, column: str) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        rows = np.arange(len(predictions.example_id))
        found = agreement.measures(predictions.label, predictions.prediction)
        return {metric_name(name, column): Measured(one, rows) for name, one in found.items()}


class _Data:
    """Inputs and targets of both stores, and what is learnt from them."""

    def __init__(self, fit, test, column, settings, with_spacing):
        self._fit, self._test, self._column = fit, test, column
        self._settings, self._with_spacing = settings, with_spacing
        self._targets, self._true = numbers(fit, column), numbers(test, column)
        folds = splits.folds_by_patient(fit.patients(), settings.folds, settings.seed)
        owners = fit.patients()
        self._folds = [
            tuple(np.flatnonzero(np.isin(owners, part)) for part in split) for split in folds
        ]

    def kinds(self) -> list[str]:
        """The features, and what they have to beat."""
        return ["features", "raw_pixels", *(["spacing"] if self._with_spacing else [])]

    def fit(self, kind: str) -> ridge.Ridge:
        settings = self._settings
        return ridge.fit_cross_validated(
            self._inputs(self._fit, kind),
            self._targets,
            self._folds,
            penalties=settings.penalties,
            # What is of another kind than features has other scales.
            standardise=kind != "features" or settings.feature_scaling == "standardise",
        )

    def _inputs(self, store: FeatureStore, kind: str) -> Float[np.ndarray, "n d"]:
        spacing = store.columns["resized_spacing_mm"][:, None]
        if kind == "spacing":
            return np.concatenate([spacing, np.log(spacing)], 1)
        found = store.image_features if kind == "features" else store.raw_pixels / 255
        require_finite(f"the {kind.replace('_', ' ')}", found, store.columns["example_id"])
        found = found.astype(np.float64)
        if kind == "features" and self._settings.feature_scaling == "unit":
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        if not self._with_spacing:
            return found
        product = [found * spacing] if self._settings.spacing == "product" else []
        return np.concatenate([found, *product, spacing], 1)

    def predictions(self, fits: Mapping[str, ridge.Ridge]) -> Predictions:
        test = self._test
        found = {kind: one(self._inputs(test, kind)) for kind, one in fits.items()}
        return Predictions(
            example_id=test.columns["example_id"],
            patient_id=test.columns["patient_id"],
            label=self._true,
            prediction=found["features"],
            extra={f"prediction_{kind}": x for kind, x in found.items() if kind != "features"},
            groups=group_columns(test),
        )

    def baselines(self, predictions: Predictions, bootstrap: Bootstrap) -> dict[str, Baseline]:
        median = np.median(self._targets)
        constant = f"{median:.1f} {unit(self._column)}".rstrip()
        known = {
            "median": (
                np.full(len(self._true), median),
                f"always the median of those learnt from, {constant}",
            )
        }
        with_spacing = " and the pixel spacing" * self._with_spacing
        known["raw_pixels"] = (
            predictions.extra["prediction_raw_pixels"],
            f"ridge on 16 x 16 raw pixels{with_spacing}",
        )
        if self._with_spacing:
            words = "ridge on the pixel spacing alone"
            known["spacing"] = (predictions.extra["prediction_spacing"], words)
        baselines = {}
        for name, (found, words) in known.items():
            of_baseline = agreement.measures(self._true, found)
            for metric in filter(of_baseline.__contains__, agreement.ERRORS):
                baselines[f"{name}_{metric}"] = Baseline(
                    metric_name(metric, self._column),
                    bootstrap.estimate(of_baseline[metric]),
                    words,
                )
        return baselines


def unit(column: str) -> str:
    """What a column is measured in, by the end of its name: "mm" of "hc_mm", or ""."""
    ending = column.rpartition("_")[2]
    return ending if ending in _UNITS else ""


def metric_name(metric: str, column: str) -> str:
    """A metric of `agreement.measures` as results name it: "mae_mm" for "hc_mm"."""
    of_unit = unit(column)
    return f"{metric}_{of_unit}" if of_unit and metric not in agreement.WITHOUT_UNIT else metric


def _knows_spacing(store: FeatureStore) -> bool:
    return bool((store.columns["resized_spacing_mm"] > 0).any())


def _judged(
    store: FeatureStore, column: str, with_spacing: bool
) -> tuple[FeatureStore, dict[str, int]]:
    """The images with a known value (and spacing), and why the others are left out.

    Raises:
      ValueError: none has one, or the column holds texts.
    """
    known = np.isfinite(numbers(store, column))
    kept = known & (store.columns["resized_spacing_mm"] > 0) if with_spacing else known
    if not kept.any():
        wanted = f"a known {column}" + " and a pixel spacing" * with_spacing
        raise ValueError(
            f"none of {len(store)} images has {wanted}; choose a data set or a plane that has"
        )
    return store.select(kept), {
        f"no {column}": int((~known).sum()),
        "no pixel spacing": int((known & ~kept).sum()),
    }
