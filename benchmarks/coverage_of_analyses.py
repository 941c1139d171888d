"""How often the intervals of analyses hold the truth: curves, gaps, calibration, abstention.

    python benchmarks/coverage_of_analyses.py [--studies 300]

Beside `coverage.py`, which has the metrics themselves. Nominal is 95 %.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from fetalclip_jax.evaluation import curves, gaps, subgroups
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure, reliability, selective
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap

_RESAMPLES = 300
_CLASSES = ("a", "b", "c")
# Patients, images of each, and how alike those are (correlation).
COHORTS = {
    "100 patients x 6": (100, 6, 0.5),
    "250 patients x 4": (250, 4, 0.3),
    "12 patients x 10": (12, 10, 0.4),
    "300 patients x 1": (300, 1, 0.0),
}


def qualities(rng, patients: int, images: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal draws, correlated within a patient, and the patient of each."""
    owners = np.repeat(np.arange(patients), images)
    own, rest = rng.normal(size=patients)[owners], rng.normal(size=len(owners))
    return np.sqrt(alike) * own + np.sqrt(1 - alike) * rest, owners


def area_under_risk(rng, cohort, ease: float) -> tuple[Estimate, Callable[[], float]]:
    def drawn(patients):
        quality, owners = qualities(rng, patients, *cohort[1:])
        confidence = special.expit(ease + 1.2 * quality)
        wrong = rng.random(len(confidence)) > confidence
        return selective.AreaUnderRisk(confidence, wrong), owners

    area, owners = drawn(cohort[0])
    estimate = Bootstrap(owners, _RESAMPLES, int(rng.integers(2**31))).estimate(area)
    return estimate, lambda: drawn(200_000 // cohort[1])[0].value


def proper_score(rng, cohort, ease: float, of: Callable) -> tuple[Estimate, Callable[[], float]]:
    """Log loss or Brier score of two classes whose probabilities are true."""

    def drawn(patients):
        quality, owners = qualities(rng, patients, *cohort[1:])
        told = special.expit(ease + 1.2 * quality)
        right = rng.random(len(told)) < told
        return measure.mean(of(np.where(right, told, 1 - told)), "positive"), owners

    score, owners = drawn(cohort[0])
    estimate = Bootstrap(owners, _RESAMPLES, int(rng.integers(2**31))).estimate(score)
    return estimate, lambda: drawn(200_000 // cohort[1])[0].value


def calibration_error(rng, cohort, told: Callable) -> tuple[Estimate, float]:
    """The root of the mean squared error; its truth is that of the same bins."""
    quality, owners = qualities(rng, *cohort)
    confidence = rng.uniform(0.5, 0.999, len(quality))
    right = told(confidence)
    found = reliability.bins(confidence, special.ndtr(quality) < right, owners)
    low, high = found.squared_error_interval(cohort[0] - 1, 0.95)
    errors = np.bincount(found.of_image, right - confidence) / found.images
    edges = np.sqrt([max(low, 0.0), high]).tolist()
    return Estimate(float(np.sqrt(max(found.squared_error(), 0.0))), *edges), float(
        np.sqrt(found.share @ errors**2)
    )


def largest_gap(rng, sizes, truths, images=3, alike=0.4) -> tuple[gaps.Gap | None, float]:
    """Of accuracies of groups of so many patients, picked for being the largest."""
    quality, owners = qualities(rng, sum(sizes), images, alike)
    group = np.repeat(np.arange(len(sizes)), sizes)[owners]
    labels = rng.integers(0, 3, len(owners))
    right = special.ndtr(quality) < np.asarray(truths)[group]
    answers = np.where(right, labels, (labels + rng.integers(1, 3, len(labels))) % 3)
    names = np.array(_CLASSES)
    predictions = Predictions(
        example_id=np.arange(len(owners)).astype(str),
        patient_id=owners.astype(str),
        label=names[labels],
        prediction=names[answers],
        candidates=_CLASSES,
        scores=np.eye(3)[answers],
        groups={"group": group.astype(str)},
    )
    result = Result(
        "zero_shot.planes",
        {"accuracy": Estimate(float(right.mean()))},
        data={"name": "simulated", "simulated": True},
        protocol={"resample_by": "patient", "resamples": _RESAMPLES, "seed": 0},
        predictions=predictions,
    )
    gap = subgroups.split(result, "group").largest["accuracy"]
    return gap, truths[int(gap.better)] - truths[int(gap.worse)]


def area_of_curve(rng, cohort, sets: int, deviation: float) -> tuple[Estimate, float]:
    """Of accuracies that are macro F1 too: every class as frequent and as hard."""
    sizes, means = (2, 8, 32), (0.55, 0.7, 0.8)
    patients, images, alike = cohort
    images = 3 * images
    labels = np.tile(np.arange(3), patients * images // 3)
    quality, owners = qualities(rng, patients, images, alike)
    runs, points, names = {}, [], np.array(_CLASSES)
    for size, mean in zip(sizes, means, strict=True):
        shift = rng.normal(0, deviation, (sets, 1))
        # What shifts take from the mean is given back.
        base = special.ndtri(mean) * np.sqrt(1 + deviation**2)
        right = 0.8 * quality + 0.6 * rng.normal(size=(sets, len(owners))) < base + shift
        runs[str(size)] = np.where(right, labels, (labels + rng.integers(1, 3, right.shape)) % 3)
        points.append({"patients": size, "mean": 0.0, "draws": list(map(str, range(sets)))})
        points[-1] |= {"support_sets": sets, "runs": [0.0] * sets}
    predictions = Predictions(
        example_id=np.arange(len(owners)).astype(str),
        patient_id=owners.astype(str),
        label=names[labels],
        prediction=names[runs["32"][0]],
        candidates=_CLASSES,
        runs=runs,
        ranks={size: (one != labels).astype(int) for size, one in runs.items()},
    )
    answers = {size: curves.macro_f1(_of(predictions, points), int(size)) for size in runs}
    for point in points:
        point["mean"] = answers[str(point["patients"])].value
    found = curves.curve(
        _of(predictions, points), resamples=_RESAMPLES, seed=int(rng.integers(2**31))
    ).area
    return found, float(curves.weights(sizes) @ np.array(means))


def _of(predictions: Predictions, points) -> Result:
    return Result(
        "few_shot.planes",
        {},
        protocol={"resample_by": "patient"},
        curve=points,
        predictions=predictions,
    )


def designs(rng) -> Iterator[tuple[str, str, Callable[[], tuple]]]:
    """(estimate, design, one simulated study: what was found, and the truth)."""
    truths: dict[tuple[str, str], float] = {}
    kinds = {
        "area under risk": area_under_risk,
        "log loss": functools.partial(proper_score, of=lambda p: -np.log(p)),
        "Brier score": functools.partial(proper_score, of=lambda p: 2 * (1 - p) ** 2),
    }

    def with_truth(kind, name, cohort, ease):
        found, truth = kinds[kind](rng, cohort, ease)
        return found, truths.setdefault((kind, name), truths.get((kind, name)) or truth())

    eases = dict.fromkeys(COHORTS, 1.0) | {"near-perfect, 100 patients x 5": 4.0}
    for kind, (name, ease) in itertools.product(kinds, eases.items()):
        cohort = COHORTS.get(name, (100, 5, 0.4))
        yield kind, name, functools.partial(with_truth, kind, name, cohort, ease)
    told = {
        "true probabilities": lambda p: p,
        "overconfident": lambda p: special.expit(special.logit(p) / 2),
    }
    for words, truth in told.items():
        for name, cohort in COHORTS.items():
            yield (
                "RMS calibration error",
                f"{words}, {name}",
                lambda c=cohort, t=truth: calibration_error(rng, c, t),
            )
    near = (150, 5, 0.3)
    yield (
        "RMS calibration error",
        "near-perfect, told as .5 to 1",
        lambda: calibration_error(rng, near, lambda p: np.full_like(p, 0.99)),
    )
    for name, sizes, own in (
        ("4 equal groups of 30", [30] * 4, [0.8] * 4),
        ("6 equal groups of 10", [10] * 6, [0.8] * 6),
        ("groups of 5 to 80", [5, 10, 20, 80], [0.8] * 4),
        ("near-perfect, 4 x 30", [30] * 4, [0.98] * 4),
        ("0.6 to 0.95, 4 x 40", [40] * 4, [0.95, 0.9, 0.8, 0.6]),
    ):
        yield "largest gap", name, lambda s=sizes, o=own: largest_gap(rng, s, o)
    for sets, deviation in ((2, 0.2), (5, 0.2), (5, 0.05), (20, 0.2)):
        yield (
            "area of a curve",
            f"{sets} support sets, deviation {deviation}",
            lambda s=sets, d=deviation: area_of_curve(rng, (60, 2, 0.4), s, d),
        )
    yield (
        "area of a curve",
        "5 support sets, 12 patients",
        lambda: area_of_curve(rng, (12, 4, 0.4), 5, 0.2),
    )


def table(studies: int, seed: int) -> None:
    """Prints a row of every analysis and design."""
    error = np.sqrt(0.95 * 0.05 / studies)
    print(f"{studies} studies of each design; a coverage is off by {error:.3f} by chance")
    print("| estimate | design | truth | mean width | coverage of 95 % intervals |")
    print("|---|---|---|---|---|")
    for kind, name, study in designs(np.random.default_rng(seed)):
        rows = [(*_row(found, truth), truth) for found, truth in (study() for _ in range(studies))]
        held, width, truth = np.mean(rows, 0)
        print(f"| {kind} | {name} | {truth:.3f} | {width:.3f} | {held:.3f} |", flush=True)


def _row(found, truth: float) -> tuple[bool, float]:
    return found.low <= truth <= found.high, found.high - found.low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=300, help="simulated, of each design")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table(arguments.studies, arguments.seed)


if __name__ == "__main__":
    main()
