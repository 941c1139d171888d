"""Curves over the number of patients that the points of a sweep were trained on.

Points that differ in `data.train_patients` alone are one curve; what else they set is where the
model started. The seeds of a number of patients drew other patients each: they are support sets.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.data import subset
from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation.alignment import resampled
from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.curve_comparison import CurveComparison, compare_curves
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.studies.few_shot import over_support_sets
from fetalclip_jax.sweeps import plan as plans
from fetalclip_jax.sweeps.outcome import Outcome, Row, independent
from fetalclip_jax.training import inputs

PATIENTS = "data.train_patients"
# Of the patients that there are to train on; of more than these no seed can choose others.
_NEARLY_ALL = 0.9


def curves(outcome: Outcome, study: str) -> dict[str, Result]:
    """Where models started -> a result with their curve; empty where no patients vary.

    Raises:
      ValueError: a number of patients that is 0 (all); points judged on other images.
    """
    if len({row.point.settings.get(PATIENTS) for row in outcome.rows}) < 2:
        return {}
    if not all(row.point.settings.get(PATIENTS) for row in outcome.rows):
        raise ValueError(f"{PATIENTS} is 0 (all) at a point; give the number instead")
    fields = [field for field in outcome.fields if field not in (PATIENTS, plans.SEED)]
    # Steps, say, that go with a start tell it apart from no other.
    fields = independent([row.point.settings for row in outcome.rows], fields)
    origins = _short({row.point.settings.get("init_from", "") for row in outcome.rows})
    found: dict[str, dict[int, list[Row]]] = {}
    for row in outcome.rows:
        if study in row.found and row.found[study].predictions is not None:
            sizes = found.setdefault(start(row.point.settings, fields, origins), {})
            sizes.setdefault(int(row.point.settings[PATIENTS]), []).append(row)
    return {
        name: _joined(name, {size: rows[size] for size in sorted(rows)}, study)
        for name, rows in found.items()
    }


def start(settings: Mapping[str, Any], fields: Sequence[str], origins: Mapping[str, str]) -> str:
    """Where a point starts, in words: "from quickstart", "from nothing, with phantom (50 %)".

    Args:
      origins: `init_from` -> what it is called.
    """
    origin, mixture = settings.get("init_from", ""), settings.get("data.mixture", ())
    parts = [f"from {origins[origin]}" if origin else "from nothing"]
    parts += [f"with {source} ({100 * share:g} %)" for source, _, share in mixture]
    others = {
        name: settings[name]
        for name in fields
        if name in settings and name not in ("init_from", "data.mixture", PATIENTS)
    }
    return ", ".join(parts + ([plans.named(others, fields)] if others else []))


def compared(found: Mapping[str, Result]) -> list[CurveComparison]:
    """Every start against the one "from nothing", or against the last where there is none."""
    names = list(found)
    base = "from nothing" if "from nothing" in found else names[-1]
    pairs = []
    for name in names:
        if name != base:
            shared = _sizes(found[name]) & _sizes(found[base])
            both = (_at(found[one], shared) for one in (name, base))
            pairs.append(compare_curves(*both, names=(name, base)))
    return pairs


def saved(comparison: CurveComparison) -> str:
    """How many patients the first start spares, in a sentence."""
    (first, second), (needed, _) = comparison.names, comparison.reaching
    largest = comparison.sizes[-1]
    sentence = (
        f"Training {first} takes {needed} patients for the {needed.score:.3f} that training "
        f"{second} reaches with {largest}: it saves "
    )
    if needed.value.beyond == "more than":
        return f"{sentence}none"
    fewest = "at least " * (needed.value.beyond == "at most")
    return f"{sentence}{fewest}{largest - needed.value.patients:.0f}"


def pool(row: Row) -> int:
    """Patients of the training split, of whom every seed draws some.

    Raises:
      ValueError: the data set is not there.
    """
    config = row.point.config
    split = registry.roles(config.data.source)["train"]
    return len(set(subset.owners(inputs.source(config, split)).tolist()))


def _short(origins: Iterable[str]) -> dict[str, str]:
    """Runs by their folders' names, where these tell them apart, else by their paths."""
    names = {origin: pathlib.PurePath(origin).name for origin in origins}
    return names if len(set(names.values())) == len(names) else {one: one for one in names}


def _sizes(result: Result) -> set[int]:
    return {point["patients"] for point in result.curve}


def _at(result: Result, sizes: set[int]) -> Result:
    kept = [point for point in result.curve if point["patients"] in sizes]
    return dataclasses.replace(result, curve=kept)


def _joined(name: str, rows: Mapping[int, Sequence[Row]], study: str) -> Result:
    """One result with a point for each number of patients."""
    points, runs, ranks = [], {}, {}
    first_row = next(iter(rows.values()))[0]
    first, patients = first_row.found[study], pool(first_row)
    for size, own in rows.items():
        results = [row.found[study] for row in own]
        answers = _answers(name, results, first.predictions)
        groups = resampled(first.predictions, first.protocol)
        times = int(first.protocol.get("resamples", 1000))
        bootstrap = Bootstrap(groups, times, int(first.protocol.get("seed", 0)))
        # Seeds that draw most of the same patients say little of the chance of others, and where
        # they draw the same ones nothing: their spread is then of the training alone.
        known = None if size > _NEARLY_ALL * patients else patients
        estimate = over_support_sets(answers, len(results), bootstrap, known and size / known)
        kept = answers.kept(str(size))
        runs, ranks = runs | kept["runs"], ranks | kept["ranks"]
        points.append(
            {
                "patients": size,
                "mean": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "runs": answers.run_macro_f1().tolist(),
                "support_sets": len(results),
                "draws": [f"seed {row.point.config.seed}" for row in own],
                "pool_patients": known,
            }
        )
    last = list(rows.values())[-1][0].found[study]
    return dataclasses.replace(
        last,
        metrics={"macro_f1": last.metrics["macro_f1"]},
        model={**last.model, "name": name},
        predictions=dataclasses.replace(last.predictions, runs=runs, ranks=ranks),
        curve=points,
    )


def _answers(name: str, results: Sequence[Result], first: Predictions) -> Answers:
    """Those of all results, a run each, which judged the images of `first` in its order."""
    own = []
    for result in results:
        judged = result.predictions
        if judged.example_id.tolist() != first.example_id.tolist():
            raise ValueError(
                f"{name}: {result.study} judged other images at one point than at another; judge "
                "all points on the same patients"
            )
        # Of several runs, such as the folds of a probe, the mean score answers.
        own.append(Answers.of(dataclasses.replace(judged, runs={}, ranks={})))
    return dataclasses.replace(
        own[0],
        predictions=np.concatenate([one.predictions for one in own]),
        ranks=np.concatenate([one.ranks for one in own]),
    )
