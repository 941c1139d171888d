"""sweep.html: what a sweep found, on one self-contained page, with its figures beside it."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation.comparisons import shown_p
from fetalclip_jax.reports import naming, page, sweep_curves, sweep_efficiency, sweep_figures
from fetalclip_jax.reports.report import duration
from fetalclip_jax.reports.sweep_figures import Cell, Grid
from fetalclip_jax.sweeps.folder import Folder
from fetalclip_jax.sweeps.outcome import Outcome, Row, independent
from fetalclip_jax.sweeps.plan import short
from fetalclip_jax.sweeps.score import is_error

# The axes of a heat map, where a sweep has them.
_AXES = ("train.global_batch_size", "temperature")
_MOST_CELLS, _MOST_MAPS, _MOST_SETTINGS = 12, 12, 40


def write(outcome: Outcome, folder: Folder) -> None:
    """Writes the page, and its figures as PNG."""
    folder.figures.mkdir(parents=True, exist_ok=True)
    sections = [(heading, content) for heading, content in _sections(outcome, folder) if content]
    name = pathlib.PurePath(outcome.plan.path.partition(":")[0]).stem  # its argument may be a path
    title = f"FetalCLIP sweep: {name}"
    runs.write_text(folder.page, page.document(title, _head(outcome), sections))


def _sections(outcome: Outcome, folder: Folder) -> Iterator[tuple[str, str]]:
    yield "Heat map", _heat_maps(outcome, folder)
    yield "Data efficiency", sweep_curves.section(outcome, folder)
    yield "Patients trained on", sweep_efficiency.section(outcome, folder)
    yield "Settings", _settings(outcome, folder)
    yield "Comparisons", _comparisons(outcome)
    yield "Points", _points(outcome, folder)


def _judged_on(outcome: Outcome) -> str:
    judging = outcome.plan.judging
    of = f" of {judging.judged_on.kind}" if judging.judged_on is not None else ""
    return f"{judging.patients} patients{of}"


def _head(outcome: Outcome) -> str:
    results = [result for row in outcome.rows for result in row.found.values()]
    notice = "Research use only. Not a medical device."
    if simulated := dict.fromkeys(one.data["name"] for one in results if one.data.get("simulated")):
        notice += (
            f" Simulated images ({', '.join(simulated)}): these numbers say nothing about patients."
        )
    facts = [
        ("Points", f"{outcome.count('done')} of {len(outcome.rows)} finished"),
        ("Score", score_words(outcome)),
        ("Judged on", _judged_on(outcome)),
    ]
    seconds = [row.state.seconds for row in outcome.rows if row.state.seconds is not None]
    if seconds:
        facts.append(("Time of all points", duration(sum(seconds))))
    parts = [f'<div class="banner" role="note">{page.text(notice)}</div>', page.tiles(facts)]
    if outcome.verdict:
        parts.append(page.paragraph(outcome.verdict.in_words(words)))
    parts.append(page.bullets(outcome.notes) if outcome.notes else "")
    parts.append(
        page.paragraph(
            "sweep.json and sweep.csv beside this page hold the same figures for scripts. Every "
            "point is a run: fetalclip evaluate and fetalclip report take its folder.",
            "quiet",
        )
    )
    return "".join(parts)


def words(name: str) -> str:
    """A setting's name as a reader writes it."""
    return naming.display(name).replace("=", " ").replace(",", ", ")


def score_words(outcome: Outcome) -> str:
    study, _, metric = outcome.plan.score.partition("/")
    return f"{naming.title(study)}, {naming.metric(metric).words}"


def _picture(folder: Folder, name: str, png: bytes, alt: str, caption: str, below: str) -> str:
    runs.write_bytes(folder.figures / f"{name}.png", png)
    return page.picture(png, alt, caption, below)


def _heat_maps(outcome: Outcome, folder: Folder) -> str:
    found = grids(outcome)
    if not found:
        return ""
    png = sweep_figures.heat_maps(
        found,
        score_words(outcome),
        lower_is_better=is_error(outcome.plan.score),
        least=_undecided(outcome),
    )
    caption = (
        "Mean over seeds, darker where better. Below it the half width of the 95 % interval over "
        "seeds (Student's t) and n, the number of finished points."
    )
    return _picture(
        folder,
        "heat_map",
        png,
        "Heat map of the score",
        caption,
        sweep_curves.judged_on(outcome, outcome.plan.score.partition("/")[0]),
    )


def _undecided(outcome: Outcome) -> float:
    """A difference of means that the chance of seeds and patients makes alone: half the width of
    the middle interval of the comparisons; 0 without these."""
    against = outcome.verdict.against if outcome.verdict else ()
    widths = sorted(one.high - one.low for one in against if one.low is not None)
    return widths[len(widths) // 2] / 2 if widths else 0.0


def grids(outcome: Outcome) -> dict[str, Grid]:
    """Heat maps by title; of other fields than two, one for each combination of their values."""
    settings = [row.point.settings for row in outcome.rows]
    fields = independent(settings, list(dict.fromkeys(f for one in settings for f in one)))
    if not fields:
        return {}
    fields.sort(key=lambda name: _AXES.index(name) if name in _AXES else len(_AXES))
    row_field, column_field = (fields[0], fields[1]) if len(fields) > 1 else ("", fields[0])
    others = [field for field in fields if field not in (row_field, column_field)]

    def among(field: str) -> list[Any]:
        return list(dict.fromkeys(one.get(field) for one in settings)) if field else [None]

    rows, columns = sorted(among(row_field), key=_order), sorted(among(column_field), key=_order)
    kept = outcome.settings
    combinations = list(itertools.product(*map(among, others)))
    if max(len(rows), len(columns)) > _MOST_CELLS or len(combinations) > _MOST_MAPS:
        return {}
    found: dict[str, Grid] = {}
    for combination in combinations:
        fixed = dict(zip(others, combination, strict=True))
        cells = [
            [
                _cell(outcome.rows, kept, fixed | {row_field: row, column_field: column})
                for column in columns
            ]
            for row in rows
        ]
        title = ", ".join(f"{short(name, fields)} {_shown(value)}" for name, value in fixed.items())
        found[title] = Grid(
            naming.display(short(row_field, fields)) if row_field else "",
            naming.display(short(column_field, fields)),
            [_shown(row) for row in rows] if row_field else [""],
            [_shown(column) for column in columns],
            cells,
        )
    return found


def _order(value: Any) -> tuple:
    """Numbers in their order, before words."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (not is_number, value if is_number else 0, str(value))


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(_shown(one) for one in value if one != "") or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "not set" if value is None else str(value) or "none"


def _cell(rows: Sequence[Row], settings, wanted: Mapping[str, Any]) -> Cell | None:
    def fits(given: Mapping[str, Any]) -> bool:
        return all(given.get(name) == value for name, value in wanted.items() if name)

    own = [row for row in rows if fits(row.point.settings)]
    if not own:
        return None
    statuses = [row.state.status for row in own if row.state.status != "done"]
    missing = ", ".join(f"{statuses.count(one)} {one}" for one in dict.fromkeys(statuses))
    found = next((one for one in settings if fits(one.settings)), None)
    if found is None:
        return Cell(None, None, 0, missing)
    return Cell(found.mean, found.half_width, len(found.values), missing)


def _settings(outcome: Outcome, folder: Folder) -> str:
    if not outcome.settings:
        return ""
    order = sorted(
        outcome.settings, key=lambda one: one.mean, reverse=not is_error(outcome.plan.score)
    )
    png = sweep_figures.seeds(
        {
            words(one.name): (one.values, one.mean, one.low, one.high)
            for one in order[:_MOST_SETTINGS]
        },
        score_words(outcome),
    )
    caption = "Settings by their mean; points that differ in the seed alone are one setting."
    if len(order) > _MOST_SETTINGS:
        caption += f" The first {_MOST_SETTINGS} of {len(order)}."
    picture = _picture(
        folder,
        "seeds",
        png,
        "Scores by setting and seed",
        caption,
        sweep_curves.judged_on(outcome, outcome.plan.score.partition("/")[0]),
    )
    rows = [
        (
            words(one.name),
            f"{one.mean:.3f}",
            _interval(one.low, one.high),
            len(one.values),
            _listed(one),
        )
        for one in order
    ]
    columns = ("Setting", "Mean", "95 % over seeds", "Seeds", "Each")
    return picture + page.folded_table("Settings", columns, rows, most=20)


def _listed(setting) -> str:
    return ", ".join(f"{value:.3f}" for value in setting.values)


def _interval(low: float | None, high: float | None) -> str:
    return "none" if low is None else f"{low:.3f} to {high:.3f}"


def _comparisons(outcome: Outcome) -> str:
    verdict = outcome.verdict
    if not verdict or not verdict.against:
        return ""
    rows = [
        (
            words(one.name),
            f"{one.difference:+.3f}",
            _interval(one.low, one.high),
            "none" if one.p is None else shown_p(one.p),
            "yes" if one.decided else "no",
        )
        for one in verdict.against
    ]
    better = "less" if is_error(outcome.plan.score) else "more"
    below = (
        f"{words(verdict.best)}, which has the best mean ({better} is better), minus every other "
        "setting. The interval and p hold the chance of the seeds, whose spread is taken to be "
        f"alike in all settings ({verdict.freedom} degrees of freedom), and that of the judged "
        "patients, the same for both. p is adjusted for all rows by Holm's procedure: "
        "where every row is below 0.05 the best is named. Else a setting is told apart only where "
        "p would be below 0.05 adjusted for all pairs of settings, since the best was chosen by "
        "the same numbers."
    )
    columns = (
        "Other setting",
        "Difference",
        "95 % interval, not adjusted",
        "p, adjusted",
        "Told apart",
    )
    return page.plain_table(columns, rows) + page.paragraph(below, "quiet")


def _points(outcome: Outcome, folder: Folder) -> str:
    study, _, metric = outcome.plan.score.partition("/")
    rows = []
    for row in outcome.rows:
        found = row.found[study].metrics.get(metric) if study in row.found else None
        score = "" if found is None else f"{found.value:.3f}"
        if found is not None and found.low is not None:
            score += f" ({found.low:.3f} to {found.high:.3f})"
        spent = "" if row.state.seconds is None else duration(row.state.seconds)
        rows.append(
            (row.point.name.replace(",", ", "), row.state.status, score, spent, row.state.message)
        )
    columns = ("Point", "Status", "Score (95 % over patients)", "Time", "What happened")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    below = (
        f"Each lies in {folder.points.name}/ under its name (without spaces); what it printed is "
        "its log.txt."
    )
    return page.plain_table(columns, rows, "dense points") + page.paragraph(below, "quiet")
