"""What beside the judged patients could have come out otherwise in a difference of two models."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.alignment import Aligned
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.support_sets import SupportSets, over_sizes


@dataclasses.dataclass(frozen=True)
class Chance:
    """Sources of chance beside the test patients.

    Attributes:
      spreads: of the difference.
      words: what they are; "" for none.
      unknown: what is part of the difference and cannot be measured; "" where nothing is lacking.
        Of a difference with such a part no interval and no p-value is honest.
      sets: the support sets among the spreads: one where they are paired, else one a model.
    """

    spreads: tuple[Spread, ...] = ()
    words: str = ""
    unknown: str = ""
    sets: tuple[SupportSets, ...] = ()


def of_metric(pair: Aligned, metric: str) -> Chance:
    """Chance of a difference in a metric: of support sets for a curve, else of augmented copies."""
    if pair.first.curve:
        sizes = pair.first.predictions.runs
        return of_support_sets(pair, max(sizes, key=int, default=""))
    return of_copies(pair, metric)


def of_support_sets(pair: Aligned, size: str) -> Chance:
    """Chance of the support sets of one size: paired where both models had the same.

    Args:
      size: key of `Predictions.runs`.
    """
    if not size:
        return Chance(unknown="the answers of every support set are not kept")
    sets = [set_means(one, size) for one in (pair.first, pair.second)]
    if min(map(len, sets)) < 2:
        return Chance(unknown="a single support set shows nothing of the chance of its patients")
    drawn = [point_of(one, size).get("draws") for one in (pair.first, pair.second)]
    shares = [share_of_pool(point_of(one, size)) for one in (pair.first, pair.second)]
    if drawn[0] and drawn[0] == drawn[1]:
        found = (SupportSets(sets[0] - sets[1], shares[0]),)
        words = f"{len(sets[0])} support sets (the same for both)"
        return Chance((found[0].spread,), words, sets=found)
    words = f"{len(sets[0])} and {len(sets[1])} support sets (other ones, unpaired)"
    found = tuple(map(SupportSets, sets, shares))
    return Chance(tuple(one.spread for one in found), words, sets=found)


def of_area(found: Sequence[Chance], weights: np.ndarray) -> Chance:
    """Chance of the support sets in a weighted sum over sizes.

    Args:
      found: that of each size.
      weights: of each size.
    """
    alike: dict[tuple[int, int], list[tuple[float, SupportSets]]] = {}
    for weight, one in zip(weights, found, strict=True):
        for place, sets in enumerate(one.sets):
            alike.setdefault((len(one.sets), place), []).append((float(weight), sets))
    spreads = [over_sizes(*zip(*pairs, strict=True)) for pairs in alike.values()]
    return Chance(
        tuple(itertools.chain(*spreads)),
        "; ".join(dict.fromkeys(one.words for one in found if one.words)),
        next((one.unknown for one in found if one.unknown), ""),
    )


def share_of_pool(point: Mapping[str, Any]) -> float | None:
    """What share of the pool's patients a support set of a curve's point holds; None if unknown."""
    pool = point.get("pool_patients")
    return min(int(point["patients"]) / pool, 0.999) if pool else None


def set_means(result: Result, size: str) -> np.ndarray:
    """What each support set reaches, the mean over its runs, [S]."""
    runs = studies.at_size(result, size).runs
    return runs.reshape(int(point_of(result, size)["support_sets"]), -1).mean(1)


def point_of(result: Result, size: str) -> dict:
    """The point of a curve at a size."""
    return next(dict(point) for point in result.curve if str(int(point["patients"])) == size)


def of_copies(pair: Aligned, metric: str) -> Chance:
    """Chance of a draw of augmented copies, from trainings on copies drawn anew."""
    results = (pair.first, pair.second)
    copies = [int(one.protocol.get("copies") or 0) for one in results]
    if not any(copies):
        return Chance()
    found = [np.array(one.details.get("redraws", {}).get(metric, ())) for one in results]
    lacking = [name for name, values in zip(pair.names, found, strict=True) if len(values) < 2]
    if lacking:
        return Chance(
            unknown=f"{' and '.join(lacking)} recorded no training on copies drawn anew (it takes "
            "copies of 2 and more, and redraws)"
        )
    if len(found[0]) == len(found[1]) and _same(results, "seed") and _same(results, "copies"):
        spread = Spread.of_redraws(found[0] - found[1], copies[0])
        return Chance((spread,), f"{len(found[0])} redraws of augmented copies (the same for both)")
    words = f"{len(found[0])} and {len(found[1])} redraws of augmented copies (unpaired)"
    return Chance(tuple(map(Spread.of_redraws, found, copies)), words)


def _same(results, key: str) -> bool:
    return results[0].protocol.get(key) == results[1].protocol.get(key)
