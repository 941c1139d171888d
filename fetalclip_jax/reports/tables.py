"""tables/: the figures of a report as CSV for spreadsheets and as LaTeX for a paper.

<folder>/headline.csv, .tex        every figure of the page's first table, with its baseline
        <study>.csv, .tex          every metric of a study, a row for each model and data set
        published.csv, .tex        results by the paper's protocol above the published ones

The LaTeX is a `table` that shrinks to the line: \\usepackage{booktabs,graphicx}, then
\\input{headline}.
"""

import csv
import io
from collections.abc import Container, Sequence

from fetalclip_jax import run as runs
from fetalclip_jax import storage
from fetalclip_jax.evaluation.curves import metric_of, of_size
from fetalclip_jax.reports import headline, naming, provenance, published
from fetalclip_jax.reports.claim_data import together
from fetalclip_jax.reports.naming import Metric, number, slug
from fetalclip_jax.reports.reading import Contents, Evaluated

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
_MARK = r"% By `fetalclip report`. Needs \usepackage{booktabs,graphicx}."
_OF = ("Model", "Data", "Split", "Protocol")
_VALUE, _INTERVAL = "Value", "95 % interval"
_SIMULATED = "Simulated images: these numbers say nothing about patients."


def write(folder: storage.Path, contents: Contents) -> None:
    """Writes the tables for which the sources hold something; those of an earlier report go."""
    made: dict[str, tuple[list[tuple[str, ...]], str]] = {}
    if found := headline.rows(contents):
        ones = list({id(row.of): row.of for row in found}.values())
        intervals = together(
            (f"Protocol {_of(one)[-1]}", f"{provenance.interval(one)}.") for one in ones
        )
        caption = f"Every task and what it has to beat. {' '.join(intervals)}"
        made["headline"] = _headline(found), caption + _notice(ones)
    studies: dict[str, list[Evaluated]] = {}
    for one in contents.evaluated:
        studies.setdefault(one.result.study, []).append(one)
    for study, ones in studies.items():
        caption = f"{naming.title(study)}: {provenance.stands_for(*ones)}"
        made[slug(study)] = _metrics(ones), caption + _notice(ones)
    if rows := published.table(contents):
        caption = (
            f"Results by the paper's protocol above published ones ({published.SOURCE}), which "
            "were not measured here and hold for the images that the last row names."
        )
        made["published"] = rows, caption
    _clear(folder, made)
    for name, (rows, caption) in made.items():
        _write(folder, name, rows, caption)


def _clear(folder: storage.Path, kept: Container[str]) -> None:
    """Removes what an earlier report wrote and this one does not: it would be taken for its own."""
    for path in folder.glob("*.tex"):
        if path.stem not in kept and path.read_text(encoding="utf-8").startswith(_MARK):
            path.with_suffix(".csv").unlink(missing_ok=True)
            path.unlink()


def _notice(ones: Sequence[Evaluated]) -> str:
    return f" {_SIMULATED}" if any(one.simulated for one in ones) else ""


def _headline(found: Sequence[headline.Row]) -> list[tuple[str, ...]]:
    return [
        ("Task", *_OF, "Metric", _VALUE, _INTERVAL, "Images", "Patients", "Baseline", "What it is"),
        *(
            (
                naming.title(row.of.result.study),
                *_of(row.of),
                row.what,
                row.metric.show(row.value),
                _edges(row.metric, *(row.interval or (None, None))),
                *_counts(row.of),
                row.metric.show(row.baseline),
                row.baseline_name,
            )
            for row in found
        ),
    ]


def _of(one: Evaluated) -> tuple[str, ...]:
    protocol = str(one.result.protocol.get("name", "not recorded"))
    return one.model_name, one.data_name, " ".join(provenance.splits(one)), protocol


def _metrics(ones: Sequence[Evaluated]) -> list[tuple[str, ...]]:
    rows = [(*_OF, "Metric", _VALUE, _INTERVAL, "Images", "Patients")]
    for one in ones:
        result, of = one.result, _of(one)
        images, patients = _counts(one)
        # The metric of a curve is its last point, which is told below.
        for name, e in () if result.curve else result.metrics.items():
            metric = naming.metric(name, str(result.data.get("ages_from") or ""))
            shown = (metric.words, metric.show(e.value), _edges(metric, e.low, e.high))
            rows.append((*of, *shown, images if e.n is None else f"{e.n:,}", patients))
        for point in sorted(result.curve, key=lambda p: int(p["patients"])):
            metric = naming.metric(metric_of(result))
            edges = (number(point.get("low")), number(point.get("high")))
            shown = (metric.show(float(point["mean"])), _edges(metric, *edges))
            words = f"{metric.words}, {of_size(result, int(point['patients']))}"
            rows.append((*of, words, *shown, images, patients))
    return rows


def _counts(one: Evaluated) -> tuple[str, str]:
    images, patients = ("" if n is None else f"{n:,}" for n in provenance.counts(one))
    return images, patients


def _edges(metric: Metric, low: float | None, high: float | None) -> str:
    return "none" if low is None or high is None else f"{metric.show(low)} to {metric.show(high)}"


def _write(folder: storage.Path, name: str, rows, caption: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    runs.write_text(folder / f"{name}.csv", text.getvalue())
    runs.write_text(folder / f"{name}.tex", latex(rows, caption, f"tab:{name.replace('_', '-')}"))


def latex(rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    """A floating table; the first row is its head.

    An interval stands in brackets behind its value. A column "Task" becomes headings.

    Args:
      rows: plain text; signs that mean something to TeX are escaped.
      caption: plain text.
      label: for \\ref.
    """
    head, *body = (_with_interval(rows[0], row) for row in rows)
    by_task = head[0] == "Task"
    head = head[by_task:]
    lines, task = [], None
    for row in body:
        if by_task and row[0] != task:
            task = row[0]
            lines += [r"\addlinespace"] * bool(lines)
            heading = rf"\textbf{{{escape(task)}}}"
            lines.append(rf"\multicolumn{{{len(head)}}}{{l}}{{{heading}}} \\")
        lines.append(_line(row[by_task:]))
    return "\n".join(
        (
            _MARK,
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{{label}}}",
            # A table wider than the line shrinks to it; a narrow one keeps its size.
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(head)}}}",
            r"\toprule",
            _line(head),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        )
    )


def _with_interval(head: Sequence[str], row: Sequence[str]) -> list[str]:
    row = list(row)
    if _INTERVAL in head:
        place = head.index(_INTERVAL)
        if (interval := row.pop(place)) != "none":
            row[place - 1] += f" ({interval})"
    return row


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


def escape(text: str) -> str:
    """`text` as TeX shows it, on one line."""
    return "".join(_ESCAPES.get(sign, sign) for sign in " ".join(text.split()))
