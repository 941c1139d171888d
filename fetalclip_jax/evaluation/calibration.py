"""Calibration and abstention of a saved result: can its probabilities be acted upon?"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.probabilities import (
    HIGHEST_RISK,
    SET_LEVELS,
    Chosen,
    choose,
    logits_of,
    scored_predictions,
)
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from fetalclip_jax.evaluation.statistics import (
    conformal,
    intervals,
    measure,
    reliability,
    selective,
)
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.reliability import Bins

COVERAGES = (0.8, 0.9, 1.0)
_POINTS = 200  # of a curve: as many as a picture shows


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How far probabilities are from the shares they announce.

    Attributes:
      expected_error: the expected calibration error of the answers, in bins of equal mass.
      expected_by_chance: what it would be on average if every probability were true: a sample is
        finite.
      rms_error: root of the squared calibration error without its bias; no interval of one patient.
      brier, log_loss: Brier's score (0 to 2) and the negative log likelihood, of all classes.
      bins: by bin, `confidence`, `accuracy` and its `low` and `high`, `images`, `patients`.
    """

    expected_error: float
    expected_by_chance: float
    rms_error: Estimate
    brier: Estimate
    log_loss: Estimate
    bins: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Abstention:
    """What errors are left when the least sure images get no answer.

    Attributes:
      area: the mean risk over all coverages.
      error_at: by coverage, the share of errors among the surest images.
      asked: the risk for which a threshold was chosen on other patients,
      coverage, error: what share it answers of the judged images, and what share of that is wrong;
        None where it answers none.
      curve: (coverage, risk) of the judged images, at most `_POINTS` of them.
    """

    area: Estimate
    error_at: Mapping[float, Estimate]
    asked: float
    coverage: Estimate
    error: Estimate | None
    curve: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Sets:
    """Conformal sets of one level; see `statistics.conformal`.

    Attributes:
      level: nominal coverage of an image of a new patient.
      coverage: measured, each patient counted once; what the level promises.
      image_coverage: each image counted once.
      size: mean number of answers in a set.
      single, empty: share of sets with one answer, and with none.
      of_class: coverage by true class, which is not promised.
      of_group: column -> group -> coverage, not promised either.
      trivial: whether the patients are too few, so that every set holds every class.
    """

    level: float
    coverage: Estimate
    image_coverage: Estimate
    size: Estimate
    single: Estimate
    empty: Estimate
    of_class: Mapping[str, Estimate]
    of_group: Mapping[str, Mapping[str, Estimate]]
    trivial: bool


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is known of the probabilities of a result.

    Attributes:
      study, model, data: of the result.
      images, patients: judged.
      fitted_on: in words, what temperature and thresholds were chosen on.
      temperatures: one, or one of each fold.
      before, after: as the model says them, and at the temperature.
      abstention: by what the model says; the threshold of `asked` at the temperature.
      sets: at the temperature.
      notes: sentences on what was assumed.
    """

    study: str
    model: str
    data: str
    images: int
    patients: int
    fitted_on: str
    temperatures: tuple[float, ...]
    before: Reliability
    after: Reliability
    abstention: Abstention
    sets: tuple[Sets, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it, as mappings and lists."""
        return dataclasses.asdict(self)


def calibrate(result: Result) -> Calibration:
    """Judges the probabilities of a zero-shot or a probe result.

    Raises:
      ValueError: a result without probabilities of classes, or with a single patient and none to
        fit on; the message says which and why.
    """
    name = f"{result.study} of {result.model.get('name')} on {result.data.get('name')}"
    predictions = scored_predictions(result, name)
    notes: list[str] = []
    logits = logits_of(result, predictions, name, notes)
    labels = Answers.of(predictions).labels
    owners = predictions.patients()
    judged = _Judged(logits, labels, owners, _bootstrap(result, owners), predictions)
    chosen, fitted_on = choose(result, logits, labels, owners, name)
    if any(one.undecided for one in chosen):
        notes.append(
            "a temperature is undecided: of the images it was fitted on none was answered wrong, "
            "or the answers tell nothing"
        )
    temperature = np.ones(len(labels))
    for one in chosen:
        temperature[one.rows] = one.temperature
    before = reliability.log_probabilities(logits)
    after = reliability.log_probabilities(logits, temperature)
    return Calibration(
        study=result.study,
        model=str(result.model.get("name")),
        data=str(result.data.get("name")),
        images=len(labels),
        patients=len(np.unique(owners)),
        fitted_on=fitted_on,
        temperatures=tuple(one.temperature for one in chosen),
        before=judged.reliability(before),
        after=judged.reliability(after),
        abstention=judged.abstention(before, after, chosen),
        sets=tuple(judged.sets(after, chosen, level) for level in SET_LEVELS),
        notes=tuple(notes),
    )


@dataclasses.dataclass(frozen=True)
class _Judged:
    logits: Float[np.ndarray, "n c"]
    labels: Int[np.ndarray, "n"]
    owners: np.ndarray
    bootstrap: Bootstrap
    predictions: Predictions

    def hits(self, log_probabilities: np.ndarray) -> Bool[np.ndarray, "n"]:
        return log_probabilities.argmax(1) == self.labels

    def reliability(self, log_probabilities: Float[np.ndarray, "n c"]) -> Reliability:
        probabilities, rows = np.exp(log_probabilities), np.arange(len(self.labels))
        hits = self.hits(log_probabilities)
        found = reliability.bins(probabilities.max(1), hits, self.bootstrap.groups)
        squares = reliability.brier(probabilities, self.labels)
        losses = -log_probabilities[rows, self.labels]
        return Reliability(
            found.expected_error(),
            found.expected_by_chance(),
            self._rms_error(found),
            self.bootstrap.estimate(measure.mean(squares, "positive")),
            self.bootstrap.estimate(measure.mean(losses, "positive")),
            tuple(self._bins(found, hits)),
        )

    def _rms_error(self, found: Bins) -> Estimate:
        patients, low, high = self.bootstrap.count, None, None
        if patients > 1 and self.bootstrap.resamples > 1:
            edges = found.squared_error_interval(patients - 1, intervals.LEVEL)
            low, high = (min(1.0, math.sqrt(edge)) for edge in edges)
            if (found.accuracy == 1).all():
                # Without a wrong answer there is no variance to see: the patients bound the error.
                high = max(high, 1 - intervals.exact(1.0, patients)[0])
        value = math.sqrt(max(found.squared_error(), 0))
        return Estimate(value, low, high, len(self.labels), patients)

    def _bins(self, found: Bins, hits: np.ndarray) -> Iterator[dict[str, Any]]:
        for k in range(len(found.images)):
            rows = found.of_image == k
            estimate = self.bootstrap.select(rows).estimate(measure.mean(hits[rows]))
            yield {
                "confidence": float(found.confidence[k]),
                "accuracy": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "images": estimate.n,
                "patients": estimate.groups,
            }

    def abstention(self, before: np.ndarray, after: np.ndarray, chosen: list[Chosen]) -> Abstention:
        # Folds have temperatures of their own: ranks over all images are of what the model says.
        confidence, errors = np.exp(before.max(1)), ~self.hits(before)
        coverages, risks = selective.risk_by_coverage(confidence, errors)
        places = np.linspace(0, len(coverages) - 1, _POINTS).round().astype(int)
        by_confidence = np.sort(confidence)[::-1]
        error_at = {}
        for coverage in COVERAGES:
            least = by_confidence[math.ceil(coverage * len(errors) - 1e-9) - 1]
            error_at[coverage] = self._mean(errors, confidence >= least)
        answered, scaled = np.zeros(len(errors), bool), np.exp(after.max(1))
        for one in chosen:
            answered[one.rows] = scaled[one.rows] >= one.lowest_confidence
        return Abstention(
            self.bootstrap.estimate(selective.AreaUnderRisk(confidence, errors)),
            error_at,
            HIGHEST_RISK,
            self._mean(answered),
            self._mean(errors, answered) if answered.any() else None,
            tuple((float(coverages[k]), float(risks[k])) for k in np.unique(places)),
        )

    def sets(self, log_probabilities: np.ndarray, chosen: list[Chosen], level: float) -> Sets:
        thresholds = np.zeros(len(self.labels))
        for one in chosen:
            thresholds[one.rows] = one.thresholds[level]
        inside = conformal.sets(np.exp(log_probabilities), thresholds)
        covered = inside[np.arange(len(self.labels)), self.labels]
        size = inside.sum(1)
        weight = conformal.weights_of_patients(self.owners)
        once = measure.OfSums(
            np.stack([covered * weight, weight], 1), lambda sums: sums[..., 0] / sums[..., 1]
        )
        names = self.predictions.candidates
        return Sets(
            level=level,
            coverage=self.bootstrap.estimate(once),
            image_coverage=self._mean(covered),
            size=self.bootstrap.estimate(measure.mean(size, "positive")),
            single=self._mean(size == 1),
            empty=self._mean(size == 0),
            of_class={names[k]: self._mean(covered, self.labels == k) for k in set(self.labels)},
            of_group={
                column: {
                    str(group) or "unknown": self._mean(covered, values == group)
                    for group in np.unique(values)
                }
                for column, values in self.predictions.groups.items()
                if len(set(values.tolist()) - {""}) > 1
            },
            trivial=any(one.patients < conformal.patients_needed(level) for one in chosen),
        )

    def _mean(self, values: np.ndarray, rows: np.ndarray | None = None) -> Estimate:
        rows = np.ones(len(values), bool) if rows is None else rows
        return self.bootstrap.select(rows).estimate(measure.mean(values[rows]))


def _bootstrap(result: Result, owners: np.ndarray) -> Bootstrap:
    """As the study drew its images."""
    protocol = result.protocol
    by_image = protocol.get("resample_by") == "image"
    return Bootstrap(
        np.arange(len(owners)) if by_image else owners,
        int(protocol.get("resamples", 1000)),
        int(protocol.get("seed", 0)),
    )
