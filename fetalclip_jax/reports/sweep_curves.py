"""The figure of a sweep over pretraining images: score by these and by labelled patients."""

from collections.abc import Iterator

import numpy as np

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.reports import naming, page, sweep_figures
from fetalclip_jax.reports.sweep_figures import Line
from fetalclip_jax.sweeps.folder import Folder
from fetalclip_jax.sweeps.outcome import Outcome, independent

FIELD = "data.train_images"
# Scores of one pretraining size and one number of labelled patients, a seed each.
Scores = dict[tuple[int, int], list[float]]


def section(outcome: Outcome, folder: Folder) -> str:
    """A figure of every few-shot study; "" where pretraining images are not all that varies."""
    settings = [row.point.settings for row in outcome.rows]
    fields = list(dict.fromkeys(name for one in settings for name in one))
    if independent(settings, fields) != [FIELD]:
        return ""
    if any(one.get(FIELD) == 0 for one in settings):
        return page.paragraph(f"No figure: {FIELD} is 0 (all) at a point; give the number instead.")
    return "".join(_figure(outcome, folder, study) for study in _with_curve(outcome))


def judged_on(outcome: Outcome, study: str) -> str:
    """Whom the scores of a study are of; "" where its results do not say."""
    found = {
        (one.n, one.groups, row.found[study].data["name"], row.found[study].protocol.get("name"))
        for row in outcome.rows
        if study in row.found
        for one in list(row.found[study].metrics.values())[:1]
    }
    said = [
        f"{images:,} images of {groups} {outcome.plan.judging.patients} patients ({data}), "
        f"protocol {protocol}"
        for images, groups, data, protocol in sorted(found, key=str)
        if images is not None
    ]
    return f"{'; '.join(said)}." if said else ""


def _with_curve(outcome: Outcome) -> Iterator[str]:
    for study in outcome.plan.judging.studies:
        if any(study in row.found and row.found[study].curve for row in outcome.rows):
            yield study


def _figure(outcome: Outcome, folder: Folder, study: str) -> str:
    scores, groups = _scores(outcome, study)
    sizes = sorted({size for size, _ in scores})
    patients = sorted({count for _, count in scores})
    panels = {
        "By pretraining images": {
            f"{count} labelled patients": _line({s: scores.get((s, count)) for s in sizes}, groups)
            for count in patients
        },
        "By labelled patients": {
            f"{size:,} pretraining images": _line(
                {c: scores.get((size, c)) for c in patients}, groups
            )
            for size in sizes
        },
    }
    png = sweep_figures.curves(
        panels,
        ("pretraining images", "labelled patients"),
        "macro F1",
        f"Data efficiency: {naming.title(study).removeprefix('Few-shot ')}",
    )
    runs.write_bytes(folder.figures / f"{naming.slug(study)}.png", png)
    counts = sorted({len(values) for values in scores.values()})
    seeds = "to".join(dict.fromkeys(f" {n} " for n in (counts[0], counts[-1]))).strip()
    caption = (
        "Macro F1 of linear probes on few labelled patients, against the images that the model was "
        f"pretrained on. Mean of {seeds} pretraining seeds with its 95 % band over them (Student's "
        "t); each seed's score is the mean over support sets. The band leaves out the choice of "
        "images: all seeds of a size learn from the same. Both panels show the same numbers."
    )
    below = judged_on(outcome, study)
    return page.picture(png, f"Data efficiency of {study}", caption, below) + _table(
        scores, sizes, patients
    )


def _scores(outcome: Outcome, study: str) -> tuple[Scores, int]:
    """Scores, and patients they are judged on."""
    scores: Scores = {}
    groups = 1
    for row in outcome.rows:
        if study not in row.found:
            continue
        size = int(row.point.settings[FIELD])
        groups = next(iter(row.found[study].metrics.values())).groups or 1
        for point in row.found[study].curve:
            scores.setdefault((size, int(point["patients"])), []).append(float(point["mean"]))
    return scores, groups


def _line(at: dict[int, list[float] | None], groups: int) -> Line:
    x, means, lows, highs = [], [], [], []
    for place, values in at.items():
        if not values:
            continue
        low = high = np.nan
        if len(values) > 1:
            spread = Spread(intervals.variance(values) / len(values), len(values) - 1)
            mean = float(np.mean(values))
            low, high = intervals.interval(mean, [spread], scale="unit", groups=groups)
        x.append(float(place))
        means.append(float(np.mean(values)))
        lows.append(low)
        highs.append(high)
    return Line(x, means, lows, highs)


def _table(scores: Scores, sizes: list[int], patients: list[int]) -> str:
    rows = [
        (f"{size:,}", *(_mean(scores.get((size, count))) for count in patients)) for size in sizes
    ]
    columns = ("Pretraining images", *(f"{count} patients" for count in patients))
    return page.plain_table(columns, rows)


def _mean(values: list[float] | None) -> str:
    return "" if not values else f"{np.mean(values):.3f} ({len(values)} seeds)"
