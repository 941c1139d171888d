"""The sections of a report, each made from what the run left and silent about what it did not."""

import importlib.metadata
import json
import math
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fetalclip_jax.reports import age, gallery, page, plots, tables
from fetalclip_jax.reports.run import Run
from fetalclip_jax.reports.summary import few_shot_curve, number

_PACKAGES = ("fetalclip_jax", "jax", "jaxlib", "flax", "optax", "grain", "numpy")
_CONFUSIONS = {
    "zero_shot_planes": "Zero-shot planes",
    "zero_shot_brain": "Zero-shot brain planes",
    "probe_planes": "Linear probe, six planes",
    "probe_brain": "Linear probe, brain planes",
}


class Report:
    """Collects the sections of a page and the names of what is missing.

    Attributes:
      run: what the working directory holds.
      sections: (heading, HTML) in the order of the page.
      missing: sentences about absent parts.
    """

    def __init__(self, run: Run):
        self.run = run
        self.sections: list[tuple[str, str]] = []
        self.missing: list[str] = []
        self._figures: pathlib.Path = run.workdir / "figures"
        self._figures.mkdir(exist_ok=True)

    def picture(self, name: str, png: bytes, alt: str, caption: str) -> str:
        """Saves the figure as `figures/<name>.png` and returns it as HTML."""
        (self._figures / f"{name}.png").write_bytes(png)
        return page.picture(png, alt, caption)

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section unless all of its parts are empty."""
        if content := "".join(parts):
            self.sections.append((heading, content))


def add_all(report: Report) -> None:
    """Adds every section for which the run holds something."""
    report.add("Training", _training(report))
    report.add("Classification", *_confusions(report), _class_f1(report))
    report.add("Gestational age", _age(report))
    report.add("Data efficiency", _few_shot(report))
    report.add("Example images", _gallery(report))
    report.add("Configuration and environment", *_environment(report.run))


def _training(report: Report) -> str:
    metrics = report.run.metrics
    if not any("loss" in m for m in metrics):
        report.missing.append("Training curves: no losses in metrics.jsonl.")
        return ""
    batch = number(_find(report.run.config, "global_batch_size"))
    sigmoid = "sigmoid" in str(_find(report.run.config, "loss"))
    chance = math.log(batch) if batch and batch > 1 and not sigmoid else None
    caption = (
        "Validation loss is measured on held-out images without augmentation. The dashed line is "
        "the loss of a model that tells nothing apart. The logit scale is the inverse temperature."
    )
    if report.run.skipped_metric_lines:
        caption += f" {report.run.skipped_metric_lines} unreadable lines were skipped."
    return report.picture(
        "training", plots.training_curves(metrics, chance), "Loss curves of training", caption
    )


def _confusions(report: Report) -> Iterator[str]:
    for name, title in _CONFUSIONS.items():
        result = report.run.result(name)
        classes = result.get("classes") or list(result.get("per_class_f1", {}))
        if "confusion" not in result or not classes:
            continue
        runs = max(number(result.get("runs")) or 1, 1)
        counts = np.asarray(result["confusion"], np.float64) / runs
        # Zero-shot tasks judge fewer classes than compete; elsewhere both are the same.
        labels = result.get("labels") or classes
        caption = "Rows are true classes and add up to 100 %; the small figures are counts."
        if runs > 1:
            caption += f" Counts are means over {runs:.0f} probes."
        judged = {name for name, row in zip(labels, counts, strict=False) if row.any()}
        absent = [plots.display(name) for name in classes if name not in judged]
        if absent:
            caption += (
                f" Candidates without any image, offered as distractors: {', '.join(absent)}."
            )
        png = plots.confusion_matrix(counts, labels, classes, title)
        yield report.picture(f"confusion_{name}", png, f"Confusion matrix: {title}", caption)


def _class_f1(report: Report) -> str:
    run, panels = report.run, []
    for name, title in _CONFUSIONS.items():
        result = run.result(name)
        if not result.get("per_class_f1"):
            continue
        series = {"model": result["per_class_f1"]}
        raw = run.result("probe_raw_pixels").get("per_class_f1")
        if name == "probe_planes" and raw:
            series["raw pixels"] = raw
        chance = number(result.get("chance_macro_f1"))
        panels.append({"title": title, "series": series, "chance": chance})
    if not panels:
        return ""
    caption = "F1 of each class on the test images. Chance is the macro F1 of guessing."
    return report.picture("f1_per_class", plots.f1_bars(panels), "F1 of each class", caption)


def _age(report: Report) -> str:
    rows = report.run.predictions.get("age")
    if rows is None:
        report.missing.append("Age chart: no results/predictions_age.csv.")
        return ""
    ages = age.age_predictions(rows)
    if not ages.predicted_days.size:
        report.missing.append(
            "Age chart: no row of results/predictions_age.csv has a prediction and hc_mm."
        )
        return ""
    result = report.run.result("age")
    constant = number(result.get("constant_baseline_days"))
    from_hc = report.run.data_source == "hc18"
    label = "age implied by the circumference" if from_hc else "true age"
    caption = (
        f"{ages.valid.size:,} head images with a true circumference of {ages.hc_mm.min():.0f} to "
        f"{ages.hc_mm.max():.0f} mm. A prediction is valid when the true circumference lies within "
        "the WHO 2.5th to 97.5th percentile at the predicted age. "
    )
    rates = {
        "the best constant age for these images": result.get("constant_baseline"),
        "the best constant age of the training images": result.get("train_constant_baseline"),
        "the median age of the training images": result.get("train_median_baseline"),
    }
    known = {words: v for words, r in rates.items() if (v := number(r)) is not None}
    if known:
        constants = "; ".join(f"{words}, {100 * v:.1f} %" for words, v in known.items())
        caption += f"Valid: {100 * ages.valid.mean():.1f} %. Constant ages: {constants}."
    if from_hc:
        caption += " The data set holds no ages: the true age is the WHO median at the true size."
    return report.picture(
        "age", age.age_chart(ages, constant, label), "Predicted ages on the WHO chart", caption
    )


def _few_shot(report: Report) -> str:
    result = report.run.result("few_shot_planes")
    if not few_shot_curve(result):
        return ""
    names = {
        "probe, all training patients": "probe_planes",
        "raw pixels, all training patients": "probe_raw_pixels",
    }
    found = {words: number(report.run.result(n).get("macro_f1")) for words, n in names.items()}
    references = {words: value for words, value in found.items() if value is not None}
    caption = (
        "Mean macro F1 of probes trained on few patients, over support sets and repeated runs, "
        "with its 95 % band. The horizontal lines are probes on all training patients."
    )
    png = plots.few_shot(result, references)
    return report.picture("few_shot_planes", png, "Macro F1 against labelled patients", caption)


def _gallery(report: Report) -> str:
    rows = report.run.predictions.get("planes")
    if not rows:
        report.missing.append("Example images: no results/predictions_planes.csv.")
        return ""
    try:
        cards = gallery.cards(rows, report.run.workdir)
    except ValueError as error:
        report.missing.append(f"Example images: {error}.")
        return ""
    caption = (
        "Zero-shot predictions on test images with their three best candidates. A hash of the "
        "image id picks them, with the classes taking turns. Wrong predictions get as "
        "much room as right ones, whatever their true share. Scores are 100 x cosine."
    )
    lines = []
    for card in cards:
        best = ", ".join(f"{name} {score:.3f}" for name, score in card.candidates)
        cells = (card.example_id, card.label, card.prediction, best)
        lines.append("<tr>" + "".join(f"<td>{page.text(cell)}</td>" for cell in cells) + "</tr>")
    table = (
        '<div class="scroll"><table><thead><tr><th>Image</th><th>True</th><th>Predicted</th>'
        f"<th>Three best candidates</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
    picture = report.picture("examples", gallery.figure(cards), "Example images", caption)
    return picture + page.details("These images as a table", table)


def _environment(run: Run) -> Iterator[str]:
    if run.config:
        content = json.dumps(run.config, indent=2, default=str)
        yield page.details("Configuration", f"<pre>{page.text(content)}</pre>")
    if programs := tables.programs_table(run):
        yield page.details("Time and memory of each program", programs)
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    content = "\n".join(lines)
    title = "Software of the machine that wrote this report"
    yield page.details(title, f"<pre>{page.text(content)}</pre>")


def _find(config: Mapping[str, Any], key: str) -> Any:
    """The first value under `key` at any depth, or None."""
    if key in config:
        return config[key]
    for value in config.values():
        if isinstance(value, Mapping) and (found := _find(value, key)) is not None:
            return found
    return None
