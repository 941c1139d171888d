"""Congenital heart defects: clips of hearts, normal or abnormal, by a linear head on some frames.

The paper's probe reads the embeddings of a clip's frames one after another (`chd.concatenated`);
`chd.mean` reads their mean, which does not know their order. The paper says five folds by patient
and five runs, and their mean area under the ROC curve; its data are private, and the number of
frames, the optimiser and whether a test set was fixed are not published. Here heads are tested on
the data set's test split where it has one, and else each fold is tested once. The paper's protocol
trains as the paper's probes of planes do.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure, ranking
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap, bootstrap_weights
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.statistics.ranking import Ranking
from fetalclip_jax.evaluation.studies import clip_probes
from fetalclip_jax.evaluation.studies.clip_probes import ABNORMAL, NORMAL, ClipSettings, Judged
from fetalclip_jax.evaluation.studies.probe import PAPER_HEAD, deviation
from fetalclip_jax.evaluation.studies.probe_settings import check_used
from fetalclip_jax.evaluation.studies.settings import resolve
from fetalclip_jax.evaluation.study import Need

# Those that a saved result can be measured at again.
SPECIFICITIES = (0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
PROTOCOLS = {"tuned": {}, "paper": PAPER_HEAD}
_LOG_ODDS = "log_odds_"
_FOLD = "fold"
_RAW = "the same head on 16 x 16 raw pixels of the same frames"


@dataclasses.dataclass(frozen=True)
class ChdSettings(ClipSettings):
    """Options of a study of heart defects.

    Attributes:
      specificities: at which the sensitivity is reported, of `SPECIFICITIES`; the first one is that
        of the sensitivity to each defect.
    """

    specificities: tuple[float, ...] = (0.9, 0.95)

    def __post_init__(self):
        super().__post_init__()
        unknown = [one for one in self.specificities if one not in SPECIFICITIES]
        if unknown or not self.specificities:
            raise ValueError(
                f"specificities={self.specificities} must be some of "
                f"{', '.join(map(str, SPECIFICITIES))}"
            )


class Concatenated:
    """The paper's probe: the frames of a clip one after another."""

    settings_type = ChdSettings
    _name = "chd.concatenated"

    def __init__(self, **options):
        self.name = self._name
        self.settings = resolve(self.name, ChdSettings, PROTOCOLS, options)
        check_used(self.name, self.settings, options)
        names = ("auroc", "auprc", *map(_sensitivity, self.settings.specificities))
        self.scores = dict.fromkeys(names, False)
        how = {"num_frames": self.settings.num_frames, "sampling": self.settings.sampling}
        shared = {
            "columns": (self.settings.column,),
            "transform": self.settings.transform,
            "level": "frames",
            "how": how,
        }
        self.needs = (
            Need("fit", "fit", **shared),
            Need("test", "test", optional=True, **shared),
        )

    @staticmethod
    def _pool(frames: Float[np.ndarray, "n f d"]) -> Float[np.ndarray, "n k"]:
        return frames.reshape(len(frames), -1)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Learns from `stores["fit"]`, is tested on `stores["test"]` if there is one."""
        settings = self.settings
        for store in stores.values():
            store.check_model(model.fingerprint)
        clips = {
            name: clip_probes.in_two_classes(
                clip_probes.pooled(store, settings.num_frames, self._pool),
                settings.column,
                settings.normal,
            )
            for name, store in stores.items()
        }
        judged, raw = (
            clip_probes.judge(clips["fit"], clips.get("test"), settings, inputs)
            for inputs in ("features", "raw_pixels")
        )
        table = _table(judged, settings)
        groups = judged.store.bootstrap_groups(settings.resample_by)
        bootstrap = Bootstrap(groups, settings.resamples, settings.seed)
        found, of_raw = (
            {name: one for name, one in measures(x).items() if name in _wanted(settings)}
            for x in (table, _table(raw, settings))
        )
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(found),
            protocol=settings.effective(),
            baselines=_baselines(judged, bootstrap, of_raw),
            details=judged.details
            | _spread(found["auroc"].measure)
            | {
                "unit": "clips",
                "classes": [NORMAL, ABNORMAL],
                "count": len(judged.store),
                "patients": len(np.unique(judged.store.patients())),
                "folds": settings.folds,
                "tested": "the test split" if judged.fold is None else "each fold once",
                "normal": settings.normal,
                "clips": _lengths(judged.store, settings.num_frames),
                "lacking": _lacking(stores, settings.num_frames),
                "against_raw_pixels": _against(found, of_raw, bootstrap),
                "raw_pixels_roc": _points(_table(raw, settings)),
                "resamples_drawn_again": _drawn_again(found["auroc"].measure, bootstrap),
                "scores": "mean probability over the runs",
            }
            | _operating_points(table, judged.validation, bootstrap, settings),
            predictions=table,
            validation=judged.validation,
        )

    @staticmethod
    def measures(predictions: Predictions) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        return measures(predictions)


class Mean(Concatenated):
    """A probe of the mean over the frames of a clip."""

    _name = "chd.mean"

    @staticmethod
    def _pool(frames: Float[np.ndarray, "n f d"]) -> Float[np.ndarray, "n k"]:
        return frames.mean(1)


def measures(predictions: Predictions) -> dict[str, Measured]:
    """Means over the runs of areas under curves, and of the sensitivity at every specificity."""
    columns = [name for name in predictions.extra if name.startswith(_LOG_ODDS)]
    columns.sort(key=lambda name: int(name.removeprefix(_LOG_ODDS)))
    scores = np.stack([np.asarray(predictions.extra[name], np.float64) for name in columns])
    judged = np.ones(scores.shape, bool)
    if _FOLD in predictions.extra:
        # Every fold has runs of its own.
        own = predictions.extra[_FOLD] == np.unique(predictions.extra[_FOLD])[:, None]
        judged = np.repeat(own, len(scores), axis=0)
        scores = np.tile(scores, (len(own), 1))
    statistics = {"auroc": ranking.auroc, "auprc": ranking.average_precision}
    statistics |= {_sensitivity(one): ranking.sensitivity_at(one) for one in SPECIFICITIES}
    labels, rows = predictions.label == ABNORMAL, np.arange(len(predictions.label))
    return {
        name: Measured(Ranking(scores, labels, statistic, judged), rows)
        for name, statistic in statistics.items()
    }


def _sensitivity(specificity: float) -> str:
    return f"sensitivity_at_{round(100 * specificity)}_specificity"


def _wanted(settings: ChdSettings) -> list[str]:
    return ["auroc", "auprc", *map(_sensitivity, settings.specificities)]


def _table(judged: Judged, settings: ChdSettings) -> Predictions:
    """One row per clip: what it is, what the runs say of it, each and together."""
    probability = (1 / (1 + np.exp(-judged.log_odds))).mean(0)
    columns = judged.store.columns
    extra = {"finding": columns["finding"]}
    if judged.fold is not None:
        extra[_FOLD] = judged.fold
    extra |= {f"{_LOG_ODDS}{k + 1}": values for k, values in enumerate(judged.log_odds)}
    groups = group_columns(judged.store)
    return Predictions(
        example_id=columns["example_id"],
        patient_id=columns["patient_id"],
        label=columns["label"],
        prediction=np.where(probability > 0.5, ABNORMAL, NORMAL),
        candidates=(ABNORMAL, NORMAL),
        scores=np.stack([probability, 1 - probability], 1),
        extra=extra,
        # By what was found a group would be of one class.
        groups={k: v for k, v in groups.items() if k not in (settings.column, "finding")},
    )


def _baselines(
    judged: Judged, bootstrap: Bootstrap, of_raw: Mapping[str, Measured]
) -> dict[str, Baseline]:
    """A guess, and the same head on raw pixels."""
    chance = {"auroc": 0.5, "auprc": float(judged.abnormal.mean())}
    chance |= {_sensitivity(one): 1 - one for one in SPECIFICITIES}
    found = {}
    for name, estimate in bootstrap.estimates(of_raw).items():
        guess = bootstrap.constant(round(chance[name], 12))
        found[f"chance_{name}"] = Baseline(name, guess, "a guess")
        found[f"raw_pixels_{name}"] = Baseline(name, estimate, _RAW)
    return found


def _against(
    found: Mapping[str, Measured], of_raw: Mapping[str, Measured], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Differences to the raw pixels, on the same clips of the same resamples."""
    return {
        name: dataclasses.asdict(
            bootstrap.estimate(measure.difference(one.measure, of_raw[name].measure))
        )
        for name, one in found.items()
    }


def _spread(auroc: Ranking) -> dict[str, Any]:
    of_runs = auroc.of_runs()
    return {"run_auroc": of_runs.tolist(), "auroc_deviation_over_runs": deviation(of_runs)}


def _lengths(store: FeatureStore, num_frames: int) -> dict[str, Any]:
    lengths = store.columns["frames"]
    return {
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "frames": num_frames,
    }


def _lacking(stores: Mapping[str, FeatureStore], num_frames: int) -> dict[str, int]:
    """Clips to learn from or to test of which some frames are read more than once."""
    shorter = sum(int((one.columns["frames"] < num_frames).sum()) for one in stores.values())
    return {f"clips of fewer than {num_frames} frames, some read twice": shorter} if shorter else {}


def _drawn_again(auroc: Ranking, bootstrap: Bootstrap) -> int:
    """Resamples that lack a class: see `statistics.ranking.Ranking`."""
    rows = np.arange(len(auroc))
    weights = bootstrap_weights(
        bootstrap.groups, resamples=bootstrap.resamples, seed=bootstrap.seed
    )
    return int(sum(auroc.undefined(chunk, rows).sum() for chunk in weights))


def _points(table: Predictions) -> list[list[float]]:
    """The ROC of the runs together, (1 - specificity, sensitivity) by falling threshold."""
    labels, ones = table.label == ABNORMAL, np.ones((1, len(table.label)))
    curve = ranking.roc(*ranking.by_score(table.scores[:, 0], labels, ones))
    return np.round(np.concatenate(curve), 6).T.tolist()


def _operating_points(
    table: Predictions, validation: Predictions | None, bootstrap: Bootstrap, settings: ChdSettings
) -> dict[str, Any]:
    """What thresholds reach that were chosen for a specificity, and by which defect.

    They are chosen on validation clips, which heads were judged on that had not seen them; where
    there are none, on the judged clips themselves.
    """
    of = table if validation is None else validation
    scores, abnormal = table.scores[:, 0], table.label == ABNORMAL
    points = []
    for specificity in settings.specificities:
        threshold = _threshold(of.scores[of.label == NORMAL, 0], specificity)
        called = scores > threshold
        points.append(
            {
                "asked": specificity,
                "threshold": threshold,
                "sensitivity": _share(bootstrap, called, abnormal),
                "specificity": _share(bootstrap, ~called, ~abnormal),
            }
        )
    called, finding = scores > points[0]["threshold"], table.extra["finding"]
    return {
        "thresholds_from": "the judged clips" if validation is None else "validation patients",
        "operating_points": points,
        "findings": {
            name: _share(bootstrap, called, finding == name)
            for name in np.unique(finding[abnormal]).tolist()
        },
    }


def _threshold(normal: Float[np.ndarray, "n"], specificity: float) -> float:
    """The lowest score that no more than the allowed share of normal clips exceeds."""
    place = int(np.ceil(specificity * len(normal) - 1e-9)) - 1
    return float(np.sort(normal)[max(place, 0)])


def _share(
    bootstrap: Bootstrap, called: Bool[np.ndarray, "n"], among: Bool[np.ndarray, "n"]
) -> dict[str, Any]:
    return dataclasses.asdict(bootstrap.select(among).estimate(measure.mean(called[among])))
