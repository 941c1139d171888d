"""The section "Data efficiency": curves of all models together, areas, and patients needed."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax import run as runs
from fetalclip_jax import storage
from fetalclip_jax.evaluation import comparisons
from fetalclip_jax.evaluation.comparisons import Comparisons, shown_p
from fetalclip_jax.evaluation.curve_comparison import CurveComparison, compare_curves
from fetalclip_jax.evaluation.curves import SCORES, Curve, curve
from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.reports import curve_figure, headline, naming, page
from fetalclip_jax.reports.comparison import change
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import number, slug
from fetalclip_jax.reports.reading import Contents, Evaluated


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


@dataclasses.dataclass(frozen=True)
class Curves:
    """Every curve of a report.

    Attributes:
      drawn: by study.
      pairs: study, data set, and the curves of two models compared or why they cannot be.
    """

    drawn: Mapping[str, Sequence[Drawn]]
    pairs: Sequence[tuple[str, str, CurveComparison | str]]

    def to_json(self) -> dict[str, Any]:
        """Areas, patients needed and paired differences, for scripts."""
        return {
            "curves": [
                {
                    "study": study,
                    "model": one.name,
                    "data": one.one.data_name,
                    "simulated": one.one.simulated,
                    "protocol": one.one.result.protocol.get("name"),
                    one.curve.unit: list(one.curve.sizes),
                    one.curve.metric: one.curve.values.tolist(),
                    "area": dataclasses.asdict(one.curve.area) if one.curve.area else None,
                    "needed": [one.curve.needed(score).to_json() for score in SCORES],
                    "never_falls": one.curve.rises,
                    "notes": list(one.curve.notes),
                }
                for study, drawn in self.drawn.items()
                for one in drawn
            ],
            "differences": [
                {"study": study, "data": data} | found.to_json()
                for study, data, found in self.pairs
                if isinstance(found, CurveComparison)
            ],
        }


def of(contents: Contents, compared: Comparisons | None) -> Curves:
    """The curves of a report.

    Args:
      contents: what its sources hold.
      compared: pairs of models; None compares none.
    """
    evaluated = [one for one in contents.evaluated if one.result.curve]
    names = {
        id(result): name
        for name, results in comparisons.by_model([e.result for e in contents.evaluated]).items()
        for result in results
    }
    drawn: dict[str, list[Drawn]] = {}
    for one in evaluated:
        own = drawn.setdefault(one.result.study, [])
        new = Drawn(one, names[id(one.result)], _panel(one, evaluated), curve(one.result))
        if any((other.name, other.panel) == (new.name, new.panel) for other in own):
            new = dataclasses.replace(new, name=one.label)
        own.append(new)
    return Curves(drawn, list(_pairs(compared)))


def parts(report: Report, found: Curves) -> Iterator[str]:
    """A figure and a table for every study with a label budget, as HTML."""
    for study, drawn in found.drawn.items():
        task = naming.title(study).removeprefix("Few-shot ")
        words, unit = naming.metric(drawn[0].curve.metric).words, drawn[0].curve.unit
        references = _references(report, drawn)
        yield report.picture(
            slug(study),
            curve_figure.figure(
                {
                    panel: {one.name: one.curve for one in drawn if one.panel == panel}
                    for panel in dict.fromkeys(one.panel for one in drawn)
                },
                references,
                f"Data efficiency: {task}",
            ),
            f"{words[:1].upper()}{words[1:]} against labelled {unit}: {task}",
            _caption(drawn, references),
            of=[one.one for one in drawn],
        )
        yield page.paragraph(f"Areas and {unit} needed: {task}", "title") + _table(drawn)
        yield _differences(study, found)


def write(folder: storage.Path, found: Curves) -> None:
    """Writes curves.json; nothing where there is no curve."""
    if found.drawn:
        runs.write_json(folder / "curves.json", found.to_json())


def _panel(one: Evaluated, evaluated: Sequence[Evaluated]) -> str:
    """The data set, and the protocol where it was judged by several."""

    def protocol(result: Result) -> str:
        return str(result.protocol.get("name")).partition(",")[0]

    where = (one.result.study, one.data_name)
    protocols = {protocol(e.result) for e in evaluated if (e.result.study, e.data_name) == where}
    words = f"{one.data_name} (simulated)" if one.simulated else one.data_name
    return f"{words}, {protocol(one.result)}" if len(protocols) > 1 else words


def _references(report: Report, drawn: Sequence[Drawn]) -> dict[str, float]:
    """Probes on all patients; of a single curve, for lines of several would hide them."""
    if len(drawn) > 1:
        return {}
    one, metric = drawn[0].one, drawn[0].curve.metric
    family, _, task = one.result.study.partition(".")
    whole = "segmentation" if family == "few_shot_segmentation" else "probe"
    beside = {
        f"{whole}, all training patients": report.contents.beside(one, f"{whole}.{task}"),
        "raw pixels, all training patients": report.contents.beside(one, headline.RAW_PIXELS)
        if one.result.study == "few_shot.planes"
        else None,
    }
    return {
        words: other.metrics[metric].value
        for words, other in beside.items()
        if other is not None and metric in other.metrics
    }


def _caption(drawn: Sequence[Drawn], references: Mapping[str, float]) -> str:
    caption = (
        f"Mean {naming.metric(drawn[0].curve.metric).words} after training on few "
        f"{drawn[0].curve.unit}, over support sets and repeated runs, with its 95 % band."
    )
    if references:
        caption += " The horizontal lines are those of all training patients."
    bare = [one.name for one in drawn if not np.isfinite(one.curve.lows).all()]
    if curve_figure.is_crowded([one.panel for one in drawn]):
        caption += " Bands are drawn as bars, beside one another."
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
        *(f"{drawn[0].curve.unit.capitalize()} for {score:g}" for score in SCORES),
        *("At the largest size", "Test images / patients"),
    )
    words = (
        "The area is the mean height of the curve over the logarithmic axis, its interval from "
        "the support sets of each size and one bootstrap of the test patients. Numbers for a "
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


def _pairs(compared: Comparisons | None) -> Iterator[tuple[str, str, CurveComparison | str]]:
    for one in compared.compared if compared else ():
        if all(result.curve for result in one.results):
            try:
                found = compare_curves(*one.results, names=one.names, margin=compared.margin)
            except ValueError as error:
                found = str(error)
            yield one.study, one.data, found


def _differences(study: str, curves: Curves) -> str:
    """Every pair at every size, opened on demand."""
    rows, notes, first = [], [], curves.drawn[study][0].curve
    metric, unit = first.metric, first.unit
    for own, data, found in curves.pairs:
        if own != study:
            continue
        if isinstance(found, str):
            notes.append(f"{found}.")
            continue
        pair = f"{found.names[0]} minus {found.names[1]}"
        differences = [
            (f"{size:,} {unit}", d) for size, d in zip(found.sizes, found.differences, strict=True)
        ]
        if found.area:
            differences.append(("area", found.area))
        rows += [
            (
                pair,
                data,
                where,
                change(metric, d.value, d.low, d.high),
                shown_p(d.p),
                d.verdict(),
            )
            for where, d in differences
        ]
        for k, (first, second) in enumerate((found.names, found.names[::-1])):
            needed = found.reaching[k]
            notes.append(
                f"{data}: {first} reaches the last score of {second} ({needed.score:.3f}) with "
                f"{needed} {unit}."
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
