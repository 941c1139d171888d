"""What a study says of a model on a data set, and how it lies on disk.

<folder>/<study>.json   study, model, data, metrics, baselines, curve, cost, details
         <study>.csv    example_id, patient_id, label, prediction and whatever else a study adds
         <study>.npz    the same four, the scores of every candidate, the answers of every run
         <study>.validation.npz   the like for images that were not judged, to calibrate by
         pictures/<study>/        what it shows, see `evaluation.pictures`
"""

import csv
import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax import run, storage
from fetalclip_jax.evaluation import pictures as picture_files
from fetalclip_jax.evaluation.pictures import Picture

PREDICTION_COLUMNS = ("example_id", "patient_id", "label", "prediction")
_VALIDATION = ".validation.npz"
_OBJECTS = ("model", "data", "protocol", "details", "cost", "environment")
# Mappings of arrays, under names such as "groups/machine" in the file.
_MAPPINGS = ("extra", "groups", "runs", "ranks")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Attributes:
      value: the metric.
      low, high: its 95 % interval; None where there is none (a single group, a constant).
      n: images it was measured on.
      groups: what the interval resamples: patients, or images.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    groups: int | None = None

    def __post_init__(self):
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"an estimate's {name} is {number}; what is not finite is no score: look for "
                    "nan or inf in the features, the weights or the labels"
                )


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What a metric has to beat.

    Attributes:
      metric: name of the metric it stands beside.
      estimate: what the baseline reaches.
      description: what it does, such as "chance" or "always the best constant age".
    """

    metric: str
    estimate: Estimate
    description: str


@dataclasses.dataclass(frozen=True)
class Predictions:
    """One row per judged image.

    Attributes:
      example_id, patient_id: text, [n].
      label, prediction: class names, or numbers for regression, [n].
      candidates: what competes, [c]; empty where a study has no scores.
      scores: [n, c].
      extra: further columns of the CSV, [n] each.
      groups: columns by which results may be split (machine, operator, trimester), [n] texts each,
        "" where unknown; columns of the CSV too.
      runs: the answers of every run, an index into the candidates, [m, n]: {"": ...} of a probe's
        runs, by number of patients for a data-efficiency curve. Empty where the predictions are
        those of the one run.
      ranks: how many candidates each run preferred to the label, [m, n], by the same keys.
    """

    example_id: np.ndarray
    patient_id: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    candidates: tuple[str, ...] = ()
    scores: np.ndarray | None = None
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    runs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ranks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def columns(self) -> dict[str, np.ndarray]:
        """Those of the CSV, in order."""
        first = {name: getattr(self, name) for name in PREDICTION_COLUMNS}
        return first | dict(self.extra) | dict(self.groups)

    def patients(self) -> np.ndarray:
        """Patient ids; an image without one is a patient of its own."""
        own = np.char.add("image:", self.example_id)
        return np.where(self.patient_id == "", own, self.patient_id)

    def rows(self) -> list[dict[str, Any]]:
        """The CSV's rows as dictionaries."""
        columns = self.columns()
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*(column.tolist() for column in columns.values()), strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Result:
    """Everything a study found; enough for any later statistic and paired test.

    Attributes:
      study: its name, such as "zero_shot.planes".
      model: `name`, and `fingerprint` of what was judged; `parameters` (how many), `config` (the
        towers), `test_time_views`, and `trained_on`, the kinds of data sets of the run it comes
        from, "" for other weights.
      data: `name`, `kind`, `simulated`, `ages_from`, `citation` and `licence`; `stores`, by the
        name of a need: `split`, `images`, `patients`, `copies`, `transform`, `missing_files`;
        `left_out` (example id -> reason) and `notes`, what the data set says of itself.
      protocol: the settings, JSON-able: `name` ("paper", "tuned", ...), `resample_by`, ...
      metrics: by name. The first one is the study's headline.
      baselines: by name.
      curve: points of a curve, each a mapping; empty for studies without.
      details: JSON-able: `per_class_f1`, `confusion`, `classes`, `labels`, ...
      cost: `seconds` and `peak_rss_gib`.
      environment: software and hardware it was made with; see `evaluation.environment`.
      predictions: None for studies that predict nothing of single images.
      validation: predictions for images that were learned from, each by a probe that had not seen
        its patient: what a temperature may be fitted on. None where a study learns nothing.
      pictures: what a study shows beside its figures; `load` leaves them where they lie, for
        `pictures.load` to read.
    """

    study: str
    metrics: Mapping[str, Estimate]
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    baselines: Mapping[str, Baseline] = dataclasses.field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    predictions: Predictions | None = None
    validation: Predictions | None = None
    pictures: Sequence[Picture] = ()
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything but the predictions and the pictures."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["predictions"], fields["validation"], fields["pictures"]
        fields["metrics"] = {k: dataclasses.asdict(v) for k, v in self.metrics.items()}
        fields["baselines"] = {k: dataclasses.asdict(v) for k, v in self.baselines.items()}
        fields["curve"] = [dict(point) for point in self.curve]
        return fields

    def save(self, folder: storage.Path) -> storage.Path:
        """Writes the files of this result, each whole or not at all; returns the JSON's path."""
        folder = storage.path(folder)
        path = folder / f"{self.study}.json"
        if self.predictions is not None:
            run.write_text(folder / f"{self.study}.csv", _csv(self.predictions))
            run.write_bytes(folder / f"{self.study}.npz", _npz(self.predictions))
        validation = folder / f"{self.study}{_VALIDATION}"
        if self.validation is not None:
            run.write_bytes(validation, _npz(self.validation))
        else:
            validation.unlink(missing_ok=True)  # of the result that this one replaces
        picture_files.save(folder, self.study, self.pictures)
        run.write_json(path, self.to_json())
        return path


def load(path: storage.Path) -> Result:
    """A result that `Result.save` wrote, with its predictions where they lie beside it.

    Raises:
      ValueError: no such file, or one that is no result.
    """
    path = storage.path(path)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        _check_kinds(fields)
        fields["metrics"] = {k: Estimate(**v) for k, v in fields["metrics"].items()}
        fields["baselines"] = {
            k: Baseline(v["metric"], Estimate(**v["estimate"]), v["description"])
            for k, v in fields["baselines"].items()
        }
        for name, ending in (("predictions", ".npz"), ("validation", _VALIDATION)):
            beside = path.with_name(path.stem + ending)
            fields[name] = _load_predictions(beside) if beside.exists() else None
        found = Result(**fields)
        _check_beside(found)
        return found
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no result of `fetalclip evaluate` ({error}); evaluate again"
        ) from error


def _check_kinds(fields: Mapping[str, Any]) -> None:
    """Refuses a JSON of which a part is of another kind than a result's."""
    parts = {name: fields.get(name, {}) for name in _OBJECTS}
    for name, value in parts.items():
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is a {type(value).__name__}, not an object")
    if not isinstance(parts["data"].get("stores", {}), Mapping):
        raise ValueError("data.stores is no object")


def _check_beside(found: Result) -> None:
    """Refuses predictions that are not those of the JSON."""
    judged = [estimate.n for estimate in found.metrics.values() if estimate.n is not None]
    if found.predictions is not None and judged:
        count = len(found.predictions.example_id)
        if max(judged) != count:
            raise ValueError(f"it judges {max(judged)} images, the .npz beside it holds {count}")
    if found.validation is not None and found.predictions is not None:
        own, other = found.predictions.candidates, found.validation.candidates
        if own != other:
            raise ValueError(f"{_VALIDATION} has the classes {list(other)}, not {list(own)}")


def load_all(folder: storage.Path) -> list[Result]:
    """Every result under a folder that `fetalclip evaluate` wrote, in the order of their paths.

    Raises:
      ValueError: a file that is no result, or no JSON at all.
    """
    return [load(path) for path in find(folder)]


def find(folder: storage.Path) -> list[storage.Path]:
    """The JSON files of the results under a folder, sorted; stored features are passed over.

    Raises:
      ValueError: a file there is not JSON.
    """
    return [
        path
        for path in sorted(storage.path(folder).rglob("*.json"))
        if not any(part.startswith((".", "features")) for part in path.relative_to(folder).parts)
        and is_result(path)
    ]


def is_result(path: storage.Path) -> bool:
    """Whether a JSON file says that it is one; settings and summaries lie in such folders too.

    Raises:
      ValueError: it is not JSON: passed over, a damaged result would be missed by nobody.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); evaluate again, or move it elsewhere if it is "
            "no result"
        ) from error
    return isinstance(fields, dict) and {"study", "metrics", "baselines"} <= fields.keys()


def _csv(predictions: Predictions) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(predictions.columns()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(predictions.rows())
    return text.getvalue()


def _npz(predictions: Predictions) -> bytes:
    arrays = {name: getattr(predictions, name) for name in PREDICTION_COLUMNS}
    for kind in _MAPPINGS:
        found = getattr(predictions, kind)
        arrays |= {f"{kind}/{name}": values for name, values in found.items()}
    arrays["candidates"] = np.array(predictions.candidates, np.str_)
    if predictions.scores is not None:
        arrays["scores"] = predictions.scores
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _load_predictions(path: storage.Path) -> Predictions:
    try:
        with path.open("rb") as file:
            return _predictions(np.load(file, allow_pickle=False))
    except storage.BucketError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} beside it is damaged: {error}") from error


def _predictions(file) -> Predictions:
    with file as arrays:
        mappings = {
            kind: {
                name.removeprefix(f"{kind}/"): arrays[name]
                for name in arrays.files
                if name.startswith(f"{kind}/")
            }
            for kind in _MAPPINGS
        }
        return Predictions(
            **{name: arrays[name] for name in PREDICTION_COLUMNS},
            **mappings,
            candidates=tuple(arrays["candidates"].tolist()),
            scores=arrays["scores"] if "scores" in arrays.files else None,
        )
