"""Two models' data-efficiency curves: paired differences at every size, and of the areas."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import chance, studies
from fetalclip_jax.evaluation.alignment import Aligned, align
from fetalclip_jax.evaluation.chance import Chance
from fetalclip_jax.evaluation.curves import Needed, curve, metric_of, unit_of, weights
from fetalclip_jax.evaluation.difference import MARGIN, Difference, difference
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.weighted_sum import Term, weighted_sum

AREA = "area"


@dataclasses.dataclass(frozen=True)
class CurveComparison:
    """Two models' curves on the same test images.

    Attributes:
      names: of the models.
      sizes: that both have.
      differences: at each size.
      area: difference of the areas over these sizes; None of a single size.
      reaching: how many patients the first needs for the second's score at its largest size, and
        the second for the first's.
      notes: what must be known of it, in sentences.
    """

    names: tuple[str, str]
    sizes: tuple[int, ...]
    differences: tuple[Difference, ...]
    area: Difference | None
    reaching: tuple[Needed, Needed]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.names[0],
            "second": self.names[1],
            "differences": [one.to_json() for one in self.differences],
            "area": self.area.to_json() if self.area else None,
            "first_reaches_second": self.reaching[0].to_json(),
            "second_reaches_first": self.reaching[1].to_json(),
            "notes": list(self.notes),
        }


def compare_curves(
    first: Result,
    second: Result,
    *,
    names: tuple[str, str] | None = None,
    margin: float = MARGIN,
    resamples: int = 1000,
    seed: int = 0,
) -> CurveComparison:
    """Paired differences of two curves at every size that both have, and of their areas.

    Args:
      first, second: results with a curve and the answers of every run, of the same study, data
        set, split and protocol.
      names: of the models; None takes those the results give.
      margin: see `comparison.compare`.
      resamples, seed: of the bootstrap.

    Raises:
      ValueError: results that cannot be compared, or whose answers at each size are not kept.
    """
    pair = align(first, second, names)
    results = (pair.first, pair.second)
    if not all(one.predictions.runs for one in results):
        old = ", ".join(
            name
            for one, name in zip((first, second), pair.names, strict=True)
            if not one.predictions.runs
        )
        raise ValueError(
            f"{first.study}: the answers of {old} at each size are not kept, so that curves cannot "
            "be compared size by size; evaluate again"
        )
    sizes = tuple(sorted(map(int, pair.first.predictions.runs)))
    bootstrap = Bootstrap(pair.groups, resamples, seed)
    patients = pair.first.predictions.patients()
    measures = [[studies.at_size(one, size).measure for size in sizes] for one in results]
    names_of = metric_of(first), unit_of(first)
    found = [chance.of_support_sets(pair, str(size)) for size in sizes]
    differences = tuple(
        dataclasses.replace(
            difference(
                f"{names_of[0]}_of_{size}_{names_of[1]}", both, bootstrap, patients, one, margin
            ),
            learned_from=size,
        )
        for size, both, one in zip(sizes, zip(*measures, strict=True), found, strict=True)
    )
    area = None
    if len(sizes) > 1:
        area = _area_difference(pair, sizes, measures, found, bootstrap, margin)
    whole = [curve(one, resamples=0) for one in (first, second)]
    reaching = (
        whole[0].needed(float(whole[1].values[-1])),
        whole[1].needed(float(whole[0].values[-1])),
    )
    return CurveComparison(pair.names, sizes, differences, area, reaching, pair.notes)


def _area_difference(
    pair: Aligned, sizes, measures, found: Sequence[Chance], bootstrap: Bootstrap, margin: float
) -> Difference:
    both = []
    for own in measures:
        terms = [Term(w, one, pair.groups) for w, one in zip(weights(sizes), own, strict=True)]
        summed, names = weighted_sum(terms, "unit")
        both.append(summed)
    joint = chance.of_area(found, weights(sizes))
    one = difference(
        AREA, tuple(both), dataclasses.replace(bootstrap, groups=names), names, joint, margin
    )
    images = pair.first.predictions
    return dataclasses.replace(
        one, n=len(images.example_id), patients=len(np.unique(images.patients()))
    )
