"""The figure of a sweep over real patients: score against how many, by where models started."""

from collections.abc import Iterator, Mapping

import numpy as np

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation.comparisons import shown_p
from fetalclip_jax.evaluation.curve_comparison import CurveComparison
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import naming, page, sweep_curves, sweep_figures
from fetalclip_jax.reports.sweep_figures import Line
from fetalclip_jax.sweeps import efficiency
from fetalclip_jax.sweeps.folder import Folder
from fetalclip_jax.sweeps.outcome import Outcome


def section(outcome: Outcome, folder: Folder) -> str:
    """A figure of every study with classes, comparisons, and the patients saved; "" without."""
    return "".join(
        part for study in outcome.plan.judging.studies for part in _study(outcome, folder, study)
    )


def _study(outcome: Outcome, folder: Folder, study: str) -> Iterator[str]:
    judged = [row.found[study] for row in outcome.rows if study in row.found]
    if not judged or any(one.curve or "macro_f1" not in one.metrics for one in judged):
        return
    try:
        found = efficiency.curves(outcome, study)
        compared = efficiency.compared(found) if len(found) > 1 else []
    except ValueError as error:
        yield page.paragraph(f"No figure of {naming.title(study)}: {error}.")
        return
    if not found:
        return
    yield _figure(outcome, folder, study, found)
    runs.write_json(
        folder.workdir / f"efficiency_{naming.slug(study)}.json",
        {
            "curves": {name: list(one.curve) for name, one in found.items()},
            "comparisons": [one.to_json() for one in compared],
        },
    )
    yield from map(_comparison, compared)


def _figure(outcome: Outcome, folder: Folder, study: str, found: Mapping[str, Result]) -> str:
    png = sweep_figures.curves(
        {"": {name: _line(one) for name, one in found.items()}},
        ("patients trained on",),
        "macro F1",
        f"Patients trained on: {naming.title(study)}",
    )
    runs.write_bytes(folder.figures / f"efficiency_{naming.slug(study)}.png", png)
    seeds = sorted({int(point["support_sets"]) for one in found.values() for point in one.curve})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caption = (
        f"Macro F1 against the patients that models were trained on, by where training started. "
        f"Mean of {count} seeds, each of which draws its patients; the 95 % band holds the chance "
        "of seeds with their patients, and of the judged patients. One seed has no band."
    )
    points = [point for one in found.values() for point in one.curve]
    if same := sorted({int(one["patients"]) for one in points if one["pool_patients"] is None}):
        caption += (
            f" Of {', '.join(map(str, same))} patients, nearly all that there are to train on, "
            "seeds draw the same ones: the band there leaves out the choice of patients."
        )
    below = sweep_curves.judged_on(outcome, study)
    sizes = sorted({int(point["patients"]) for one in found.values() for point in one.curve})
    rows = []
    for name, one in found.items():
        means = {int(point["patients"]): f"{point['mean']:.3f}" for point in one.curve}
        rows.append((name, *(means.get(size, "") for size in sizes)))
    table = page.plain_table(("Start", *(f"{size} patients" for size in sizes)), rows)
    return page.picture(png, f"Macro F1 by patients trained on: {study}", caption, below) + table


def _line(result: Result) -> Line:
    def column(name: str) -> list[float]:
        return [np.nan if point[name] is None else float(point[name]) for point in result.curve]

    return Line(column("patients"), column("mean"), column("low"), column("high"))


def _comparison(found: CurveComparison) -> str:
    """Paired differences at every number of patients, and how many are saved."""
    first, second = found.names
    rows = []
    for one in (*found.differences, *([found.area] if found.area else [])):
        interval = "" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
        size = "mean height of the curve" if one.learned_from is None else f"{one.learned_from}"
        rows.append((size, f"{one.value:+.3f}", interval, shown_p(one.p)))
    columns = ("Patients trained on", f"{first} less {second}", "95 % interval", "p")
    said = "".join(f" {note}." for note in found.notes)
    return page.plain_table(columns, rows) + page.paragraph(f"{efficiency.saved(found)}.{said}")
