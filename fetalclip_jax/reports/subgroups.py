"""The section of subgroups: every study by every column, and the largest gaps."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes

from fetalclip_jax.evaluation.gaps import UNKNOWN
from fetalclip_jax.evaluation.subgroups import DATA_SET, Subgroup
from fetalclip_jax.evaluation.units import counted, judged_unit
from fetalclip_jax.reports import naming, page, style
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reliability import Split, gap_words

_IN_A_ROW = 2
_COLUMNS = {"spacing_mm": "pixel spacing"}


def section(report, splits: Sequence[Split]) -> Iterator[str]:
    """Figures, the table of largest gaps, and every metric on demand.

    Args:
      report: a `sections.Report`.
    """
    several = len({one.data_name for one in splits if one.data_name}) > 1
    figures: dict[tuple[str, str], list[Split]] = {}
    for one in splits:
        figures.setdefault((one.found.column, one.data_name), []).append(one)
    for (column, data), found in figures.items():
        name = f"subgroups_{slug(column)}" + (f"_{slug(data)}" if several and data else "")
        panels: dict[str, list[Split]] = {}
        for one in found:
            panels.setdefault(one.found.study, []).append(one)
        title, png = f"Subgroups by {_column(column)}", forest(list(panels.values()))
        of = [result for one in found for result in one.results]
        yield report.picture(name, png, title, _caption(found, data), of=of)
    if splits:
        yield _gaps(splits)
        file = "reliability_subgroups.csv"
        yield page.details("Every metric of every subgroup", _metrics(splits), file)


def forest(panels: Sequence[Sequence[Split]]) -> bytes:
    """The headline of every subgroup with its interval, one panel a study, as PNG.

    Args:
      panels: of each study the splits by the same column, one a model.
    """
    columns = min(len(panels), _IN_A_ROW)
    rows = -(-len(panels) // columns)
    names = [list(dict.fromkeys(g.name for s in panel for g in s.found.groups)) for panel in panels]
    series = list(dict.fromkeys(one.label for panel in panels for one in panel))
    step = max(0.44, 0.2 * len(series) + 0.1)
    heights = [
        1.0 + step * max(map(len, names[r * columns : (r + 1) * columns])) for r in range(rows)
    ]
    with style.figure(4.9 * columns + (0 if columns > 1 else 1.8), sum(heights) + 0.5) as fig:
        grid = fig.subplots(rows, columns, squeeze=False, height_ratios=heights).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, panel, groups in zip(grid, panels, names, strict=False):
            _panel(axes, panel, groups, series)
        if len(series) > 1:
            keys = [fig.axes[0].plot([], [], **style.series(k))[0] for k in range(len(series))]
            columns_of_legend = 1 if max(map(len, series)) > 36 else 2
            fig.legend(keys, series, loc="outside lower center", ncols=columns_of_legend)
        return style.png(fig)


def _panel(axes: Axes, panel: Sequence[Split], names: list[str], series: list[str]) -> None:
    metric, groups = panel[0].metric, {}
    factor = 100 if metric.percent else 1
    for one in panel:
        k = series.index(one.label)
        offset = 0.22 * (k - (len(series) - 1) / 2) / max(len(series) / 3, 1)
        for group in one.found.groups:
            groups.setdefault(group.name, group)
            estimate = group.metrics.get(one.found.headline)
            if estimate is None:
                continue
            place = names.index(group.name) + offset
            look = style.series(k) | {"ms": 6, "ls": "none"}
            if estimate.low is None:
                look["mfc"] = "white"
            else:
                edges = factor * np.array([estimate.low, estimate.high])
                axes.plot(edges, [place, place], color=look["color"], lw=1.6)
            axes.plot([factor * estimate.value], [place], clip_on=False, **look)
    axes.set_yticks(
        range(len(names)), [_row(groups[name], panel[0]) for name in names], fontsize=8.4
    )
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    values = [
        g.metrics[one.found.headline].value
        for one in panel
        for g in one.found.groups
        if one.found.headline in g.metrics
    ]
    if not metric.unit and max(values, default=0) <= 1:
        axes.set_xlim(0, 1.03 * factor)
    else:
        axes.set_xlim(left=0)
    unit = " (%)" if metric.percent else f" ({metric.unit})" if metric.unit else ""
    axes.set_xlabel(metric.words + unit)
    axes.set_title(naming.title(panel[0].found.study))


def _row(group: Subgroup, one: Split) -> str:
    judged = counted(group.images, judged_unit(one.results[0].result))
    star = "*" if group.lacking else ""
    # Of one data set the caption says it.
    simulated = ", simulated" if group.simulated and one.found.column == DATA_SET else ""
    return f"{group.name}{star}{simulated}\n{judged}, {counted(group.patients, 'patients')}"


def _column(name: str) -> str:
    return _COLUMNS.get(name) or display(name)


def _units(found: Sequence[Split]) -> str:
    return " or ".join(dict.fromkeys(judged_unit(one.results[0].result) for one in found))


def _caption(found: Sequence[Split], data: str) -> str:
    words = f"By {_column(found[0].found.column)}"
    words += f", {data}. " if data else ". "
    if found[0].found.column == "spacing_mm":
        words += "The spacing is that of the image resized to 224 pixels. "
    drawn = " or ".join(sorted({f"{one.found.resample_by}s" for one in found}))
    if found[0].found.column == DATA_SET:
        words += "The same model and study on several data sets. "
    words += (
        "Points are the headline metric in each subgroup, lines its 95 % interval when the "
        f"{drawn} of that subgroup are drawn anew; hollow points have no interval (one patient)."
    )
    groups = [group for one in found for group in one.found.groups]
    if any(group.name == UNKNOWN for group in groups):
        words += f" {UNKNOWN.capitalize()}: {_units(found)} of which this is not recorded."
    if any(group.lacking for group in groups):
        words += " A star marks a subgroup that lacks classes: its mean is over the others."
    if any(group.simulated for group in groups):
        words += " Simulated images say nothing about patients."
    return words


def _gaps(splits: Sequence[Split]) -> str:
    clear_rows, other_rows, notes = [], [], {}
    for one in splits:
        found, metric = one.found, one.metric
        gap, clear = (kind.get(found.headline) for kind in (found.largest, found.established))
        if gap is None:
            words, verdict = "no two subgroups that can be compared", "not compared"
            if metric.finding:
                words = f"{metric.words}: no subgroup is better, it tells of the data"
        else:
            pairs = f", the largest of {gap.pairs}" if gap.pairs > 1 else ""
            words = f"{metric.words}: {gap_words(gap, metric)}{pairs}"
            verdict = "beyond chance" if gap.beyond_chance else "within chance"
            if clear is not None and clear != gap:
                verdict += f"; beyond it: {gap_words(clear, metric)}"
        title, by = naming.title(found.study), _column(found.column)
        rows = other_rows if clear is None else clear_rows
        rows.append((title, one.label, by, words, verdict))
        for note in found.notes:
            notes.setdefault(note, {})[by] = None
    columns = ("Task", "Model / data", "By", "Largest gap (interval)", "Verdict")
    said = (
        "The largest gap was picked among all pairs of subgroups: its interval has the level at "
        "which those of all pairs hold together with 95 % (Bonferroni). Columns, tasks and models "
        "are not corrected for: of twenty of them one is beyond chance by chance alone. In "
        "simulation 97 to 100 % of these intervals hold the truth."
    )
    items = "".join(
        f"<li>{page.text('By ' + ', '.join(by) + ': ' + note)}.</li>" for note, by in notes.items()
    )
    tables = ""
    if clear_rows:
        tables = page.folded_table("Largest gaps: beyond chance", columns, clear_rows)
    if other_rows:
        tables += page.folded_table("Largest gaps: within chance", columns, other_rows, most=4)
    return (
        tables
        + page.paragraph(said, "quiet")
        + (f'<ul class="missing">{items}</ul>' if items else "")
    )


def _metrics(splits: Sequence[Split]) -> str:
    rows = []
    for one in splits:
        for group in one.found.groups:
            for name, e in group.metrics.items():
                metric = naming.metric(name)
                edges = (
                    "none" if e.low is None else f"{metric.show(e.low)} to {metric.show(e.high)}"
                )
                rows.append(
                    (
                        *(naming.title(one.found.study), one.label, _column(one.found.column)),
                        *(group.name, metric.words, metric.show(e.value), edges),
                        *(f"{e.n:,}", f"{group.patients:,}"),
                        ", ".join(map(display, group.lacking)),
                    )
                )
    columns = (
        *("Task", "Model / data", "By", "Subgroup", "Metric", "Value", "95 % interval"),
        _units(splits).capitalize(),
        *("Patients", "Classes lacking"),
    )
    return page.plain_table(columns, rows)
