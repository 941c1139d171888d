"""What the scores of a result say as probabilities, and what may be chosen by them.

Whatever is chosen (a temperature, a threshold) is chosen on patients that are not judged by it: the
validation patients of a probe, or, where a study learns nothing, the other folds of the judged
patients.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics import conformal, reliability, selective, splits
from fetalclip_jax.evaluation.statistics.finite import require_finite

# CLIP clamps its logit scale here, and trained models reach it.
USUAL_LOGIT_SCALE = 100.0
HIGHEST_RISK = 0.05
SET_LEVELS = (0.9, 0.95)
_FOLDS = 5
_LEAST_PROBABILITY = 1e-12  # a mean of probabilities that rounded to zero


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What was chosen for some of the judged images, on others.

    Attributes:
      rows: of the judged images.
      temperature: of the least loss.
      undecided: whether the images say nothing of it: none was answered wrong, or the answers tell
        nothing.
      lowest_confidence: from which on images are answered, for no more errors than `HIGHEST_RISK`.
      thresholds: of the sets, by level.
      patients: that it was chosen on.
    """

    rows: Int[np.ndarray, "k"]
    temperature: float
    undecided: bool
    lowest_confidence: float
    thresholds: Mapping[float, float]
    patients: int

    @classmethod
    def on(
        cls,
        rows: Int[np.ndarray, "k"],
        logits: Float[np.ndarray, "n c"],
        labels: Int[np.ndarray, "n"],
        owners: np.ndarray,
    ) -> "Chosen":
        temperature = reliability.fit_temperature(logits, labels)
        probabilities = np.exp(reliability.log_probabilities(logits, temperature))
        confidence, errors = probabilities.max(1), probabilities.argmax(1) != labels
        of_label = probabilities[np.arange(len(labels)), labels]
        return cls(
            rows,
            temperature,
            not errors.any() or reliability.is_hottest(temperature),
            selective.lowest_confidence(confidence, errors, HIGHEST_RISK),
            {level: conformal.threshold(of_label, owners, level) for level in SET_LEVELS},
            len(np.unique(owners)),
        )


def scored_predictions(result: Result, name: str) -> Predictions:
    """The predictions, where their scores stand for probabilities.

    Raises:
      ValueError: they do not; the message says why.
    """
    why = ""
    if result.study == "age":
        why = "its candidates are days, of which the neighbours of the right one are right too"
    elif result.predictions is None or result.predictions.scores is None:
        why = "it keeps no scores"
    elif result.curve:
        why = "it is a curve of many probes"
    elif result.study.partition(".")[0] not in ("zero_shot", "probe", "chd"):
        why = "what its scores mean is not known"
    if why:
        raise ValueError(f"{name} cannot be calibrated: {why}")
    return result.predictions


def logits_of(
    result: Result, predictions: Predictions, name: str, notes: list[str]
) -> Float[np.ndarray, "n c"]:
    """What a softmax makes probabilities of.

    Args:
      name: of the result, for messages.
      notes: gets a sentence on what had to be assumed.

    Raises:
      ValueError: scores that are not finite, or no probabilities where they should be.
    """
    require_finite(f"the scores of {name}", predictions.scores, predictions.example_id)
    scores = predictions.scores.astype(np.float64)
    if result.study.startswith("zero_shot."):
        scale = result.details.get("logit_scale")
        if scale is None:
            scale = USUAL_LOGIT_SCALE
            notes.append(
                f"the logit scale was not recorded: taken as {scale:g}; evaluate again to have it"
            )
        return scores / 100 * scale
    if scores.min() < 0 or np.abs(scores.sum(1) - 1).max() > 1e-3:
        worst = scores.sum(1)[np.abs(scores.sum(1) - 1).argmax()]
        raise ValueError(
            f"{name} cannot be calibrated: its scores are no probabilities (those of an image add "
            f"up to {worst:g}, the lowest is {scores.min():g}); evaluate again"
        )
    return np.log(np.maximum(scores, _LEAST_PROBABILITY))


def choose(
    result: Result,
    logits: Float[np.ndarray, "n c"],
    labels: Int[np.ndarray, "n"],
    owners: np.ndarray,
    name: str,
) -> tuple[list[Chosen], str]:
    """Temperature and thresholds for every judged image, chosen without its patient.

    Returns:
      What was chosen, for all judged images together, and on what, in words.

    Raises:
      ValueError: a single patient, and no others to choose on.
    """
    validation = result.validation
    if validation is not None:
        learnt = logits_of(result, validation, f"the validation images of {name}", [])
        others = validation.patients()
        rows = np.arange(len(labels))
        chosen = Chosen.on(rows, learnt, Answers.of(validation).labels, others)
        return [chosen], (
            f"{len(others):,} validation images of {chosen.patients:,} patients, each answered by "
            "those probes that had not seen it (the judged images by all probes together)"
        )
    patients = len(np.unique(owners))
    if patients < 2:
        raise ValueError(
            f"{name} cannot be calibrated: all images are of one patient, and no temperature may "
            "be fitted on the patient that it is judged by"
        )
    folds = splits.folds_by_patient(owners, min(_FOLDS, patients))
    chosen = []
    for others, own in folds:
        rows, fit = (np.flatnonzero(np.isin(owners, part)) for part in (own, others))
        chosen.append(Chosen.on(rows, logits[fit], labels[fit], owners[fit]))
    return chosen, (
        f"the judged patients themselves, in {len(folds)} folds: what is applied to a patient was "
        "chosen on the other folds"
    )
