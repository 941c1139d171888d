"""Linear heads on clips, told apart into two classes, and what they say of clips they never saw."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fetalclip_jax.data import clip_views
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.heads import linear
from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.evaluation.statistics import splits
from fetalclip_jax.evaluation.statistics.splits import Split
from fetalclip_jax.evaluation.studies.probe import head_details
from fetalclip_jax.evaluation.studies.probe_data import ProbeData
from fetalclip_jax.evaluation.studies.probe_settings import LinearHeadSettings

NORMAL, ABNORMAL = "normal", "abnormal"
_COLUMN = "label"
# Ranks are of what is saved: more digits than this say nothing.
_DIGITS = 5


@dataclasses.dataclass(frozen=True)
class ClipSettings(LinearHeadSettings):
    """Options of heads on clips.

    Attributes:
      column: of the data set, that says what was found.
      normal: what clips without a defect are called there; every other name is abnormal.
      num_frames, sampling: which frames of a clip, see `data.clip_views.ClipViews`.
      folds: of the patients to learn from, or of all where the data set has no test split.
    """

    column: str = "label"
    normal: str = NORMAL
    num_frames: int = 8
    sampling: str = "uniform"
    folds: int = 5

    def __post_init__(self):
        super().__post_init__()
        clip_views.check(self.num_frames, self.sampling)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the heads say of the clips that are tested.

    Attributes:
      store: the clips, one row each.
      log_odds: of "abnormal", of every run.
      fold: in which each clip was tested; None where all runs test all clips.
      validation: predictions for clips that heads were chosen by, each by heads that had not
        learned from its patient; None where there are none.
      details: of the heads, JSON-able.
    """

    store: FeatureStore
    log_odds: Float[np.ndarray, "runs n"]
    fold: Int[np.ndarray, "n"] | None
    validation: Predictions | None
    details: dict[str, Any]

    @property
    def abnormal(self) -> Bool[np.ndarray, "n"]:
        return self.store.columns[_COLUMN] == ABNORMAL


def pooled(
    store: FeatureStore, num_frames: int, pool: Callable[[np.ndarray], np.ndarray]
) -> FeatureStore:
    """The store of clips with one vector each, of all their frames.

    Args:
      pool: [clips, frames, d] -> [clips, k], of features and of thumbnails.
    """
    features, pixels = (
        pool(one.reshape(len(store), num_frames, -1).astype(np.float32))
        for one in (store.image_features, store.raw_pixels)
    )
    return dataclasses.replace(
        store,
        image_features=features,
        raw_pixels=np.rint(pixels).astype(np.uint8),
    )


def in_two_classes(store: FeatureStore, column: str, normal: str) -> FeatureStore:
    """The store with "normal" and "abnormal" in its column "label", "" where nothing is known.

    What was found is then in the column "finding".

    Raises:
      ValueError: no clip is called `normal`; the message says what they are called.
    """
    found = store.columns[column]
    if not (found == normal).any():
        names = sorted(set(found.tolist()) - {""})
        raise ValueError(
            f"no clip has the {column} {normal!r}, found {', '.join(names) or 'none at all'}: say "
            "by the option normal what clips without a defect are called"
        )
    two = np.where(found == "", "", np.where(found == normal, NORMAL, ABNORMAL))
    return dataclasses.replace(store, columns=store.columns | {"finding": found, _COLUMN: two})


def judge(
    fit: FeatureStore, test: FeatureStore | None, settings: ClipSettings, inputs: str
) -> Judged:
    """Trains heads in folds by patient, and tests them.

    With a test store every head is tested on it. Without, every fold is tested once: by heads that
    learned from the others, of which the next one chose epoch or penalty ("logistic": each in
    turn).

    Args:
      fit, test: clips in two classes, one vector each.
      inputs: "features" or "raw_pixels".

    Raises:
      ValueError: fewer patients than folds, a fold to train on or to test that lacks a class, a
        patient in both stores, or inputs that are not finite.
    """
    if test is None:
        return _rotated(fit, settings, inputs)
    data = ProbeData(fit, test, _COLUMN, settings, inputs)
    if len(np.unique(data.test_labels)) < 2:
        found = data.task.classes[data.test_labels[0]]
        raise ValueError(
            f"all {len(data.test_labels)} clips to test are {found}: normal and abnormal ones are "
            "needed; test others"
        )
    folds = splits.folds_by_patient(data.owners, settings.folds, settings.seed, data.labels)
    for number, fold in enumerate(folds):
        _check_both(data, fold[0], f"what fold {number + 1} of {len(folds)} learns from")
    probes = data.fit(folds)
    return Judged(
        data.test,
        _log_odds(data, probes.logits(data.test_features)),
        None,
        data.out_of_fold(folds, probes),
        head_details(probes, settings)
        | {
            "runs": len(probes.bias),
            "left_out": _unlabelled(test),
            "train_patients": len(np.unique(data.owners)),
        },
    )


def _rotated(fit: FeatureStore, settings: ClipSettings, inputs: str) -> Judged:
    labelled = fit.select(fit.columns[_COLUMN] != "")
    owners, abnormal = labelled.patients(), labelled.columns[_COLUMN] == ABNORMAL
    folds = splits.folds_by_patient(owners, settings.folds, settings.seed, abnormal.astype(int))
    if len(folds) < 3:
        raise ValueError(
            f"folds={len(folds)} leaves nothing to learn from beside a fold to test and one to "
            "choose by; use 3 or more"
        )
    tested = [np.flatnonzero(np.isin(owners, validation)) for _, validation in folds]
    fold, log_odds, fitted = np.zeros(len(owners), int), [], []
    for number, rows in enumerate(tested):
        _check_classes(abnormal[rows], f"fold {number + 1} of {len(folds)}, to be tested,")
        data = ProbeData(
            labelled.select(np.isin(owners, folds[number][0])),
            labelled.select(rows),
            _COLUMN,
            settings,
            inputs,
        )
        others = [folds[(number + step) % len(folds)][1] for step in range(1, len(folds))]
        inner = _inner_splits(others, every=settings.solver == "logistic")
        for split in inner:
            _check_both(data, split[0], f"what is learned from for fold {number + 1}")
        fitted.append(data.fit(inner))
        log_odds.append(_log_odds(data, fitted[-1].logits(data.test_features)))
        fold[rows] = number
    of_clip = np.argsort(np.concatenate(tested))
    probes = linear.joined(fitted)
    details = head_details(probes, settings) | {
        "runs": len(probes.bias),
        "left_out": _unlabelled(fit),
        "train_patients": len(np.unique(owners)),
    }
    return Judged(labelled, np.concatenate(log_odds, 1)[:, of_clip], fold, None, details)


def _unlabelled(store: FeatureStore) -> dict[str, int]:
    count = int((store.columns[_COLUMN] == "").sum())
    return {"no label": count} if count else {}


def _inner_splits(others: Sequence[np.ndarray], every: bool) -> list[Split]:
    """The other folds as splits: each validates in turn, or the first one alone."""
    found = []
    for place, validation in enumerate(others[: len(others) if every else 1]):
        train = [part for k, part in enumerate(others) if k != place]
        found.append((np.sort(np.concatenate(train)), validation))
    return found


def _check_both(data: ProbeData, patients: np.ndarray, where: str) -> None:
    rows = np.isin(data.owners, patients)
    _check_classes(data.labels[rows] == data.task.classes.index(ABNORMAL), where)


def _check_classes(abnormal: np.ndarray, where: str) -> None:
    if len(set(abnormal.tolist())) < 2:
        lacking = NORMAL if abnormal.any() else ABNORMAL
        raise ValueError(
            f"{where} has no {lacking} clip among {len(abnormal)}: there are too few patients with "
            "one; use fewer folds, or more patients"
        )


def _log_odds(data: ProbeData, logits: np.ndarray) -> Float[np.ndarray, "runs n"]:
    place = data.task.classes.index(ABNORMAL)
    odds = (logits[..., place] - logits[..., 1 - place]).astype(np.float64)
    return np.round(odds, _DIGITS)
