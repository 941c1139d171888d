"""results.json and results.csv: every figure of a report, under names that scripts may rely on."""

import csv
import io
from typing import Any

from fetalclip_jax.evaluation.curves import unit_of
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import provenance
from fetalclip_jax.reports.naming import number
from fetalclip_jax.reports.reading import Contents

# People script against these; further ones come last.
_COLUMNS = (
    *("study", "model", "data", "protocol", "kind", "name", "value", "low", "high", "n"),
    *("patients", "split", "resample_by"),
)


def summarise(contents: Contents, total_seconds: float | None = None) -> dict[str, Any]:
    """Merges results and runs into one JSON-able mapping.

    Keys: `zero_shot.planes`, `zero_shot.brain`, `age`, `probe.planes`, `probe.raw_pixels`,
    `few_shot.planes` (patients -> mean, low, high, ...) and so on for every study that judged one
    model on one data set; `train` of a single run; and always `results` (all of them, whole),
    `total.seconds` and `peak_rss_gib` (None where nothing was recorded).

    Args:
      contents: what the sources of the report hold.
      total_seconds: wall-clock seconds of everything; None takes the sum over runs and studies.
    """
    summary: dict[str, Any] = {}
    results = [one.result for one in contents.evaluated]
    for result in results:
        # A study of two models has no one answer: those are in `results` only.
        if sum(other.study == result.study for other in results) > 1:
            continue
        group, _, task = result.study.partition(".")
        if task:
            summary.setdefault(group, {})[task] = flatten(result)
        else:
            summary[group] = flatten(result)
    trained = [run.train for run in contents.runs if run.train]
    if len(trained) == 1:
        summary["train"] = dict(trained[0])
    elif trained:
        summary["runs"] = [{"name": run.name, **run.train} for run in contents.runs]
    summary["results"] = [result.to_json() for result in results]
    costs = [*trained, *(result.cost for result in results)]
    seconds = [s for cost in costs if (s := number(cost.get("seconds"))) is not None]
    peaks = [p for cost in costs if (p := number(cost.get("peak_rss_gib"))) is not None]
    if total_seconds is None and seconds:
        total_seconds = sum(seconds)
    summary["total"] = {"seconds": total_seconds}
    summary["peak_rss_gib"] = max(peaks, default=None)
    return summary


def flatten(result: Result) -> dict[str, Any]:
    """A result as one level: each metric, its interval, its baselines and its details.

    A result with a curve is its curve: patients -> mean, low, high and what else a point holds.
    """
    if result.curve:
        points = {str(int(p["patients"])): p for p in result.curve}
        return {
            patients: {k: v for k, v in points[patients].items() if k != "patients"}
            for patients in sorted(points, key=int)
        }
    flat: dict[str, Any] = {}
    for name, estimate in result.metrics.items():
        flat[name] = estimate.value
        known = estimate.low is not None and estimate.high is not None
        flat[f"{name}_interval"] = [estimate.low, estimate.high] if known else None
    for name, baseline in result.baselines.items():
        estimate = baseline.estimate
        flat[name] = estimate.value
        if estimate.low is not None and estimate.high is not None:
            flat[f"{name}_interval"] = [estimate.low, estimate.high]
    headline = next(iter(result.metrics.values()), None)
    resample_by = result.protocol.get("resample_by")
    known = {
        "count": headline and headline.n,
        "patients": headline.groups if headline and resample_by == "patient" else None,
        "resample_by": resample_by,
    }
    flat |= {name: value for name, value in known.items() if value is not None}
    return flat | dict(result.details) | dict(result.cost)


def table(contents: Contents) -> str:
    """Every metric, baseline and point of a curve as a row of CSV."""
    rows: list[tuple] = []
    for one in contents.evaluated:
        result = one.result
        of = (result.study, one.model_name, one.data_name, result.protocol.get("name", ""))
        _, patients = provenance.counts(one)
        on = (patients, " ".join(provenance.splits(one)), result.protocol.get("resample_by"))
        # The metric of a curve is its last point.
        last = max((int(point["patients"]) for point in result.curve), default=None)
        size = "" if last is None else f", {last} {unit_of(result)}"
        for name, e in result.metrics.items():
            rows.append((*of, "metric", name + size, e.value, e.low, e.high, e.n, *on))
        for name, baseline in result.baselines.items():
            e, kind = baseline.estimate, f"baseline of {baseline.metric}"
            rows.append((*of, kind, name, e.value, e.low, e.high, e.n, *on))
        for point in result.curve:
            edges = (point.get("mean"), point.get("low"), point.get("high"))
            rows.append((*of, "curve", f"{point['patients']} {unit_of(result)}", *edges, None, *on))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    return text.getvalue()
