"""How often do intervals hold the truth? Simulated studies, intervals by the package's functions.

    python benchmarks/coverage.py [--studies 1000] [--designs clustered rare_class ...]

Each design draws patients with a quality of their own, their images, and a classifier's answers,
thousands of times; the truth is the metric over very many patients. Nominal is 95 %.
"""

import argparse
import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy import stats

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.studies import few_shot
from fetalclip_jax.evaluation.studies.probe import ProbeSettings

_RESAMPLES = 400
_PATIENTS_OF_THE_TRUTH = 40_000
# As the paper's probes have them, and as many trainings on other copies as they are set to.
_COPIES, _REDRAWS = 5, ProbeSettings().redraws
_OF_DRAWS = "macro F1 over draws"


@dataclasses.dataclass(frozen=True)
class Design:
    """Who is judged, and how well.

    Attributes:
      patients: in the test set.
      images: of each.
      shares: of the classes.
      accuracy: share of right answers.
      patient_deviation: of the patients' qualities, in probits: how alike images of one are.
      sets, set_deviation: support sets of a few-shot study, and how far their probes differ.
      pool, of_pool: patients of a pool, and how many of them a set has; 0 for sets that share none.
      copies_deviation: how far probes of other augmented copies differ.
      resample_by: "patient" or "image".
    """

    patients: int
    images: int
    shares: tuple[float, ...] = (1 / 6,) * 6
    accuracy: float = 0.85
    patient_deviation: float = 0.6
    sets: int = 0
    set_deviation: float = 0.0
    pool: int = 0
    of_pool: int = 0
    copies_deviation: float = 0.0
    resample_by: str = "patient"


_RARE = (0.25, 0.25, 0.2, 0.15, 0.135, 0.015)
DESIGNS = {
    "clustered": Design(80, 8, patient_deviation=0.9),
    "clustered, resampled by image": Design(80, 8, patient_deviation=0.9, resample_by="image"),
    "rare class (9 images)": Design(150, 4, shares=_RARE),
    "few patients (12)": Design(12, 10, shares=(1 / 3,) * 3, accuracy=0.8),
    "near-perfect (99.3 %)": Design(100, 4, accuracy=0.993),
    "one image a patient": Design(400, 1, accuracy=0.8, patient_deviation=0.0),
    "near-perfect (99 %), rare class": Design(150, 4, shares=_RARE, accuracy=0.99),
    "2 support sets": Design(150, 4, accuracy=0.75, sets=2, set_deviation=0.25),
    "5 support sets": Design(150, 4, accuracy=0.75, sets=5, set_deviation=0.25),
    "20 support sets": Design(150, 4, accuracy=0.75, sets=20, set_deviation=0.25),
    "5 support sets of 40 of 100 patients": Design(
        150, 4, accuracy=0.75, sets=5, set_deviation=0.15, pool=100, of_pool=40
    ),
    "augmented copies": Design(150, 4, copies_deviation=0.1),
}


class Simulation:
    """Draws studies of one design; `rng` is the chance of everything."""

    def __init__(self, design: Design, rng: np.random.Generator):
        self.design, self.rng = design, rng

    def answers(self, patients: int, shifts: np.ndarray) -> Answers:
        """Of as many runs as there are shifts of the quality, to the images of new patients."""
        design, rng = self.design, self.rng
        classes, count = len(design.shares), patients * design.images
        labels = rng.choice(classes, count, p=design.shares)
        own = np.repeat(rng.normal(0, design.patient_deviation, patients), design.images)
        # What the deviation takes from the mean accuracy is given back.
        base = stats.norm.ppf(design.accuracy) * np.hypot(1, design.patient_deviation)
        # Images are hard or easy for all runs alike, as for probes of the same features.
        wrong = rng.normal(0, 1, count) > base + own + np.atleast_1d(shifts)[:, None]  # runs n
        other = (labels + rng.choice([1, 1, 1, 2], count)) % classes
        names = tuple(map(str, range(classes)))
        return Answers(labels, np.where(wrong, other, labels), wrong.astype(np.int64), names)

    def improved(self, answers: Answers) -> Answers:
        """Those of a second model, that is right more often, on the same images."""
        mended = self.rng.random(answers.predictions.shape) < 0.3
        broken = self.rng.random(answers.predictions.shape) < 0.03
        right = np.where(answers.ranks == 0, ~broken, mended)
        other = (answers.labels + 1) % len(answers.candidates)
        return dataclasses.replace(answers, predictions=np.where(right, answers.labels, other))

    def errors(self, patients: int) -> np.ndarray:
        """Of ages in days, a patient's alike."""
        own = np.repeat(self.rng.normal(0, 8, patients), self.design.images)
        return np.abs(own + self.rng.normal(0, 8, patients * self.design.images))

    def measures(self, patients: int) -> dict[str, measure.Measure]:
        """What a study of one run measures."""
        answers, error = self.answers(patients, np.zeros(1)), self.errors(patients)
        found = answers.measures(())
        return {
            "macro F1": answers.macro_f1(),
            "accuracy": found["accuracy"].measure,
            "balanced accuracy": found["balanced_accuracy"].measure,
            "paired difference of macro F1": measure.difference(
                self.improved(answers).macro_f1(), answers.macro_f1()
            ),
            "mean error": measure.mean(error, "positive"),
            "median error": measure.Median(error),
        }

    def shifts_of_sets(self) -> np.ndarray:
        """Of the quality of each set's probe; sets of one pool have patients in common."""
        design, rng = self.design, self.rng
        if not design.pool:
            return rng.normal(0, design.set_deviation, design.sets)
        effects = rng.normal(0, design.set_deviation * np.sqrt(design.of_pool), design.pool)
        drawn = [rng.permutation(design.pool)[: design.of_pool] for _ in range(design.sets)]
        return np.array([effects[patients].mean() for patients in drawn])

    def bootstrap(self) -> Bootstrap:
        count = self.design.patients * self.design.images
        together = 1 if self.design.resample_by == "image" else self.design.images
        return Bootstrap(np.arange(count) // together, _RESAMPLES, int(self.rng.integers(2**31)))

    def estimates(self) -> dict[str, Estimate]:
        """One study's estimates, by the functions that studies use."""
        design, bootstrap = self.design, self.bootstrap()
        if design.sets:
            answers = self.answers(design.patients, self.shifts_of_sets())
            share = design.of_pool / design.pool if design.pool else None
            found = few_shot.over_support_sets(answers, design.sets, bootstrap, share)
            return {_OF_DRAWS: found}
        if design.copies_deviation:
            return {_OF_DRAWS: self._with_redraws(bootstrap)}
        measures = self.measures(design.patients)
        return {name: bootstrap.estimate(one) for name, one in measures.items()}

    def _with_redraws(self, bootstrap: Bootstrap) -> Estimate:
        """A probe on one draw of copies; drawn with replacement, copies differ less than anew."""
        own = self.rng.normal(0, self.design.copies_deviation)
        less = np.sqrt((_COPIES - 1) / _COPIES)
        again = own + self.rng.normal(0, less * self.design.copies_deviation, _REDRAWS)
        answers = self.answers(self.design.patients, np.append(own, again))
        values = answers.run_macro_f1()[1:]
        first = dataclasses.replace(
            answers, predictions=answers.predictions[:1], ranks=answers.ranks[:1]
        )
        return bootstrap.estimate(first.macro_f1(), [Spread.of_redraws(values, _COPIES)])

    def truth(self) -> dict[str, float]:
        """The metrics over very many patients, and over support sets or draws of copies."""
        design = self.design
        deviation = design.set_deviation or design.copies_deviation
        if not deviation:
            return {name: m.value for name, m in self.measures(_PATIENTS_OF_THE_TRUTH).items()}
        # The mean over normal shifts, by Gauss and Hermite's quadrature.
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        answers = self.answers(_PATIENTS_OF_THE_TRUTH, deviation * nodes)
        return {_OF_DRAWS: float(answers.run_macro_f1() @ weights / weights.sum())}


def coverage(design: Design, studies: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Share of intervals that hold the truth, mean value and mean width, by kind of estimate."""
    simulation = Simulation(design, np.random.default_rng(seed))
    truth = simulation.truth()
    held: dict[str, list] = {name: [] for name in truth}
    for _ in range(studies):
        for name, found in simulation.estimates().items():
            held[name].append((found.low <= truth[name] <= found.high, found.high - found.low))
    return {
        name: (*np.mean(rows, 0).tolist()[:1], truth[name], float(np.mean(rows, 0)[1]))
        for name, rows in held.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="simulated, of each design")
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table(arguments.designs, arguments.studies, arguments.seed)


def table(designs: Iterable[str], studies: int, seed: int) -> None:
    """Prints a row of every design and kind of estimate."""
    error = np.sqrt(0.95 * 0.05 / studies)
    print(f"{studies} studies of each design; a coverage is off by {error:.3f} by chance")
    print("| design | estimate | truth | mean width | coverage of 95 % intervals |")
    print("|---|---|---|---|---|")
    for name in designs:
        for kind, found in coverage(DESIGNS[name], studies, seed).items():
            share, truth, width = found
            print(f"| {name} | {kind} | {truth:.3f} | {width:.3f} | {share:.3f} |", flush=True)


if __name__ == "__main__":
    main()
