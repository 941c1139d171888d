"""The section "Comparison": who is better, in what, by how much and how surely."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation import comparisons
from fetalclip_jax.evaluation.comparison import ALPHA, RELATIVE_MARGIN, Comparison, Difference
from fetalclip_jax.evaluation.comparisons import Comparisons, Pair, shown_p
from fetalclip_jax.reports import forest, naming, page
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated

# More models make more pairs than anyone reads: then they are to be named.
MOST_MODELS = 5


def of(contents: Contents, pairs: Sequence[Pair], margin: float) -> Comparisons | None:
    """Comparisons of the models of a report; None of a single one, or of too many to pair.

    Args:
      pairs: names of models; empty for all pairs of up to `MOST_MODELS`.
      margin: of equivalence, for rates.

    Raises:
      ValueError: a name that no model has, or a named pair of which nothing can be compared.
    """
    results = [one.result for one in contents.evaluated]
    models = len(comparisons.by_model(results))
    if not pairs and not 2 <= models <= MOST_MODELS:
        return None
    return comparisons.compare_all(results, pairs or None, margin=margin)


def parts(report: Report, found: Comparisons | None) -> Iterator[str]:
    """Figure, table, wins, and what could not be compared, as HTML."""
    if found is None:
        models = comparisons.by_model([one.result for one in report.contents.evaluated])
        if len(models) > MOST_MODELS:
            report.missing.append(
                f"Comparison of {len(models)} models: more than {MOST_MODELS}; name pairs by "
                "fetalclip report --compare A B."
            )
        return
    if not found.compared:
        report.missing += [f"Comparison: {line}." for line in found.left_out]
        return
    yield page.paragraph(_how(found))
    if any(_is_rate(one.headline) for one in found.compared):
        yield report.picture(
            "comparison",
            _figure(found),
            "Differences of models with their intervals",
            "Headline metric of each task, the first model minus the second, on the images that "
            "both judged. Lines are 95 % intervals; the verdict is by Holm's p.",
            of=_shown(report, found),
        )
    yield _headlines(found)
    yield _wins(found)
    yield page.details("Differences in every metric", _every_metric(found))
    yield _notes(found)


def write(folder: pathlib.Path, found: Comparisons | None) -> None:
    """Writes comparison.json and comparison.csv; nothing where nothing was compared."""
    if found is not None and found.compared:
        runs.write_json(folder / "comparison.json", found.to_json())
        runs.write_text(folder / "comparison.csv", found.to_csv())


def check_place(folder: pathlib.Path) -> None:
    """Raises ValueError if comparison.json there is of something else than a report."""
    path = folder / "comparison.json"
    if not path.exists():
        return
    try:
        ours = "comparisons" in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise ValueError(
            f"{path} is not of a report and would be overwritten; choose another folder for the "
            "output"
        )


def change(metric: str, value: float | None) -> str:
    """A difference in the unit of its metric: "+0.012", "-1.3 points" of percents, "+2.1 days"."""
    if value is None:
        return "none"
    shown = naming.metric(metric)
    if shown.percent:
        return f"{100 * value:+.1f} points"
    return f"{value:+.1f} {shown.unit}" if shown.unit else f"{value:+.3f}"


def edges(metric: str, low: float | None, high: float | None) -> str:
    """An interval of a difference."""
    if low is None or high is None:
        return "none"
    return f"{change(metric, low)} to {change(metric, high)}"


def _how(found: Comparisons) -> str:
    return (
        "Both models of a pair judged the same images, so that patients are drawn once for both "
        "and what makes an image hard cancels out. Intervals are 95 %, Student's t with the "
        "variances of a bootstrap of the test patients (of images where the protocol says so), of "
        "support sets and of redrawn augmented copies where a study has them. One headline metric "
        f"of each task and pair is tested: {found.tests} two-sided tests, adjusted together by "
        f"Holm's method at {100 * ALPHA:g} %. Better and worse are of the first model. Equivalent: "
        f"two one-sided tests at {100 * ALPHA:g} % each, not adjusted, exclude a difference of "
        f"{found.margin:g} in rates, or of {100 * RELATIVE_MARGIN:g} % in errors. Undecided is no "
        "proof of equality."
    )


def _shown(report: Report, found: Comparisons) -> list[Evaluated]:
    results = {id(result) for one in found.compared for result in one.results}
    return [one for one in report.contents.evaluated if id(one.result) in results]


def _figure(found: Comparisons) -> bytes:
    panels: dict[str, dict[str, forest.Row]] = {}
    names: dict[str, None] = {}
    several = len({one.data for one in found.compared}) > 1
    for one, d, _, verdict in found.rows():
        if not _is_rate(d):
            continue
        name = naming.title(one.study) + (f"\n{one.data}" if several else "")
        names[name] = None
        interval = "no interval" if d.low is None else f"[{d.low:+.3f}, {d.high:+.3f}]"
        panels.setdefault(f"{one.names[0]} - {one.names[1]}", {})[name] = forest.Row(
            d.value,
            d.low,
            d.high,
            verdict,
            f"{d.value:+.3f} {interval}",
            f"{d.n:,} images, {d.patients:,} patients",
        )
    axis = "difference in macro F1 or rate; right of zero: the first model is better"
    return forest.forest(panels, list(names), found.margin, axis)


def _is_rate(d: Difference) -> bool:
    return not d.lower_is_better


def _headlines(found: Comparisons) -> str:
    rows = []
    for one, d, p, verdict in found.rows():
        metric = naming.metric(d.metric)
        close = verdict in ("better", "worse") and d.equivalent
        rows.append(
            (
                naming.title(one.study),
                _on(one),
                metric.words,
                f"{one.names[0]} {metric.show(d.first)}",
                f"{one.names[1]} {metric.show(d.second)}",
                change(d.metric, d.value),
                edges(d.metric, d.low, d.high),
                shown_p(d.p),
                shown_p(p),
                f"{d.n:,}",
                f"{d.patients:,}",
                f"{verdict}, within the margin" if close else verdict,
            )
        )
    columns = (
        *("Task", "Data", "Metric", "First", "Second", "Difference", "95 % interval", "p"),
        *("Holm's p", "Images", "Patients", "First is"),
    )
    return page.plain_table(columns, rows)


def _wins(found: Comparisons) -> str:
    rows = []
    for one in found.wins:
        mean = "none"
        if one.mean is not None:
            mean = f"{one.mean.value:+.3f}"
            if one.mean.low is not None:
                mean += f" ({one.mean.low:+.3f} to {one.mean.high:+.3f})"
        rows.append(
            (
                one.names[0],
                one.names[1],
                "simulated" if one.simulated else "real",
                *one.counts.values(),
                mean,
                one.studies,
            )
        )
    columns = ("First", "Second", "Images", "Better in", "Worse in", "Equivalent in")
    columns += ("Undecided in", "Mean difference (95 % interval)", "Tasks in the mean")
    return page.paragraph("Wins of the first model, by Holm's p", "title") + page.plain_table(
        columns, rows
    )


def _every_metric(found: Comparisons) -> str:
    rows = [
        (
            naming.title(one.study),
            _on(one),
            f"{one.names[0]} - {one.names[1]}",
            naming.metric(d.metric).words,
            naming.metric(d.metric).show(d.first),
            naming.metric(d.metric).show(d.second),
            change(d.metric, d.value),
            edges(d.metric, d.low, d.high),
            shown_p(d.p),
            f"{d.n:,}",
            f"{d.patients:,}",
            d.verdict(),
        )
        for one in found.compared
        for d in one.differences
    ]
    columns = (
        *("Task", "Data", "Pair", "Metric", "First", "Second", "Difference", "95 % interval"),
        *("p, not adjusted", "Images", "Patients", "First is, by this p"),
    )
    return page.plain_table(columns, rows)


def _notes(found: Comparisons) -> str:
    lines: dict[str, list[str]] = {}
    for one in found.compared:
        words = [f"also at chance: {d.chance.words}" for d in one.differences if d.chance.words]
        for note in (*one.notes, *dict.fromkeys(words)):
            titles = lines.setdefault(note, [])
            titles += [naming.title(one.study)] * (naming.title(one.study) not in titles)
    items = [f"{', '.join(titles)}: {note}." for note, titles in lines.items()]
    items += [f"Not compared: {line}." for line in found.left_out]
    return (
        f'<ul class="missing">{"".join(f"<li>{page.text(i)}</li>" for i in items)}</ul>'
        if items
        else ""
    )


def _on(one: Comparison) -> str:
    return f"{one.data} (simulated)" if one.simulated else one.data
