"""The section "Comparison": who is better, in what, by how much and how surely."""

from collections.abc import Iterator, Sequence

from fetalclip_jax import run as runs
from fetalclip_jax import storage
from fetalclip_jax.evaluation import comparisons
from fetalclip_jax.evaluation.comparison import Comparison
from fetalclip_jax.evaluation.comparisons import Comparisons, Pair, shown_p
from fetalclip_jax.evaluation.curves import of_size
from fetalclip_jax.evaluation.difference import ALPHA, RELATIVE_MARGIN, Difference, check_margin
from fetalclip_jax.evaluation.units import counted, judged_unit
from fetalclip_jax.reports import forest, naming, page, provenance
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents

# More models make more pairs than anyone reads: then they are to be named.
MOST_MODELS = 5
# Of more pairs the tests one by one are opened on demand.
_SHOWN_PAIRS = 3
_AXIS = "difference, first minus second (0.01 is one point of a percentage)"


def of(contents: Contents, pairs: Sequence[Pair], margin: float) -> Comparisons | None:
    """Comparisons of the models of a report; None of a single one, or of too many to pair.

    Results that may be of several models and name none are compared in nothing, and that is said.

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
    if models > MOST_MODELS and not pairs:
        return None
    if models < 2 and not pairs and not comparisons.indistinct(results):
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


def write(folder: storage.Path, found: Comparisons | None) -> None:
    """Writes comparison.json and comparison.csv; where nothing was compared, earlier ones go."""
    path = folder / "comparison.json"
    if found is not None and found.compared:
        runs.write_json(path, found.to_json())
        runs.write_text(path.with_suffix(".csv"), found.to_csv())
    elif path.exists():  # of a report, see `place`: it would be taken for one of this
        path.unlink()
        path.with_suffix(".csv").unlink(missing_ok=True)


def change(metric: str, value: float, low: float | None, high: float | None) -> str:
    """A difference and its interval: "+0.012 (-0.003 to +0.027)", "-0.4 (-1.1 to +0.4) points".

    A difference of percentages is in points: -1.4 % would be read as a share of them.
    """
    shown = naming.metric(metric)
    factor, digits, unit = (100, 1, "points") if shown.percent else (1, 3, "")
    if shown.unit:
        digits, unit = 1, "points" if shown.unit == "%" else shown.unit
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
    """A picture of each pair; all have the same rows in the same places."""
    panels: dict[Pair, dict[str, forest.Row]] = {}
    shown: set[int] = set()
    several = len({one.data for one in found.compared}) > 1
    for one, d, _, verdict in found.rows():
        if not _is_rate(d):
            continue
        name = naming.title(one.study) + (f"\n{_on(one)}" if several else "")
        panels.setdefault(one.names, {})[name] = forest.Row(
            d.value,
            d.low,
            d.high,
            verdict,
            change(d.metric, d.value, d.low, d.high),
            f"{_what(one, d)}; {counted(d.n, judged_unit(one.results[0]))} of "
            f"{counted(d.patients, 'patients')}",
        )
        shown.update(map(id, one.results))
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    blocks = []
    for k, (pair, rows) in enumerate(panels.items(), start=1):
        title = f"{pair[0]} minus {pair[1]}"
        blocks.append(
            report.picture(
                "comparison" if k == 1 else f"comparison_{k}",
                forest.forest(rows, names, found.margin, title, _AXIS),
                f"Differences with their intervals: {title}",
                "",
                of=(),  # said once, below all of them
            )
        )
    yield page.paragraph("Headline metric of each task, on the images that both judged", "title")
    yield page.side_by_side("", blocks)
    yield page.paragraph(
        "Lines are 95 % intervals of one test each; verdicts are by Holm's p, so that a difference "
        "whose interval leaves out zero may be undecided. Each pair has its own scale.",
        "quiet",
    )
    ones = [one for one in report.contents.evaluated if id(one.result) in shown]
    yield page.paragraph(provenance.stands_for(*ones), "basis")


def _what(one: Comparison, d: Difference) -> str:
    """What was measured: "macro F1, 16 patients"."""
    words = naming.metric(d.metric, str(one.results[0].data.get("ages_from") or "")).words
    if d.learned_from is None:
        return words
    return f"{words}, {of_size(one.results[0], d.learned_from)}"


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
    columns = ("Task", "Data", "First", "Second", "Difference (95 % interval)", p_is)
    units = dict.fromkeys(judged_unit(one.results[0]) for one, *_ in rows)
    columns += (f"{' or '.join(units).capitalize()} / patients", "First is")
    body = []
    for one, d, p, verdict in rows:
        metric = naming.metric(d.metric)
        if verdict in ("better", "worse") and d.equivalent:
            verdict += ", within the margin"
        body.append(
            (
                f"{naming.title(one.study)}, {_what(one, d)}",
                _on(one),
                f"{one.names[0]} {metric.show(d.first)}",
                f"{one.names[1]} {metric.show(d.second)}",
                change(d.metric, d.value, d.low, d.high),
                p,
                f"{d.n:,} / {d.patients:,}",
                verdict,
            )
        )
    return _stacked(columns, body, numbers_from=4)


def _stacked(
    columns: Sequence[str], rows: Sequence[Sequence[object]], numbers_from: int = 1
) -> str:
    """A table whose rows a narrow page stacks: each cell says its column."""
    body = []
    for first, *others in rows:
        cells = "".join(
            f'<td class="{"number" if k >= numbers_from else ""}" '
            f'data-label="{page.text(columns[k])}">{page.text(cell)}</td>'
            for k, cell in enumerate(others, start=1)
        )
        body.append(f'<th scope="row">{page.text(first)}</th>{cells}')
    return page.table(columns, body, "stacked")


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
    return title + _stacked(columns, rows)


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
