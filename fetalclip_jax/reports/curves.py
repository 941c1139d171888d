"""The section "Data efficiency": curves of all models together, areas, and patients needed."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation import comparisons
from fetalclip_jax.evaluation.comparisons import Comparisons, shown_p
from fetalclip_jax.evaluation.curves import (
    SCORES,
    Curve,
    CurveComparison,
    compare_curves,
    curve,
)
from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.reports import headline, naming, page, style
from fetalclip_jax.reports.comparison import change
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import number, slug
from fetalclip_jax.reports.reading import Evaluated

# Colour, shape and dashes: any one of them tells curves apart.
_LOOKS = (
    (style.BLUE, "o", "-"),
    (style.VERMILLION, "s", "--"),
    (style.GREEN, "^", "-."),
    (style.PURPLE, "D", (0, (5, 1, 1, 1, 1, 1))),
    ("#E69F00", "v", (0, (3, 1))),
    ("#56B4E9", "P", ":"),
)
_HALO = (patheffects.withStroke(linewidth=3, foreground="white"),)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A curve of the figure.

    Attributes:
      one: whose it is.
      name: of the model.
      panel: data set, and the protocol where there are several.
      curve: its points, area and band.
    """

    one: Evaluated
    name: str
    panel: str
    curve: Curve


def of(report: Report) -> dict[str, list[Drawn]]:
    """The curves of a report, by study."""
    evaluated = [one for one in report.contents.evaluated if one.result.curve]
    names = {
        id(result): name
        for name, results in comparisons.by_model([e.result for e in evaluated]).items()
        for result in results
    }
    found: dict[str, list[Drawn]] = {}
    for one in evaluated:
        result = one.result
        own = [
            e for e in evaluated if (e.result.study, e.data_name) == (result.study, one.data_name)
        ]
        protocols = {str(e.result.protocol.get("name")).partition(",")[0] for e in own}
        panel = f"{one.data_name} (simulated)" if one.simulated else one.data_name
        if len(protocols) > 1:
            panel += f", {str(result.protocol.get('name')).partition(',')[0]}"
        drawn = Drawn(one, names[id(result)], panel, curve(result))
        if any((d.name, d.panel) == (drawn.name, panel) for d in found.get(result.study, ())):
            drawn = dataclasses.replace(drawn, name=one.label)
        found.setdefault(result.study, []).append(drawn)
    return found


def parts(
    report: Report, found: Mapping[str, Sequence[Drawn]], compared: Comparisons | None
) -> Iterator[str]:
    """A figure and a table for every study with a label budget, as HTML."""
    for study, drawn in found.items():
        task = naming.title(study).removeprefix("Few-shot ")
        references = _references(report, drawn)
        yield report.picture(
            slug(study),
            figure(drawn, references, f"Data efficiency: {task}"),
            f"Macro F1 against labelled patients: {task}",
            _caption(drawn, references),
            of=[one.one for one in drawn],
        )
        yield page.paragraph(f"Areas and patients needed: {task}", "title") + _table(drawn)
        yield _differences(study, compared)


def to_json(found: Mapping[str, Sequence[Drawn]], compared: Comparisons | None) -> dict[str, Any]:
    """Areas, patients needed and paired differences, for scripts."""
    return {
        "curves": [
            {
                "study": study,
                "model": one.name,
                "data": one.one.data_name,
                "simulated": one.one.simulated,
                "protocol": one.one.result.protocol.get("name"),
                "patients": list(one.curve.sizes),
                "macro_f1": one.curve.values.tolist(),
                "area": dataclasses.asdict(one.curve.area) if one.curve.area else None,
                "needed": [one.curve.needed(score).to_json() for score in SCORES],
                "never_falls": one.curve.rises,
                "notes": list(one.curve.notes),
            }
            for study, drawn in found.items()
            for one in drawn
        ],
        "differences": [
            {"study": study, "data": data} | one.to_json()
            for study, data, one in _compared(compared)
            if isinstance(one, CurveComparison)
        ],
    }


def write(
    folder: pathlib.Path, found: Mapping[str, Sequence[Drawn]], compared: Comparisons | None
) -> None:
    """Writes curves.json; nothing where there is no curve."""
    if found:
        runs.write_json(folder / "curves.json", to_json(found, compared))


def figure(drawn: Sequence[Drawn], references: Mapping[str, float], title: str) -> bytes:
    """Macro F1 against the number of labelled patients on a base-2 axis, a panel per data set.

    Args:
      drawn: curves; those of one panel lie over one another.
      references: label -> macro F1 drawn as horizontal lines, at most two.
      title: heading.
    """
    panels = list(dict.fromkeys(one.panel for one in drawn))
    names = list(dict.fromkeys(one.name for one in drawn))
    looks = {name: _LOOKS[k % len(_LOOKS)] for k, name in enumerate(names)}
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    with style.figure(7.4 if columns == 1 else 10.4, 4.1 * lines + 0.3) as fig:
        grid = fig.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        keys = {}
        for axes, panel in zip(grid, panels, strict=False):
            own = [one for one in drawn if one.panel == panel]
            _panel(axes, own, looks)
            for k, (name, value) in enumerate(references.items()):
                colour, dashes = ((style.GREEN, "-."), (style.VERMILLION, "--"))[k]
                axes.axhline(value, color=colour, ls=dashes, lw=1.4, label=f"{name}: {value:.2f}")
            axes.set_title(title if len(panels) == 1 else panel, pad=10)
            handles, labels = axes.get_legend_handles_labels()
            keys |= dict(zip(labels, handles, strict=True))
        if len(panels) > 1:
            fig.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
        fig.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=3)
        return style.png(fig)


def _panel(axes: Axes, drawn: Sequence[Drawn], looks) -> None:
    sizes = sorted({size for one in drawn for size in one.curve.sizes})
    for one in drawn:
        (colour, marker, dashes), c = looks[one.name], one.curve
        label = "linear probe on few patients" if len(looks) == 1 else one.name
        axes.fill_between(c.sizes, c.lows, c.highs, color=colour, alpha=0.13, lw=0)
        for edge in (c.lows, c.highs):
            axes.plot(c.sizes, edge, color=colour, lw=0.7, alpha=0.6)
        axes.plot(c.sizes, c.values, color=colour, marker=marker, ls=dashes, ms=5, label=label)
        if len(drawn) == 1:
            for x, y in zip(c.sizes, c.values, strict=True):
                options = {"textcoords": "offset points", "ha": "center", "fontsize": 8.4}
                axes.annotate(f"{y:.2f}", (x, y), (0, -15), path_effects=_HALO, **options)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("labelled patients (logarithmic)")
    axes.set_ylabel("macro F1")


def _references(report: Report, drawn: Sequence[Drawn]) -> dict[str, float]:
    """Probes on all patients; of a single curve, for lines of several would hide them."""
    if len(drawn) > 1:
        return {}
    one, task = drawn[0].one, drawn[0].one.result.study.partition(".")[2]
    beside = {
        "probe, all training patients": report.contents.beside(one, f"probe.{task}"),
        "raw pixels, all training patients": report.contents.beside(one, headline.RAW_PIXELS)
        if task == "planes"
        else None,
    }
    return {
        words: other.metrics["macro_f1"].value
        for words, other in beside.items()
        if other is not None and "macro_f1" in other.metrics
    }


def _caption(drawn: Sequence[Drawn], references: Mapping[str, float]) -> str:
    caption = (
        "Mean macro F1 of probes trained on few patients, over support sets and repeated runs, "
        "with its 95 % band."
    )
    if references:
        caption += " The horizontal lines are probes on all training patients."
    bare = [one.name for one in drawn if not np.isfinite(one.curve.lows).all()]
    if bare:
        caption += f" Without a band at some size: {', '.join(bare)}."
    # Budgets that the patients were too few for are no points of the curve.
    lacking: dict[str, list[str]] = {}
    for one in drawn:
        for reason, count in (one.one.result.details.get("lacking") or {}).items():
            if number(count):
                lacking.setdefault(f"{reason} ({count:,})", []).append(one.name)
    for reason, names in lacking.items():
        whose = "" if len(names) == len(drawn) else f" of {', '.join(dict.fromkeys(names))}"
        caption += f" Lacking{whose}: {naming.display(reason)}."
    return caption


def _table(drawn: Sequence[Drawn]) -> str:
    rows, notes = [], {}
    for one in drawn:
        c = one.curve
        needed = [c.needed(score) for score in SCORES]
        rows.append(
            (
                one.name,
                one.panel,
                f"{c.sizes[0]:,} to {c.sizes[-1]:,}",
                _shown(c.area),
                *map(str, needed),
                f"{c.values[-1]:.3f}",
                _images(one.one.result),
            )
        )
        said = list(c.notes)
        if not c.rises:
            said.append("the curve falls between some sizes; the first crossing of a score is told")
        for note in said:
            notes.setdefault(note, []).append(one.name)
    columns = (
        *("Model", "Data", "Sizes", "Area (95 % interval)"),
        *(f"Patients for {score:g}" for score in SCORES),
        *("At the largest size", "Test images / patients"),
    )
    words = (
        "The area is the mean height of the curve over the logarithmic axis, its interval from "
        "the support sets of each size and one bootstrap of the test patients. Patients for a "
        "score are interpolated between sizes; in brackets, where the edges of the band cross it."
    )
    words += "".join(f" {', '.join(names)}: {note}." for note, names in notes.items())
    return page.plain_table(columns, rows) + page.paragraph(words, "quiet")


def _images(result: Result) -> str:
    if result.predictions is None:
        return "not kept"
    patients = len(np.unique(result.predictions.patients()))
    return f"{len(result.predictions.example_id):,} / {patients:,}"


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "none"
    if estimate.low is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _compared(
    compared: Comparisons | None,
) -> Iterator[tuple[str, str, CurveComparison | str]]:
    """(study, data set, curves of a pair compared, or why they cannot be)."""
    for one in compared.compared if compared else ():
        if all(result.curve for result in one.results):
            try:
                found = compare_curves(*one.results, names=one.names, margin=compared.margin)
            except ValueError as error:
                found = str(error)
            yield one.study, one.data, found


def _differences(study: str, compared: Comparisons | None) -> str:
    """Every pair at every size, opened on demand."""
    rows, notes = [], []
    for own, data, found in _compared(compared):
        if own != study:
            continue
        if isinstance(found, str):
            notes.append(f"{found}.")
            continue
        pair = f"{found.names[0]} minus {found.names[1]}"
        differences = [
            (f"{size:,} patients", d)
            for size, d in zip(found.sizes, found.differences, strict=True)
        ]
        if found.area:
            differences.append(("area", found.area))
        rows += [
            (
                pair,
                data,
                where,
                change("macro_f1", d.value, d.low, d.high),
                shown_p(d.p),
                d.verdict(),
            )
            for where, d in differences
        ]
        for k, (first, second) in enumerate((found.names, found.names[::-1])):
            needed = found.reaching[k]
            notes.append(
                f"{data}: {first} reaches the last score of {second} ({needed.score:.3f}) with "
                f"{needed} patients."
            )
        chances = dict.fromkeys(d.chance.words for d in found.differences if d.chance.words)
        said = (*found.notes, *(f"beside the test patients, {words} vary" for words in chances))
        notes += [f"{data}, {pair}: {note}." for note in said]
    if not rows and not notes:
        return ""
    columns = (
        *("Pair", "Data", "At", "Difference (95 % interval)", "p, not adjusted"),
        "First is, by this p",
    )
    table = page.plain_table(columns, rows) if rows else ""
    items = "".join(f"<li>{page.text(note)}</li>" for note in notes)
    return page.details(
        f"Paired differences: {naming.title(study)}", f'{table}<ul class="missing">{items}</ul>'
    )
