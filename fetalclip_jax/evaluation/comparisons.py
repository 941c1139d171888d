"""Many models in many studies: every pair, the family of tests, and who wins how often.

The family is the headline metric of each study on each data set for each pair: one test each, with
Holm's adjustment over all of them. Further metrics are told with their own p-values.
"""

import csv
import dataclasses
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax.evaluation.comparison import Comparison, compare, data_name, smaller_size
from fetalclip_jax.evaluation.curves import of_size
from fetalclip_jax.evaluation.difference import ALPHA, MARGIN, Difference, check_margin
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics.multiplicity import holm
from fetalclip_jax.evaluation.units import counted, judged_unit
from fetalclip_jax.evaluation.wins import Wins, count_wins

Pair = tuple[str, str]

_COLUMNS = (
    *("study", "data", "simulated", "protocol", "first", "second", "metric", "headline"),
    *("value_first", "value_second", "difference", "low", "high", "p", "p_holm", "verdict"),
    *("margin", "equivalent", "images", "patients", "resample_by", "other_sources_of_chance"),
    "patients_to_learn_from",
)
_NAMELESS = "model not recorded"


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """Every pair of models in every study and data set that both were judged in.

    Attributes:
      compared: in the order of the studies, then of the pairs.
      adjusted: Holm's p of each headline; None where it has none.
      wins: of each pair, on real and on simulated images.
      margin: of equivalence, for rates.
      left_out: what could not be compared and why, in sentences.
    """

    compared: tuple[Comparison, ...]
    adjusted: tuple[float | None, ...]
    wins: tuple[Wins, ...]
    margin: float
    left_out: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple(dict.fromkeys(one.names for one in self.wins))

    @property
    def tests(self) -> int:
        """Size of the family."""
        return sum(p is not None for p in self.adjusted)

    def rows(self) -> Iterator[tuple[Comparison, Difference, float | None, str]]:
        """Each headline with its adjusted p and the verdict by it."""
        for one, p in zip(self.compared, self.adjusted, strict=True):
            yield one, one.headline, p, one.headline.verdict(p)

    def to_json(self) -> dict[str, Any]:
        compared = [
            one.to_json() | {"p_holm": p, "verdict": verdict} for one, _, p, verdict in self.rows()
        ]
        return {
            "comparisons": compared,
            "wins": [one.to_json() for one in self.wins],
            "family": {"tests": self.tests, "method": "Holm", "level": ALPHA},
            "margin": self.margin,
            "left_out": list(self.left_out),
        }

    def to_csv(self) -> str:
        """A row per metric; only headlines have an adjusted p."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for one, headline, adjusted, verdict in self.rows():
            for d in one.differences:
                first = d is headline
                writer.writerow(
                    (
                        *(one.study, one.data, one.simulated, one.protocol, *one.names),
                        *(d.metric, first, d.first, d.second, d.value, d.low, d.high, d.p),
                        *(adjusted if first else None, verdict if first else d.verdict()),
                        *(d.margin, d.equivalent, d.n, d.patients, one.resample_by),
                        *(d.chance.words, d.learned_from),
                    )
                )
        return text.getvalue()

    def lines(self) -> Iterator[str]:
        """For the terminal: a line a study for one pair, a line a pair for several."""
        if len(self.pairs) == 1:
            for one, d, p, verdict in self.rows():
                metric = d.metric.replace("_", " ").replace("f1", "F1")
                if d.learned_from is not None:
                    metric += f", {of_size(one.results[0], d.learned_from)}"
                of = counted(d.n, judged_unit(one.results[0])), counted(d.patients, "patients")
                yield (
                    f"{one.study} on {one.data}, {metric}: {one.names[0]} {d.first:.3f}, "
                    f"{one.names[1]} {d.second:.3f}, difference "
                    f"{_shown(d.value, d.low, d.high)}, p {shown_p(p)}: {verdict}; "
                    f"{' of '.join(of)}"
                )
        for one in self.wins:
            told = [f"{verdict} in {n}" for verdict, n in one.counts.items() if n]
            line = f"{one.names[0]} against {one.names[1]}: {', '.join(told)}"
            if one.simulated:
                line += " (simulated images)"
            if one.mean is not None:
                mean = _shown(one.mean.value, one.mean.low, one.mean.high)
                line += f"; mean difference {mean}"
            yield line
        if self.tests > 1:
            yield f"p-values are adjusted for {self.tests} tests by Holm's method"
        for one in self.compared:
            alone = [f"{n:,} of {who}" for n, who in zip(one.only, one.names, strict=True) if n]
            if alone:
                what = f"{judged_unit(one.results[0])} of one alone left out"
                yield f"{one.study} on {one.data}: {what}: {', '.join(alone)}"
            if note := smaller_size(one.results, one.names, one.headline):
                yield f"{one.study} on {one.data}: {note}"
        for line in self.left_out:
            yield f"not compared: {line}"


def _shown(value: float, low: float | None, high: float | None) -> str:
    edges = "" if low is None else f" [{low:+z.3f}, {high:+z.3f}]"
    return f"{value:+z.3f}{edges}"


def shown_p(p: float | None) -> str:
    """ "0.021", "< 0.001", or "none"."""
    if p is None:
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def by_model(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by the name of their model, in the order given.

    Models of one name that are not the same (another fingerprint) are told apart by it.
    """
    prints: dict[str, dict[str, None]] = {}
    for one in results:
        prints.setdefault(_name(one), {})[_print(one)] = None
    found: dict[str, list[Result]] = {}
    for one in results:
        name = _name(one)
        own = name if len(prints[name]) == 1 else f"{name} [{_print(one)[:8]}]"
        found.setdefault(own, []).append(one)
    return found


def indistinct(results: Sequence[Result]) -> list[str]:
    """Why results without the name of a model, in one study and data set, are not compared."""
    where = Counter(_where(one) for one in results if _name(one) == _NAMELESS)
    return [
        f"{count} results of {study} on {data} have no name of a model (model.name in their "
        "JSON) and cannot be told apart"
        for (study, data), count in where.items()
        if count > 1
    ]


def compare_all(
    results: Sequence[Result],
    pairs: Sequence[Pair] | None = None,
    *,
    margin: float = MARGIN,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparisons:
    """Compares pairs of models wherever both were judged by the same protocol.

    Args:
      results: of two or more models.
      pairs: names of models (see `by_model`); None takes all pairs.
      margin: see `comparison.compare`.
      resamples, seed: of the bootstraps.

    Raises:
      ValueError: a name that no model has, a model against itself, or a pair of which nothing can
        be compared, with the reason.
    """
    check_margin(margin)
    models = by_model(results)
    chosen = list(itertools.combinations(models, 2)) if pairs is None else _checked(pairs, models)
    options = {"margin": margin, "resamples": resamples, "seed": seed}
    compared, left_out = [], indistinct(results)
    for names in chosen:
        found, reasons = _of_pair(names, models, options)
        if not found and pairs is not None:
            raise ValueError(
                f"{names[0]} and {names[1]}: nothing can be compared; {'; '.join(reasons)}"
            )
        compared += found
        left_out += reasons
    order = list(dict.fromkeys(map(_where, results)))
    compared.sort(key=lambda one: order.index((one.study, one.data)))
    adjusted = _adjusted(compared)
    verdicts = [one.headline.verdict(p) for one, p in zip(compared, adjusted, strict=True)]
    wins = []
    for names in chosen:
        for simulated in (False, True):
            own = [
                (one, verdict)
                for one, verdict in zip(compared, verdicts, strict=True)
                if (one.names, one.simulated) == (names, simulated)
            ]
            if own:
                wins.append(count_wins(own, resamples=resamples, seed=seed))
    return Comparisons(
        tuple(compared), tuple(adjusted), tuple(wins), margin, tuple(dict.fromkeys(left_out))
    )


def _of_pair(names: Pair, models, options) -> tuple[list[Comparison], list[str]]:
    """What a pair can be compared in, and why not in the rest."""
    first, second = (models[name] for name in names)
    compared, reasons, seen = [], [], set()
    judged = [{_where(one) for one in results} for results in (first, second)]
    if not judged[0] & judged[1]:
        return [], [f"{names[0]} and {names[1]} have no study and data set in common"]
    for one in first:
        others = [other for other in second if _where(other) == _where(one)]
        if one.details.get("inputs") == "raw_pixels":
            reasons.append(f"{one.study}: its inputs are pixels, whatever the model")
            continue
        if one.details.get("tells_of") == "the data":
            reasons.append(f"{one.study}: it tells of the data, whatever the model")
            continue
        if not others:
            continue
        # Judged by several protocols: the one that is the same.
        failed = []
        for other in others:
            try:
                found = compare(one, other, names=names, **options)
            except ValueError as error:
                failed.append(str(error))
                continue
            key = (found.study, found.data, found.protocol)
            if key in seen:
                reasons.append(f"{one.study} on {found.data}: judged twice, the first is compared")
            else:
                compared.append(found)
                seen.add(key)
            break
        else:
            reasons.append(failed[0])
    for name, own, theirs in ((names[1], *judged), (names[0], *reversed(judged))):
        missing = ", ".join(f"{study} on {data}" for study, data in sorted(own - theirs))
        if missing:
            reasons.append(f"{name} was not judged in {missing}")
    return compared, reasons


def _adjusted(compared: Sequence[Comparison]) -> list[float | None]:
    known = [one.headline.p for one in compared if one.headline.p is not None]
    adjusted = iter(holm(known))
    return [None if one.headline.p is None else next(adjusted) for one in compared]


def _checked(pairs: Sequence[Pair], models: Mapping[str, Any]) -> list[Pair]:
    for pair in pairs:
        for name in pair:
            if name not in models:
                raise ValueError(
                    f"no model {name!r} is among the results; there are {', '.join(models)}"
                )
        if pair[0] == pair[1]:
            raise ValueError(f"{pair[0]!r} against itself shows nothing; name two models")
    # The same two the other way round are no other test.
    chosen: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        chosen.setdefault(frozenset(pair), tuple(pair))
    return list(chosen.values())


def _where(result: Result) -> tuple[str, str]:
    return result.study, data_name(result)


def _name(result: Result) -> str:
    return str(result.model.get("name") or _NAMELESS)


def _print(result: Result) -> str:
    return str(result.model.get("fingerprint") or "")
