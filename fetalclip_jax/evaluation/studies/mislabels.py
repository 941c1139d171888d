"""Mislabels: images whose label other patients' images contradict, by confident learning.

A linear probe judges images of patients that it has not seen: those of the patients to learn from
in turn, fold by fold, and those of the test patients by the probe of all the others. How well this
finds wrong labels is measured too: a share of the labels is changed on purpose, and the probes are
trained again.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.heads import logistic
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.sheets import contact_sheet
from fetalclip_jax.evaluation.statistics import splits
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.confident import Confident
from fetalclip_jax.evaluation.statistics.measure import Measured, OfSums
from fetalclip_jax.evaluation.studies.joined import JUDGED, joined
from fetalclip_jax.evaluation.studies.probe_data import ProbeData, probabilities
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS
from fetalclip_jax.evaluation.study import TRANSFORMS, Need

LISTED, SHOWN = 100, 18
_ROLES = ("fit", "test")
_PROBABILITY = "p_"


@dataclasses.dataclass(frozen=True)
class MislabelSettings(Settings):
    """Options of the search for wrong labels.

    Attributes:
      planted: share of the labels that are changed on purpose, to measure what is found; 0 for
        none.
      folds: of the patients to learn from.
      penalties: of the probe, see `heads.logistic`.
      transform: how images are made, see `evaluation.study.TRANSFORMS`.
      progress: show progress bars.
    """

    planted: float = 0.05
    folds: int = 5
    penalties: tuple[float, ...] = logistic.PENALTIES
    transform: str = "clip"
    progress: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.planted < 0.5 or self.folds < 2:
            raise ValueError(
                f"planted={self.planted:g} must be a share below 0.5, folds={self.folds} at least 2"
            )
        if self.transform not in TRANSFORMS:
            raise ValueError(f"transform={self.transform!r} is not one of {', '.join(TRANSFORMS)}")
        if not self.penalties or not all(one > 0 for one in self.penalties):
            raise ValueError(f"penalties={self.penalties} must be positive numbers")

    @property
    def feature_scaling(self) -> str:
        """As the tuned probe."""
        return "unit"


class Mislabels:
    """Likely label errors of one column: "planes", "brain", or a column of the data set."""

    settings_type = MislabelSettings

    def __init__(self, task: str, **options):
        self.name, self.task = f"mislabels.{task}", task
        protocols = {
            "default": {},
            "paper": {"resample_by": "image", "transform": "opencv"},
        }
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        self.scores = dict.fromkeys(("planted_f1", "planted_recall", "planted_precision"), False)
        column, transform = (COLUMNS.get(task, task),), self.settings.transform
        self.needs = (
            *(Need(JUDGED[role], role, column, transform=transform) for role in _ROLES),
            *(Need(f"{JUDGED[role]}_images", role, level="images") for role in _ROLES),
        )

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Judges the labels of both splits; see `evaluation.study.Study`."""
        settings = self.settings
        whole, split = joined(stores, _ROLES, model)
        data = ProbeData(
            *(stores[JUDGED[role]].clean() for role in _ROLES), self.task, settings, "features"
        )
        rows, labels = data.task.select(whole)
        if len(found := np.unique(data.labels)) < 2:
            only = data.task.classes[found[0]]
            raise ValueError(
                f"{self.name}: all {len(data.labels)} images to learn from are of class {only!r}; "
                "two classes are needed, for no other label could be the right one"
            )
        store, split = whole.select(rows), split[rows]
        found, known = _out_of_sample(data, labels, settings)
        flips = _planted(labels, len(data.task.classes), settings)
        planted = flips != labels
        in_control = np.zeros(len(labels), bool)
        if planted.any():
            again, _ = _out_of_sample(data, flips, settings)
            in_control[known] = Confident(flips[known], again[known]).flagged()
        store, split = store.select(known), split[known]
        predictions = _predictions(
            store, split, data.task.classes, labels[known], found[known],
            planted[known], in_control[known],
        )  # fmt: skip
        bootstrap = Bootstrap(
            store.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        listed = _list(predictions)
        confident = Confident(labels[known], found[known])
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(self.measures(predictions, self.task)),
            protocol=settings.to_json(leave_out=("progress",)),
            baselines=_baselines(confident, predictions, bootstrap),
            details={
                "count": len(store),
                "patients": len(np.unique(store.patients())),
                "classes": list(data.task.classes),
                "joint": confident.joint.round(2).tolist(),
                "joint_is": "images by given label (rows) and estimated true label (columns)",
                "flagged": int(predictions.extra["flagged"].sum()),
                "planted": int(planted[known].sum()),
                "list": listed[:LISTED],
                "listed": min(len(listed), LISTED),
                "list_holds": "flagged images, those first whose label is least probable",
                "resample_by": settings.resample_by,
                "resampled": "images, probes and thresholds fixed",
                "left_out": _left_out(data, whole, known),
            },
            predictions=predictions,
            pictures=_pictures(stores, listed),
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        del task
        extra = predictions.extra
        classes = [name for name in extra if name.startswith(_PROBABILITY)]
        index = {name.removeprefix(_PROBABILITY): i for i, name in enumerate(classes)}
        labels = np.array([index[name] for name in predictions.label.tolist()], np.int64)
        confident = Confident(labels, np.stack([extra[name] for name in classes], 1))
        rows = np.arange(len(labels))
        found = {}
        planted, flagged = (extra[name].astype(bool) for name in ("planted", "flagged_of_planted"))
        if planted.any():
            hits = planted & flagged
            measured = {
                "planted_f1": _ratio(2 * hits, planted.astype(int) + flagged),
                "planted_recall": _ratio(hits, planted),
                "planted_precision": _ratio(hits, flagged),
            }
            found = {name: Measured(one, rows) for name, one in measured.items()}
        return found | {"label_noise": Measured(confident.noise(), rows)}


def _ratio(part: np.ndarray, whole: np.ndarray) -> OfSums:
    """The sum of one over that of another; 0 where nothing is to be shared."""

    def of_sums(sums):
        return sums[..., 0] / np.maximum(sums[..., 1], 1)

    return OfSums(np.stack([part, whole], 1).astype(np.float64), of_sums)


def _out_of_sample(
    data: ProbeData, labels: Int[np.ndarray, "n"], settings: MislabelSettings
) -> tuple[Float[np.ndarray, "n c"], np.ndarray]:
    """Probabilities for the images of both splits, by probes that had not seen their patient.

    Args:
      labels: of the images to learn from, then of the test images.

    Returns:
      The probabilities, and whether the label of each image was among those learnt from.
    """
    count, size = len(data.labels), len(data.task.classes)
    learnt = labels[:count].astype(np.int32)
    folds = [
        data.rows(one)
        for one in splits.folds_by_patient(data.owners, settings.folds, settings.seed)
    ]
    probes = logistic.fit_cross_validated(
        data.features,
        learnt,
        *zip(*folds, strict=True),
        num_classes=size,
        penalties=settings.penalties,
        progress=settings.progress,
    )
    found, known = np.empty((len(labels), size)), np.empty(len(labels), bool)
    for fold, (train, rows) in enumerate(folds):
        part = probes.folds.select(slice(fold, fold + 1))
        found[rows] = probabilities(part.logits(data.features[rows]))[0]
        known[rows] = np.isin(learnt[rows], learnt[train])
    found[count:] = probabilities(probes.logits(data.test_features))[0]
    known[count:] = np.isin(labels[count:], learnt)
    return found, known


def _planted(labels: np.ndarray, size: int, settings: MislabelSettings) -> np.ndarray:
    """The labels, a share of them changed to another class that some image has."""
    rng = np.random.default_rng([settings.seed, 1])
    present = np.unique(labels)
    changed = labels.copy()
    count = round(settings.planted * len(labels)) if len(present) > 1 else 0
    for row in rng.choice(len(labels), count, replace=False):
        changed[row] = rng.choice(present[present != labels[row]])
    return changed


def _baselines(
    confident: Confident, predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, Baseline]:
    disagree = confident.margins() < 0
    found = {
        "disagreement": Baseline(
            "label_noise",
            bootstrap.constant(disagree.mean()),
            "all labels that the probe would not have given, its own mistakes among them",
        )
    }
    planted = predictions.extra["planted"].astype(bool)
    flagged = predictions.extra["flagged_of_planted"].astype(bool)
    if planted.any():
        words, share, long = "a random list of as many images", planted.mean(), flagged.mean()
        for name, value in (
            ("f1", 2 * share * long / (share + long)),
            ("recall", long),
            ("precision", share),
        ):
            found[f"chance_{name}"] = Baseline(f"planted_{name}", bootstrap.constant(value), words)
    return found


def _predictions(store, split, classes, labels, found, planted, flagged_of_planted) -> Predictions:
    names = np.array(classes, np.str_)
    confident = Confident(labels, found)
    extra = {
        "split": split,
        "flagged": confident.flagged(),
        "margin": confident.margins(),
        "planted": planted,
        "flagged_of_planted": flagged_of_planted,
    }
    return Predictions(
        example_id=store.columns["example_id"],
        patient_id=store.columns["patient_id"],
        label=names[labels],
        prediction=names[found.argmax(1)],
        extra=extra | {f"{_PROBABILITY}{name}": found[:, i] for i, name in enumerate(classes)},
        groups=group_columns(store),
    )


def _list(predictions: Predictions) -> list[dict[str, Any]]:
    """Flagged images, the least probable labels first."""
    extra = predictions.extra
    rows = np.flatnonzero(extra["flagged"])
    rows = rows[np.argsort(extra["margin"][rows], kind="stable")]
    names = predictions.label, predictions.prediction
    return [
        {
            "example_id": str(predictions.example_id[row]),
            "patient_id": str(predictions.patient_id[row]),
            "split": str(extra["split"][row]),
            "label": str(names[0][row]),
            "suggested": str(names[1][row]),
            "probability_of_label": float(extra[f"{_PROBABILITY}{names[0][row]}"][row]),
            "probability_of_suggested": float(extra[f"{_PROBABILITY}{names[1][row]}"][row]),
        }
        for row in rows
    ]


def _left_out(data: ProbeData, whole: FeatureStore, known: np.ndarray) -> dict[str, int]:
    return data.task.left_out(whole) | {
        "no other patient to learn its label from": int((~known).sum())
    }


def _pictures(stores: Mapping[str, Any], listed: list[dict[str, Any]]) -> list[Picture]:
    shown = []
    for row in listed[:SHOWN]:
        images = stores.get(f"{JUDGED[row['split']]}_images")
        if images is not None:
            shown.append([images.image(row["example_id"])])
    if not shown:
        return []
    caption = (
        "Images whose label is least probable, numbered as in the table. A flag is a reason to "
        "look again, not a finding: a probe errs too."
    )
    return [Picture("flagged", contact_sheet(shown, 6), caption, "Images with doubtful labels")]
