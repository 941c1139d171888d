"""The few-shot study: how a linear probe grows with the number of training patients."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.result import Estimate, Predictions, Result
from fetalclip_jax.evaluation.statistics import official, splits
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.statistics.support_sets import SupportSets
from fetalclip_jax.evaluation.studies.classification import Classification
from fetalclip_jax.evaluation.studies.probe import (
    PAPER_HEAD,
    deviation,
    head_details,
    needs,
    take_lists,
)
from fetalclip_jax.evaluation.studies.probe_data import ProbeData
from fetalclip_jax.evaluation.studies.probe_settings import HeadSettings, check_used
from fetalclip_jax.evaluation.studies.settings import resolve
from fetalclip_jax.evaluation.study import AtSize

Sets = Mapping[int, Sequence[splits.Split]]


@dataclasses.dataclass(frozen=True)
class FewShotSettings(HeadSettings):
    """Options of the few-shot study.

    Attributes:
      sizes: numbers of training patients; as many others validate.
      support_sets: draws per size, where no official files give them.
    """

    sizes: tuple[int, ...] = (2, 4, 8, 16, 32)
    support_sets: int = 5

    def __post_init__(self):
        super().__post_init__()
        if not self.sizes or min(self.sizes) < 1 or self.support_sets < 1:
            raise ValueError(
                f"sizes={self.sizes} must be numbers of patients from 1 and "
                f"support_sets={self.support_sets} at least 1"
            )


PAPER = PAPER_HEAD | {"copies": 10, "batch_size": 16, "epochs": 100}
# The official scripts' sizes and learning rates; the files hold 128 patients too.
_PAPER_OF_TASK = {
    "planes": {"sizes": (2, 4, 8, 16, 32, 64)},
    "brain": {"sizes": (4, 8, 16, 32, 64), "learning_rates": (1e-4,)},
}


class FewShot:
    """Few-shot probes of one column: "planes", "brain", or a column of the data set."""

    settings_type = FewShotSettings

    def __init__(self, task: str, **options):
        self.name, self.task = f"few_shot.{task}", task
        protocols = {"tuned": {}, "paper": PAPER | _PAPER_OF_TASK.get(task, {})}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        check_used(self.name, self.settings, options)
        self.needs = needs(task, self.settings)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Learns from `stores["fit"]`, is tested on `stores["test"]`; see `study.Study`.

        The interval of a point holds the chance of the support sets, as the spread of their means
        (each over its runs, on its own augmented copies) with what sets of one pool have in
        common, and that of the test patients.
        """
        settings = self.settings
        stores["fit"].check_model(model.fingerprint)
        data = ProbeData(stores["fit"], stores["test"], self.task, settings, "features")
        sets, said = self._sets(data)
        fitted = data.fit_sizes(sets)
        curve, judged, answers, chosen = [], {}, {}, {}
        for size, draws in sets.items():
            probes = fitted[size]
            found = data.judge(probes)
            curve.append(self._point(size, draws, found, data))
            judged[size], answers[size] = found, found.table(top=0)
            chosen[str(size)] = head_details(probes, settings)
        largest = curve[-1]
        # The answers of the largest size, with those of the others beside them.
        kept = [one.answers.kept(str(size)) for size, one in judged.items()]
        predictions = dataclasses.replace(
            answers[largest["patients"]],
            extra={f"prediction_{size}": one.prediction for size, one in answers.items()},
            runs={size: runs for one in kept for size, runs in one["runs"].items()},
            ranks={size: ranks for one in kept for size, ranks in one["ranks"].items()},
        )
        groups = len(np.unique(data.bootstrap().groups))
        headline = Estimate(
            largest["mean"], largest["low"], largest["high"], len(data.test), groups
        )
        return Result(
            study=self.name,
            metrics={"macro_f1": headline},
            protocol=settings.effective(),
            baselines=found.baselines(),
            curve=curve,
            details={
                "macro_f1_patients": largest["patients"],
                "classes": list(data.task.classes),
                "chosen": chosen,
                "count": len(data.test),
                "patients": len(np.unique(data.test.patients())),
                "resample_by": settings.resample_by,
                "left_out": data.left_out,
                "scores": f"mean probability over the runs of {largest['patients']} patients",
            }
            | said,
            predictions=predictions,
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> dict[str, Measured]:
        """The macro F1 of the largest size; see `evaluation.study.Study`.

        Older results keep the mean scores of its runs alone, which are judged then.
        """
        largest = max(predictions.runs, key=int, default="")
        return {"macro_f1": Answers.of(predictions, largest).measures()["macro_f1"]}

    @staticmethod
    def at(predictions: Predictions, size: str) -> AtSize:
        """The macro F1 of the runs of one size; see `evaluation.study.Study`."""
        answers = Answers.of(predictions, size)
        return AtSize(answers.macro_f1(), answers.run_macro_f1())

    def _point(
        self, size: int, draws: Sequence[splits.Split], found: Classification, data: ProbeData
    ) -> dict[str, Any]:
        scores = found.answers.run_macro_f1()
        pool = len(np.unique(data.owners))
        estimate = over_support_sets(
            found.answers, len(draws), found.bootstrap, share=min(size / pool, 0.999)
        )
        return {
            "patients": size,
            "mean": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "deviation": deviation(scores),
            "runs": scores.tolist(),
            "support_sets": len(draws),
            "draws": [digest(draw) for draw in draws],
            "pool_patients": pool,
            "train_images": float(np.mean([len(data.rows(draw)[0]) for draw in draws])),
            "feature_scaling": self.settings.feature_scaling,
        }

    def _sets(self, data: ProbeData) -> tuple[Sets, dict[str, Any]]:
        settings = self.settings
        if not settings.splits:
            return self._drawn_sets(data)
        path, test_path = official.find(settings.splits, "few_data_training", self.task)
        return self._official_sets(data, path, official.test_ids(test_path))

    def _drawn_sets(self, data) -> tuple[Sets, dict[str, Any]]:
        """Sets of every size that the patients are enough for; the others are said.

        Raises:
          ValueError: they are enough for none.
        """
        settings, patients = self.settings, len(np.unique(data.owners))
        sizes = sorted(set(settings.sizes))
        fitting = [size for size in sizes if 2 * size <= patients] or sizes[:1]
        sets = {
            size: splits.support_sets(data.owners, size, settings.support_sets, settings.seed)
            for size in fitting
        }
        dropped = {
            f"support sets of {size} patients and as many to validate on, more than the {patients} "
            "there are": settings.support_sets
            for size in sizes
            if size not in sets
        }
        return sets, {"lacking": dropped} if dropped else {}

    def _official_sets(self, data, path, tested) -> tuple[Sets, dict[str, Any]]:
        """Complete support sets only: one of which a patient is missing is of another size."""
        given = splits.read_support_sets(path)
        asked = {size: given.get(size, []) for size in sorted(set(self.settings.sizes))}
        if not any(asked.values()):
            raise ValueError(
                f"{path} holds no support set of {list(asked)} patients; it has sizes {list(given)}"
            )
        listed = np.unique(
            [one for draws in asked.values() for draw in draws for part in draw for one in part]
        )
        said = take_lists(data, path, listed, tested, sampled=True)
        sets, dropped = {}, {}
        for size, draws in asked.items():
            gaps = [_gap(draw, data) for draw in draws]
            complete = [draw for draw, gap in zip(draws, gaps, strict=True) if not gap]
            if complete:
                sets[size] = complete
            if not draws:
                dropped[f"sizes, {size} patients, of which the file has no support set"] = 1
            for gap in sorted(set(gaps) - {""}):
                dropped[f"support sets of {size} patients of which one {gap}"] = gaps.count(gap)
        if not sets:
            raise ValueError(
                f"{path}: the data has no complete support set of {list(asked)} "
                f"patients: it lacks {said['lacking']}; complete the data set, or leave splits out "
                "to draw support sets among its own patients"
            )
        said["lacking"] = said["lacking"] | dropped
        said["sizes_without_support_set"] = [size for size in asked if size not in sets]
        return sets, said


def over_support_sets(
    answers: Answers, sets: int, bootstrap: Bootstrap, share: float | None = None
) -> Estimate:
    """Mean macro F1 of runs that are ordered by their support sets, as many of each.

    A single support set shows nothing of the chance of its patients: no interval.

    Args:
      share: of the pool's patients that one set holds, see `SupportSets`.
    """
    measure = answers.macro_f1()
    if sets < 2:
        return bootstrap.constant(measure.value)
    of_sets = answers.run_macro_f1().reshape(sets, -1).mean(1)
    return bootstrap.estimate(measure, [SupportSets(of_sets, share).spread])


def _gap(draw: splits.Split, data: ProbeData) -> str:
    """Why a support set is not what its size says; "" for a complete one."""
    patients = np.concatenate(draw)
    if not np.isin(patients, data.patients.fit).all():
        return "is missing"
    return "" if np.isin(patients, data.owners).all() else "has no image of the task"


def digest(draw: splits.Split) -> str:
    """Names the patients of a support set, so that another model's can be seen to be the same."""
    words = json.dumps([sorted(map(str, part)) for part in draw])
    return hashlib.sha256(words.encode()).hexdigest()[:12]
