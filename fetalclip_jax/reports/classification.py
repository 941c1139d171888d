"""Sections of classification: confusions, F1 of each class, every metric."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import headline, naming, page, plots, provenance
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, number, slug
from fetalclip_jax.reports.reading import Evaluated

_ROWS = "Rows are true classes and add up to 100 %; the small figures are counts."
_CLASS_F1 = (
    "F1 of each class, without intervals: those of the macro F1 are in the headline table. Chance "
    "is the macro F1 of guessing."
)


def parts(report: Report) -> Iterator[str]:
    """HTML of whatever the results of classification hold."""
    found = _classifications(report)
    if any(map(_has_confusion, found)):
        yield page.paragraph(_ROWS, "quiet note")
    for study, ones in report.by_study(found):
        if pictures := [_confusion(report, one) for one in ones if _has_confusion(one)]:
            yield report.side_by_side(naming.title(study), pictures)
    if pictures := list(_class_f1(report)):
        yield report.side_by_side("F1 of each class", pictures, _CLASS_F1)
    for study, ones in report.by_study(found):
        if tables := [_classes_table(report, one) for one in ones if "table" in one.result.details]:
            yield report.side_by_side(naming.title(study), tables)
    yield _metrics(report)


def _classes_table(report: Report, one: Evaluated) -> str:
    rows = one.result.details["table"]
    title = one.label if report.contents.several else naming.title(one.result.study)
    columns = [display(name) for name in rows[0]]
    cells = [[_cell(value) for value in row.values()] for row in rows]
    return report.table(title, columns, cells, of=[one])


def _has_confusion(one: Evaluated) -> bool:
    return "confusion" in one.result.details and bool(_classes(one.result))


def _classes(result: Result) -> list[str]:
    return result.details.get("classes") or list(result.details.get("per_class_f1", {}))


def _confusion(report: Report, one: Evaluated) -> str:
    details, classes = one.result.details, _classes(one.result)
    runs = max(number(details.get("runs")) or 1, 1)
    counts = np.asarray(details["confusion"], np.float64) / runs
    # Zero-shot tasks judge fewer classes than compete; elsewhere both are the same.
    labels = details.get("labels") or classes
    caption = f" Counts are means over {runs:.0f} probes." if runs > 1 else ""
    judged = {name for name, row in zip(labels, counts, strict=False) if row.any()}
    absent = [display(name) for name in classes if name not in judged]
    if absent:
        # In zero-shot tasks they compete on purpose; elsewhere the data just lack them.
        zero_shot = one.result.study.startswith("zero_shot.")
        what = "Candidates without any image, offered as distractors"
        caption += f" {what if zero_shot else 'Classes without any image'}: {', '.join(absent)}."
    name = next(iter(one.result.metrics), None)
    if name is not None:
        caption += f" {_shown(name, one.result)}."
    title = naming.title(one.result.study)
    several = report.contents.several
    # The picture is used without its caption too: it says whose it is where there are several.
    heading = f"{title}\n{one.label}" if several else title
    return report.picture(
        report.figure_name(f"confusion_{slug(one.result.study)}", one.label),
        plots.confusion_matrix(counts, labels, classes, heading, narrow=several),
        f"Confusion matrix: {title}",
        report.whose(one.label) + caption.strip(),
        of=[one],
    )


def _shown(name: str, result: Result) -> str:
    """ "Macro F1 0.926 (0.911 to 0.941)"."""
    metric, estimate = naming.metric(name), result.metrics[name]
    words = f"{metric.words[:1].upper()}{metric.words[1:]} {metric.show(estimate.value)}"
    if estimate.low is None or estimate.high is None:
        return words
    return f"{words} ({metric.show(estimate.low)} to {metric.show(estimate.high)})"


def _class_f1(report: Report) -> Iterator[str]:
    for label in report.contents.labels():
        panels, shown = [], []
        for one in _classifications(report):
            scores = one.result.details.get("per_class_f1")
            # Classes of several tasks repeat those of their own panels, and have a table.
            if one.label != label or not scores or "table" in one.result.details:
                continue
            series = {"model": scores}
            raw = report.contents.beside(one, headline.RAW_PIXELS)
            if one.result.study == "probe.planes" and raw and raw.details.get("per_class_f1"):
                series["raw pixels"] = raw.details["per_class_f1"]
            chance = one.result.baselines.get("chance_macro_f1")
            panels.append(
                {
                    "title": naming.title(one.result.study),
                    "series": series,
                    "chance": chance.estimate.value if chance else None,
                }
            )
            shown.append(one)
        if panels:
            yield report.picture(
                report.figure_name("f1_per_class", label),
                plots.f1_bars(panels),
                "F1 of each class",
                report.whose(label).strip(),
                of=shown,
                intervals=False,
            )


def _metrics(report: Report) -> str:
    """All metrics, opened on demand; "" for none."""
    found = _classifications(report, baselines=True)
    rows = []
    for one in found:
        images, patients = provenance.counts(one)
        for name, estimate in one.result.metrics.items():
            metric = naming.metric(name)
            edges = (estimate.low, estimate.high)
            n = images if estimate.n is None else estimate.n
            rows.append(
                (
                    naming.title(one.result.study),
                    one.label,
                    metric.words,
                    metric.show(estimate.value),
                    "none" if None in edges else " to ".join(map(metric.show, edges)),
                    "" if n is None else n,
                    "" if patients is None else patients,
                )
            )
    if not rows:
        return ""
    columns = ("Task", "Model / data", "Metric", "Value", "95 % interval", "Images", "Patients")
    basis = page.paragraph(provenance.stands_for(*found), "basis")
    content = page.plain_table(columns, rows) + basis
    return page.details("All metrics of classification", content, "results.csv")


def _cell(value: Any) -> Any:
    return f"{value:.3f}" if isinstance(value, float) else value


def _classifications(report: Report, baselines: bool = False) -> list[Evaluated]:
    """Results with an F1 of each class; the raw pixels, a baseline, only if asked for."""
    return [
        one
        for one in report.contents.evaluated
        if "per_class_f1" in one.result.details
        and (baselines or one.result.study != headline.RAW_PIXELS)
    ]
