"""Two models in the same study: how much one is better, how sure that is, and in what sense equal.

Both answered the same images, so that the bootstrap draws patients once for both and what makes an
image hard cancels out. See `statistics.intervals` for the interval and the p-value.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import chance, merits, studies
from fetalclip_jax.evaluation.alignment import Aligned, align
from fetalclip_jax.evaluation.curves import unit_of
from fetalclip_jax.evaluation.difference import MARGIN, Difference, check_margin, difference
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measured


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models in one study on one data set.

    Attributes:
      study, data, simulated: what they were judged in.
      protocol: its name.
      resample_by: what the bootstrap draws, "patient" or "image".
      names: of the first and the second model.
      differences: of every metric that both have, the headline first; what tells of the data is
        left out.
      only: images that only the first, and only the second, has predictions of.
      notes: what must be known of it, in sentences.
      results: the two results.
    """

    study: str
    data: str
    simulated: bool
    protocol: str
    resample_by: str
    names: tuple[str, str]
    differences: tuple[Difference, ...]
    only: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    results: tuple[Result, ...] = dataclasses.field(default=(), repr=False)

    @property
    def headline(self) -> Difference:
        return self.differences[0]

    def to_json(self) -> dict[str, Any]:
        names = ("study", "data", "simulated", "protocol", "resample_by")
        return {name: getattr(self, name) for name in names} | {
            "first": self.names[0],
            "second": self.names[1],
            "differences": [one.to_json() for one in self.differences],
            "images_of_one_alone": list(self.only),
            "notes": list(self.notes),
        }


def compare(
    first: Result,
    second: Result,
    *,
    names: tuple[str, str] | None = None,
    margin: float = MARGIN,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """The differences of two models in every metric of theirs that both have.

    Args:
      first, second: results of the same study, data set, split and protocol, with predictions.
      names: of the models; None takes those the results give.
      margin: rates closer than this are equivalent; of errors it is 5 % of their mean.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Raises:
      ValueError: results that cannot be compared, see `alignment.align`; no metric in common, or
        a margin that is not between 0 and 1.
    """
    check_margin(margin)
    pair = align(first, second, names)
    aligned = zip((pair.first, pair.second), pair.names, strict=True)
    measured = [_measures(*one) for one in aligned]
    size = _size(pair)
    shared = [name for name in measured[0] if name in measured[1]]
    if shared and all(map(merits.is_finding, shared)):
        raise ValueError(f"{first.study}: it tells of the data, whatever the model")
    shared = [name for name in shared if not merits.is_finding(name)]
    if not shared:
        raise ValueError(
            f"{pair.names[0]} and {pair.names[1]} cannot be compared in {first.study}: no metric "
            f"of both can be measured again, {_listed(measured[0])} and {_listed(measured[1])}"
        )
    if first.curve:
        shared = shared[:1]  # support sets are kept of the metric of the curve alone
    differences, apart = [], []
    for metric in shared:
        ours, theirs = _of_the_same(*(found[metric] for found in measured))
        if not (ours.measure.defined and theirs.measure.defined):
            apart.append(metric)
            continue
        bootstrap = Bootstrap(pair.groups[ours.rows], resamples, seed)
        patients = pair.first.predictions.patients()[ours.rows]
        found = chance.of_metric(pair, metric)
        one = difference(metric, (ours.measure, theirs.measure), bootstrap, patients, found, margin)
        differences.append(dataclasses.replace(one, learned_from=size))
    if not differences:
        raise ValueError(
            f"{pair.names[0]} and {pair.names[1]} cannot be compared in {first.study}: there is no "
            f"image of which both have {_listed(apart)}"
        )
    return Comparison(
        study=first.study,
        data=data_name(first),
        simulated=bool(first.data.get("simulated")),
        protocol=str(first.protocol.get("name") or "not recorded"),
        resample_by=str(first.protocol.get("resample_by") or "patient"),
        names=pair.names,
        differences=tuple(differences),
        only=pair.only,
        notes=(*pair.notes, *_notes(pair, (first, second), measured, differences, apart)),
        results=(first, second),
    )


def of_model(name: str, result: Result) -> str:
    """Which result a message is about: "zero_shot.planes of fetalclip on clinic"."""
    return f"{result.study} of {name} on {data_name(result)}"


def data_name(result: Result) -> str:
    return str(result.data.get("name") or "data not recorded")


def smaller_size(results: Sequence[Result], names: tuple[str, str], headline: Difference) -> str:
    """Says that curves are compared before their end, where one goes further; "" otherwise."""
    size = headline.learned_from
    further = [
        f"{name} has {last:,}"
        for result, name in zip(results, names, strict=True)
        if size and (last := max(int(point["patients"]) for point in result.curve)) > size
    ]
    if not further:
        return ""
    return (
        f"compared at {size:,} {unit_of(results[0])} to learn from, the largest number that both "
        f"have ({' and '.join(further)})"
    )


def _of_the_same(first: Measured, second: Measured) -> tuple[Measured, Measured]:
    """Both of what both measure: one model may have no number of some image."""
    if not np.array_equal(first.rows, second.rows):
        both = np.zeros(max(first.rows.max(), second.rows.max()) + 1, bool)
        both[np.intersect1d(first.rows, second.rows)] = True
        first, second = first.among(both), second.among(both)
    pair = first.measure.beside(second.measure)
    return Measured(pair[0], first.rows), Measured(pair[1], second.rows)


def _measures(result: Result, name: str) -> Mapping[str, Measured]:
    try:
        return studies.measures(result)
    except ValueError as error:
        raise ValueError(f"{of_model(name, result)}: {error}") from error


def _size(pair: Aligned) -> int | None:
    """Labelled patients that both learned from: the largest size that both have."""
    if not (pair.first.curve and pair.second.curve):
        return None
    if sizes := pair.first.predictions.runs:
        return max(map(int, sizes))
    return max(int(point["patients"]) for point in pair.first.curve)


def _notes(pair: Aligned, results, measured, differences, apart) -> Iterator[str]:
    """What is lacking, and values that are not those the results report."""
    if apart:
        yield f"{_listed(apart)} cannot be compared: there is no image of which both have it"
    for result, found, others, name in zip(
        results, measured, measured[::-1], pair.names, strict=True
    ):
        alone = [metric for metric in found if metric not in others]
        if alone:
            yield f"only {name} has {_listed(alone)}"
        lost = [
            metric
            for metric in result.metrics
            if metric not in found and not _of_all_candidates(metric, result)
        ]
        if lost:
            yield (
                f"{_listed(lost)} of {name} cannot be measured again from what is kept; evaluate "
                "again"
            )
    if words := smaller_size(results, pair.names, differences[0]):
        yield words
    whole = not any(pair.only)
    for k, (result, name) in enumerate(zip(results, pair.names, strict=True)):
        for one in differences:
            reported = _reported(result, one)
            again = measured[k][one.metric].measure.value
            if whole and not np.isclose(again, reported, rtol=0, atol=1e-6):
                yield (
                    f"{one.metric} of {name} is {again:.4f} as measured again from what is kept, "
                    f"and {reported:.4f} in its result"
                )
    for one in differences:
        own = [found[one.metric].measure.value for found in measured]
        if not np.allclose(own, (one.first, one.second), rtol=0, atol=1e-9):
            each = " and ".join(
                f"{value:.4f} for {name}" for value, name in zip(own, pair.names, strict=True)
            )
            yield (
                f"{one.metric} is compared where both models have a number, on {one.n} images; of "
                f"all that each has a number of it is {each}"
            )
    reasons: dict[str, list[str]] = {}
    for one in differences:
        if one.without_interval:
            reasons.setdefault(one.without_interval, []).append(one.metric)
    for why, metrics in reasons.items():
        yield f"no interval for {_listed(metrics)}: {why}"


def _reported(result: Result, one: Difference) -> float:
    """What a result says itself, at the size that is compared."""
    if one.learned_from is None:
        return result.metrics[one.metric].value
    return chance.point_of(result, str(one.learned_from))["mean"]


def _of_all_candidates(metric: str, result: Result) -> bool:
    """Whether it is the top-k accuracy of all candidates, which older results hold."""
    found = re.search(r"top(\d+)_accuracy$", metric)
    return bool(found) and int(found[1]) >= len(result.predictions.candidates)


def _listed(names) -> str:
    return ", ".join(names) or "none"
