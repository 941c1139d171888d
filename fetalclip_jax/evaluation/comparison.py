"""Two models in the same study: how much one is better, how sure that is, and in what sense equal.

Both answered the same images, so that the bootstrap draws patients once for both and what makes an
image hard cancels out. See `statistics.intervals` for the interval and the p-value.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import chance, studies
from fetalclip_jax.evaluation.alignment import Aligned, align
from fetalclip_jax.evaluation.chance import Chance
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics import intervals, measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measure, Measured

# Two rates closer than this are equivalent; of errors, a share of their mean.
MARGIN = 0.02
RELATIVE_MARGIN = 0.05
ALPHA = 0.05
VERDICTS = ("better", "worse", "equivalent", "undecided")


@dataclasses.dataclass(frozen=True)
class Difference:
    """One metric of the first model minus that of the second, on the same images.

    Attributes:
      metric: its name.
      first, second: the two values.
      lower_is_better: the metric is an error.
      low, high: 95 % interval of the difference; None where there is none.
      p: two-sided, against no difference; None where there is no interval.
      inner: 90 % interval, that of two one-sided tests at 5 %; None likewise.
      margin: what still counts as equivalent, in the metric's unit.
      n: images.
      patients: patients of these images; an image without one is a patient of its own.
      learned_from: labelled patients that both learned from, a point of their curves; None where
        the study has no curve.
      bootstrap: of the images (what it draws, how often).
      measure: the difference as a function of the images.
      chance: what beside the judged patients it depends on.
    """

    metric: str
    first: float
    second: float
    lower_is_better: bool
    low: float | None
    high: float | None
    p: float | None
    inner: tuple[float, float] | None
    margin: float
    n: int
    patients: int
    bootstrap: Bootstrap = dataclasses.field(repr=False)
    measure: Measure = dataclasses.field(repr=False)
    chance: Chance
    learned_from: int | None = None

    @property
    def value(self) -> float:
        return self.first - self.second

    @property
    def equivalent(self) -> bool:
        """Whether two one-sided tests both exclude a difference as large as the margin."""
        return self.inner is not None and (
            -self.margin < self.inner[0] and self.inner[1] < self.margin
        )

    def verdict(self, p: float | None = None) -> str:
        """One of `VERDICTS`, of the first model.

        Args:
          p: adjusted for other tests; None takes the own.
        """
        p = self.p if p is None else p
        if p is not None and p < ALPHA:
            return "better" if (self.value > 0) != self.lower_is_better else "worse"
        return "equivalent" if self.equivalent else "undecided"

    def to_json(self) -> dict[str, Any]:
        names = ("metric", "first", "second", "low", "high", "p", "margin", "n", "patients")
        return {name: getattr(self, name) for name in names} | {
            "patients_to_learn_from": self.learned_from,
            "difference": self.value,
            "inner_interval": list(self.inner) if self.inner else None,
            "groups": self.bootstrap.count,
            "lower_is_better": self.lower_is_better,
            "equivalent": self.equivalent,
            "verdict": self.verdict(),
            "other_sources_of_chance": self.chance.words,
            "without_interval_because": self.without_interval,
        }

    @property
    def without_interval(self) -> str:
        """Why there is no interval; "" where there is one."""
        if self.low is not None:
            return ""
        if self.bootstrap.count < 2:
            return "a single patient shows no spread"
        if self.bootstrap.resamples < 2:
            return "no resample was asked for"
        return self.chance.unknown or "the images show no spread"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models in one study on one data set.

    Attributes:
      study, data, simulated: what they were judged in.
      protocol: its name.
      resample_by: what the bootstrap draws, "patient" or "image".
      names: of the first and the second model.
      differences: of every metric that both have, the headline first.
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
    """The differences of two models in every metric that both have.

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
    if not shared:
        raise ValueError(
            f"{pair.names[0]} and {pair.names[1]} cannot be compared in {first.study}: no metric "
            f"of both can be measured again, {_listed(measured[0])} and {_listed(measured[1])}"
        )
    differences = []
    for metric in shared:
        ours, theirs = (found[metric] for found in measured)
        bootstrap = Bootstrap(pair.groups[ours.rows], resamples, seed)
        patients = pair.first.predictions.patients()[ours.rows]
        found = chance.of_metric(pair, metric)
        one = difference(metric, (ours.measure, theirs.measure), bootstrap, patients, found, margin)
        differences.append(dataclasses.replace(one, learned_from=size))
    return Comparison(
        study=first.study,
        data=data_name(first),
        simulated=bool(first.data.get("simulated")),
        protocol=str(first.protocol.get("name") or "not recorded"),
        resample_by=str(first.protocol.get("resample_by") or "patient"),
        names=pair.names,
        differences=tuple(differences),
        only=pair.only,
        notes=(*pair.notes, *_notes(pair, (first, second), measured, differences)),
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
        f"compared at {size:,} patients to learn from, the largest number that both have "
        f"({' and '.join(further)})"
    )


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


def difference(
    metric: str,
    pair: tuple[Measure, Measure],
    bootstrap: Bootstrap,
    patients: np.ndarray,
    found: Chance,
    margin: float,
) -> Difference:
    """One metric of two models on the same images.

    Args:
      metric: its name.
      pair: the two models' measures, of the same images in the same order.
      bootstrap: of these images.
      patients: of each of them.
      found: chance beside that of the bootstrap.
      margin: of rates, see `compare`.
    """
    first, second = (one.value for one in pair)
    of_both = measure.difference(*pair)
    is_error = pair[0].scale == "positive"
    low = high = p = inner = None
    if bootstrap.count > 1 and bootstrap.resamples > 1 and not found.unknown:
        # Drawn in one order, so that the models the other way round get the mirrored interval.
        ordered = measure.difference(*sorted(pair, key=lambda one: one.value))
        spreads = [bootstrap.spread(ordered), *found.spreads]
        options = {"scale": of_both.scale, "groups": bootstrap.count}
        low, high = intervals.interval(first - second, spreads, **options)
        edges = intervals.interval(first - second, spreads, level=1 - 2 * ALPHA, **options)
        inner = None if edges[0] is None else edges
        p = intervals.p_value(first - second, spreads)
    return Difference(
        metric,
        first,
        second,
        is_error,
        low,
        high,
        p,
        inner,
        margin=RELATIVE_MARGIN * (first + second) / 2 if is_error else margin,
        n=len(patients),
        patients=len(np.unique(patients)),
        bootstrap=bootstrap,
        measure=of_both,
        chance=found,
    )


def check_margin(margin: float) -> None:
    """Raises ValueError for a margin that no difference of two rates could be held against."""
    if not 0 < margin < 1:
        raise ValueError(
            f"margin must lie between 0 and 1, the difference of two rates that still counts as "
            f"equivalent (such as {MARGIN}), found {margin}"
        )


def _notes(pair: Aligned, results, measured, differences) -> Iterator[str]:
    """What is lacking, and values that are not those the results report."""
    shared = {one.metric for one in differences}
    for result, found, name in zip(results, measured, pair.names, strict=True):
        alone = [metric for metric in found if metric not in shared]
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
            again = (one.first, one.second)[k]
            if whole and not np.isclose(again, reported, rtol=0, atol=1e-6):
                yield (
                    f"{one.metric} of {name} is {again:.4f} as measured again from what is kept, "
                    f"and {reported:.4f} in its result"
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
