"""Metrics of anyone's predictions, by the functions that judge our own.

A file of predictions is a CSV, TSV or JSON lines, or a JSON list of objects, with the fields
  label, prediction     class names; or, for ages, prediction in days and hc_mm in place of label
  example_id            if left out, rows are numbered
  patient_id            if left out, every image is a patient of its own
  score.<class>         optional, for top-k accuracies; the highest should be the prediction
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.biometry import who_chart
from fetalclip_jax.data.columns import NUMBER_COLUMNS, TEXT_COLUMNS
from fetalclip_jax.datasets import tables
from fetalclip_jax.evaluation import age, environment
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.studies import SCORED
from fetalclip_jax.evaluation.studies.classification import Classification

_SCORE = "score."
_TOP_K = (2, 3)


def score(
    path: storage.Path, *, resample_by: str = "patient", resamples: int = 1000, seed: int = 0
) -> Result:
    """Scores a file of predictions.

    Args:
      path: see the module.
      resample_by: "patient", or "image" to match the paper.
      resamples: bootstrap samples.
      seed: of the bootstrap.

    Returns:
      A result of study "classification" or "age", under no model and no data set.

    Raises:
      ValueError: naming the file, for a field that is missing or empty, an id that occurs twice,
        numbers that are none, or no row.
    """
    rows = _read(path)
    store = _store(path, rows)
    bootstrap = Bootstrap(store.bootstrap_groups(resample_by), resamples, seed)
    protocol = {"resample_by": resample_by, "resamples": resamples, "seed": seed}
    if not _are_ages(rows):
        found = Classification(*_answers(path, rows), store, bootstrap)
        all_scored = all(_SCORE + name in rows[0] for name in found.candidates)
        top_k = _TOP_K if all_scored else ()
        return Result(
            study=SCORED,
            metrics=found.metrics(top_k),
            protocol=protocol,
            baselines=found.baselines(),
            details=found.details(),
            predictions=found.table(),
            environment=environment.describe(),
        )
    return _score_ages(path, rows, store, bootstrap, protocol)


def _score_ages(path, rows, store, bootstrap, protocol) -> Result:
    days = _numbers(path, rows, "prediction")
    hc_mm = _numbers(path, rows, "hc_mm")
    valid = age.valid_prediction_rate(
        days, hc_mm, bootstrap.groups, resamples=bootstrap.resamples, seed=bootstrap.seed
    )
    kept = age.in_hc_range(hc_mm)
    groups = len(np.unique(bootstrap.groups[kept]))
    constant = age.best_constant_days(hc_mm[kept])
    rate = Estimate(valid.rate, *valid.interval, valid.total, groups)
    return Result(
        study="age",
        metrics={"valid_prediction_rate": rate},
        protocol=protocol,
        details={
            "count": valid.total,
            "valid_count": valid.count,
            "left_out": {"hc_mm_out_of_range": int((~kept).sum())},
            "constant_baseline_days": constant,
            "constant_baseline": float(who_chart.is_valid(constant, hc_mm[kept]).mean()),
        },
        environment=environment.describe(),
    )


def _read(path: storage.Path) -> list[Mapping[str, str]]:
    """The rows; every cell a text."""
    if path.suffix.lower() != ".json":
        return [row.cells for row in _checked(path, tables.read_table(path).rows)]
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if isinstance(found, dict):
        found = found.get("predictions")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError(
            f'{path}: expected a list of objects, [{{"example_id": ..., "label": ..., '
            '"prediction": ...}, ...], or an object with such a list under "predictions"'
        )
    return [
        {key: "" if value is None else str(value) for key, value in row.items()}
        for row in _checked(path, found)
    ]


def _checked(path: storage.Path, rows: Sequence) -> Sequence:
    if not rows:
        raise ValueError(f"{path} holds no prediction")
    return rows


def _are_ages(rows: Sequence[Mapping[str, str]]) -> bool:
    # Our own tables of ages have labels too: the true age, where it is known.
    return "hc_mm" in rows[0]


def _store(path: storage.Path, rows: Sequence[Mapping[str, str]]) -> FeatureStore:
    """The rows' ids as a store without features."""
    fields = rows[0].keys()
    if "prediction" not in fields or not {"label", "hc_mm"} & fields:
        raise ValueError(
            f"{path}: the fields are {', '.join(fields)}; needed are prediction and label (class "
            "names), or prediction (days) and hc_mm"
        )
    needed = ("prediction", "hc_mm" if _are_ages(rows) else "label")
    for number, row in enumerate(rows, start=1):
        empty = [name for name in needed if not row.get(name)]
        if empty:
            raise ValueError(f"{path}: row {number} has no {empty[0]}; fill it in or leave it out")
    ids = np.array([row.get("example_id") or f"row {i}" for i, row in enumerate(rows, start=1)])
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{path}: example_id {str(names[counts.argmax()])!r} occurs twice")
    columns = {name: np.full(len(rows), "") for name in TEXT_COLUMNS}
    columns |= {name: np.full(len(rows), np.nan) for name in NUMBER_COLUMNS}
    columns["example_id"] = ids
    columns["patient_id"] = np.array([row.get("patient_id") or "" for row in rows])
    empty = np.zeros((len(rows), 0))
    copy = np.zeros(len(rows), np.int32)
    return FeatureStore(empty.astype(np.float32), columns, empty.astype(np.uint8), copy, {})


def _answers(path, rows):
    """Scores [1, n, c], labels [n] and the candidates, by their names."""
    scored = [name.removeprefix(_SCORE) for name in rows[0] if name.startswith(_SCORE)]
    named = {row[name] for row in rows for name in ("label", "prediction")}
    candidates = tuple(sorted(named | set(scored)))
    index = {name: i for i, name in enumerate(candidates)}
    labels = np.array([index[row["label"]] for row in rows])
    predictions = np.array([index[row["prediction"]] for row in rows])
    scores = np.zeros((len(rows), len(candidates)))
    if not scored:
        scores[np.arange(len(rows)), predictions] = 1.0
        return scores[None], labels, candidates
    for name in scored:
        scores[:, index[name]] = _numbers(path, rows, _SCORE + name)
    # A class without a score is the last to be chosen.
    unscored = [index[name] for name in candidates if name not in scored]
    scores[:, unscored] = scores.min() - 1
    other = np.flatnonzero(scores.argmax(1) != predictions)
    if len(other):
        row = rows[other[0]]
        raise ValueError(
            f"{path}: {len(other)} predictions are not the class of the highest score, first "
            f"{row.get('example_id') or f'row {other[0] + 1}'}: {row['prediction']!r} against "
            f"{candidates[scores[other[0]].argmax()]!r}; correct them, or leave the scores out"
        )
    return scores[None], labels, candidates


def _numbers(path, rows, field: str) -> np.ndarray:
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            value = tables.number(row.get(field) or "")
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise ValueError(
                f"{path}: {field} of row {number} is {row.get(field)!r}, not a finite number"
            )
        found.append(value)
    return np.array(found, np.float64)
