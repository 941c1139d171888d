"""The section "Comparison": who is better, in what, by how much and how surely."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation import comparisons
from fetalclip_jax.evaluation.comparison import (
    ALPHA,
    RELATIVE_MARGIN,
    Comparison,
    Difference,
    check_margin,
)
from fetalclip_jax.evaluation.comparisons import Comparisons, Pair, shown_p
from fetalclip_jax.reports import forest, naming, page
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents

# More models make more pairs than anyone reads: then they are to be named.
MOST_MODELS = 5
# Of more pairs the tests one by one are opened on demand.
_SHOWN_PAIRS = 3
# What a page of print holds of the figure.
_PANELS = 4


def of(contents: Contents, pairs: Sequence[Pair], margin: float) -> Comparisons | None:
    """Comparisons of the models of a report; None of a single one, or of too many to pair.

    Args:
      pairs: names of models; empty for all pairs of up to `MOST_MODELS`.
      margin: of equivalence, for rates.

    Raises:
      ValueError: a name that no model has, a named pair of which nothing can be compared, or a
        margin that is none.
    """
    check_margin(margin)
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
    yield page.paragraph(_how(found)) + _wins(found)
    if any(_is_rate(one.headline) for one in found.compared):
        yield from _figures(report, found)
    yield _headlines(found)
    yield from _every_metric(found)
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


def change(metric: str, value: float, low: float | None, high: float | None) -> str:
    """A difference and its interval: "+0.012 (-0.003 to +0.027)", "-0.4 (-1.1 to +0.4) points"."""
    shown = naming.metric(metric)
    factor, digits, unit = (100, 1, "points") if shown.percent else (1, 3, "")
    if shown.unit:
        digits, unit = 1, shown.unit
    numbers = [f"{factor * one:+z.{digits}f}" for one in (value, low, high) if one is not None]
    interval = f" ({numbers[1]} to {numbers[2]})" if len(numbers) == 3 else ", no interval"
    return f"{numbers[0]}{interval} {unit}".strip()


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


def _figures(report: Report, found: Comparisons) -> Iterator[str]:
    panels: dict[str, dict[str, forest.Row]] = {}
    results: dict[str, set[int]] = {}
    names: dict[str, None] = {}
    several = len({one.data for one in found.compared}) > 1
    for one, d, _, verdict in found.rows():
        if not _is_rate(d):
            continue
        name = naming.title(one.study) + (f"\n{_on(one)}" if several else "")
        names[name] = None
        interval = "no interval" if d.low is None else f"[{d.low:+z.3f}, {d.high:+z.3f}]"
        pair = f"{one.names[0]} minus {one.names[1]}"
        panels.setdefault(pair, {})[name] = forest.Row(
            d.value,
            d.low,
            d.high,
            verdict,
            f"{d.value:+z.3f} {interval}",
            f"{d.n:,} images, {d.patients:,} patients",
        )
        results.setdefault(pair, set()).update(map(id, one.results))
    pairs_of = list(panels)
    for start in range(0, len(pairs_of), _PANELS):
        pairs = pairs_of[start : start + _PANELS]
        shown = set().union(*(results[pair] for pair in pairs))
        yield report.picture(
            "comparison" if start == 0 else f"comparison_{1 + start // _PANELS}",
            forest.forest(
                {pair: panels[pair] for pair in pairs},
                list(names),
                found.margin,
                "difference in macro F1 or rate; right of zero: the first model is better",
            ),
            "Differences of models with their intervals",
            "Headline metric of each task, the first model minus the second, on the images that "
            "both judged. Lines are 95 % intervals of one test each; verdicts are by Holm's p, so "
            "that a difference whose interval leaves out zero may be undecided.",
            of=[one for one in report.contents.evaluated if id(one.result) in shown],
        )


def _is_rate(d: Difference) -> bool:
    return not d.lower_is_better


def _headlines(found: Comparisons) -> str:
    content = _table(
        "p / Holm's p",
        [
            (one, d, f"{shown_p(d.p)} / {shown_p(p)}".replace("< 0.001 / < 0.001", "< 0.001"), v)
            for one, d, p, v in found.rows()
        ],
    )
    title = "Headline metrics, each a test of the family"
    if len(found.pairs) > _SHOWN_PAIRS:
        return page.details(title, content)
    return page.paragraph(title, "title") + content


def _every_metric(found: Comparisons) -> Iterator[str]:
    for pair in found.pairs:
        rows = [
            (one, d, shown_p(d.p), d.verdict())
            for one in found.compared
            if one.names == pair
            for d in one.differences
        ]
        title = f"Every metric: {pair[0]} minus {pair[1]} (p-values not adjusted)"
        yield page.details(title, _table("p", rows))


def _table(p_is: str, rows: Sequence[tuple[Comparison, Difference, str, str]]) -> str:
    body = []
    for one, d, p, verdict in rows:
        metric = naming.metric(d.metric, str(one.results[0].data.get("ages_from") or ""))
        if verdict in ("better", "worse") and d.equivalent:
            verdict += ", within the margin"
        task = page.text(f"{naming.title(one.study)}, {metric.words}")
        words = (
            _on(one),
            f"{one.names[0]} {metric.show(d.first)}",
            f"{one.names[1]} {metric.show(d.second)}",
        )
        figures = (
            change(d.metric, d.value, d.low, d.high),
            p,
            f"{d.n:,} / {d.patients:,}",
            verdict,
        )
        body.append(
            f'<th scope="row">{task}</th>'
            + "".join(f"<td>{page.text(word)}</td>" for word in words)
            + "".join(f'<td class="number">{page.text(figure)}</td>' for figure in figures)
        )
    columns = ("Task", "Data", "First", "Second", "Difference (95 % interval)", p_is)
    return page.table((*columns, "Images / patients", "First is"), body)


def _wins(found: Comparisons) -> str:
    rows = []
    for one in found.wins:
        mean = "none"
        if one.mean is not None:
            mean = change("macro_f1", one.mean.value, one.mean.low, one.mean.high)
        on = "simulated" if one.simulated else "real"
        rows.append(
            (f"{one.names[0]} against {one.names[1]}", on, *one.counts.values(), mean, one.studies)
        )
    columns = ("Models", "Images", "Better", "Worse", "Equivalent", "Undecided")
    columns += ("Mean difference (95 % interval)", "Tasks")
    title = page.paragraph("Tasks in which the first model is better or worse", "title")
    return title + page.plain_table(columns, rows)


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
