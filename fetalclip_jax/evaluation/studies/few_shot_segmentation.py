"""Few-shot segmentation: how decoders grow with the number of training images or patients."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import outlines
from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.outlines import Outlines
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics import image_lists, splits
from fetalclip_jax.evaluation.statistics.image_lists import Lists
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.statistics.support_sets import SupportSets
from fetalclip_jax.evaluation.studies import mask_judge
from fetalclip_jax.evaluation.studies.few_shot import digest
from fetalclip_jax.evaluation.studies.mask_data import MaskData, needs
from fetalclip_jax.evaluation.studies.mask_settings import PAPER, MaskSettings
from fetalclip_jax.evaluation.studies.probe import deviation
from fetalclip_jax.evaluation.studies.segmentation import about, pictures, run_values
from fetalclip_jax.evaluation.studies.settings import resolve
from fetalclip_jax.evaluation.study import AtSize
from fetalclip_jax.labels import structures

Sets = Mapping[int, Sequence[splits.Split]]


@dataclasses.dataclass(frozen=True)
class FewShotSegmentationSettings(MaskSettings):
    """Options of few-shot segmentation.

    Attributes:
      sizes: numbers of training patients, or of listed images; as many others validate.
      support_sets: draws per size, where no lists give them.
    """

    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    support_sets: int = 3
    copies: int = 4
    epochs: int = 4

    def __post_init__(self):
        super().__post_init__()
        if not self.sizes or min(self.sizes) < 1 or self.support_sets < 1:
            raise ValueError(
                f"sizes={self.sizes} must be numbers from 1 and "
                f"support_sets={self.support_sets} at least 1"
            )


PAPER_OF_SETS = PAPER | {"copies": 10, "support_sets": 5}
# Small structures take longer: 250 steps in place of 100.
_OF_SEVERAL = {"epochs": 10}


class FewShotSegmentation:
    """Few-shot decoders of one task, see `segmentation.Segmentation`."""

    settings_type = FewShotSegmentationSettings

    def __init__(self, task: str, **options):
        self.name, self.task = f"few_shot_segmentation.{task}", task
        tuned = _OF_SEVERAL if len(structures(task)) > 1 else {}
        protocols = {"tuned": tuned, "paper": PAPER_OF_SETS}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        self.scores = outlines.scores(task)
        self.needs = needs(task, self.settings)

    def run(self, stores: Mapping[str, TokenStore], model) -> Result:
        """Learns from `stores["fit"]`, is tested on `stores["test"]`; see `study.Study`.

        The interval of a point holds the chance of the support sets, as of `few_shot.FewShot`.
        """
        settings = self.settings
        lists = None
        if settings.splits:
            lists = image_lists.read(settings.splits, "few_data_training", settings.variant)
        data = MaskData(stores, model, settings, lists)
        sets, lacking = self._sets(data, lists)
        data.said["lacking"] |= lacking | _unseen(data, sets)
        fitted, found, curve = data.fit_sizes(sets), {}, []
        for size, draws in sets.items():
            decoders = fitted[size]
            largest = size == max(sets)
            found[str(size)] = mask_judge.judge(data, decoders, distances=largest)
            curve.append(self._point(size, draws, found[str(size)], data))
        last = found[str(max(sets))]
        others = {}
        if len(draws) > 1:
            share = min(max(sets) / len(data.pool), 0.999)
            others = {
                name: [SupportSets(np.reshape(own, (len(draws), -1)).mean(1), share).spread]
                for name, own in run_values(last).items()
            }
        metrics = data.bootstrap().estimates(last.measures(), others)
        if len(draws) < 2:
            metrics = {
                name: dataclasses.replace(one, low=None, high=None) for name, one in metrics.items()
            }
        return Result(
            study=self.name,
            metrics=metrics,
            protocol=settings.effective(),
            baselines=mask_judge.baselines(data, sets[max(sets)], metrics),
            curve=curve,
            details=about(data, last) | {"dice_patients": max(sets), "sizes": list(sets)},
            predictions=mask_judge.predictions(data, found),
            pictures=pictures(data, last, decoders),
        )

    @staticmethod
    def measures(predictions: Predictions, task: str) -> Mapping[str, Measured]:
        """Those of the largest size; see `evaluation.study.Study`."""
        del task  # the structures are in the predictions
        return outlines.of_result(predictions)

    @staticmethod
    def at(predictions: Predictions, size: str) -> AtSize:
        """The pooled Dice of the runs of one size; see `evaluation.study.Study`."""
        found = Outlines.of(predictions, size)
        return AtSize(found.pooled_dice(), found.run_dice())

    def _point(
        self, size: int, draws: Sequence[splits.Split], found: Outlines, data: MaskData
    ) -> dict[str, Any]:
        values, pool = found.run_dice(), len(data.pool)
        measure, low, high = found.pooled_dice(), None, None
        if len(draws) > 1:
            sets = SupportSets(values.reshape(len(draws), -1).mean(1), min(size / pool, 0.999))
            estimate = data.bootstrap().estimate(measure, [sets.spread])
            low, high = estimate.low, estimate.high
        return {
            "patients": size,
            "mean": measure.value,
            "low": low,
            "high": high,
            "deviation": deviation(values),
            "runs": values.tolist(),
            "support_sets": len(draws),
            "draws": [digest(draw) for draw in draws],
            "pool_patients": pool,
            "train_images": float(np.mean([len(data.rows(draw)[0]) for draw in draws])),
        }

    def _sets(self, data: MaskData, lists: Lists | None) -> tuple[Sets, dict[str, int]]:
        """Sets of every size that there is enough for, and what is lacking.

        Lists of which the data has a part alone seldom have a complete set: sets of that size are
        then drawn among all that is listed and there, and that is said.

        Raises:
          ValueError: there is enough for no size.
        """
        settings, pool, unit = self.settings, data.pool, data.unit
        sets: dict[int, Sequence[splits.Split]] = {}
        lacking: dict[str, int] = {}
        for size in sorted(set(settings.sizes)):
            given = list(lists.sets.get(size, [])) if lists is not None else []
            complete = [draw for draw in given if np.isin(np.concatenate(draw), pool).all()]
            if given and len(complete) == len(given):
                sets[size] = complete
            elif 2 * size <= len(pool):
                count = len(given) or settings.support_sets
                sets[size] = splits.support_sets(pool, size, count, settings.seed)
                if lists is not None:
                    reason = (
                        f"listed support sets of {size} {unit} of which one is missing; as many "
                        f"sets of that size were drawn among the {len(pool)} listed {unit} there "
                        "are"
                    )
                    lacking[reason] = len(given) - len(complete)
            else:
                lacking[
                    f"support sets of {size} {unit} and as many to validate on, more than the "
                    f"{len(pool)} there are"
                ] = len(given) or settings.support_sets
        if not sets:
            raise ValueError(
                f"sizes={list(settings.sizes)}: {len(pool)} {unit} can be learned from, and each "
                f"size needs as many again to validate on: choose sizes up to {len(pool) // 2}"
            )
        return sets, lacking


def _unseen(data: MaskData, sets: Sets) -> dict[str, int]:
    """How many support sets have no image of a structure, which they cannot learn then."""
    counts: dict[str, int] = {}
    for size, draws in sets.items():
        for draw in draws:
            for what in data.unseen(draw):
                reason = f"support sets of {size} {data.unit} of which no {what}"
                counts[reason] = counts.get(reason, 0) + 1
    return counts
