"""The sections of a report, each made from what the sources hold and silent about the rest."""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation import examples
from fetalclip_jax.reports import (
    age,
    calibration,
    gallery,
    headline,
    naming,
    page,
    plots,
    provenance,
    subgroups,
)
from fetalclip_jax.reports.naming import display, number, slug
from fetalclip_jax.reports.reading import Contents, Evaluated, TrainedRun
from fetalclip_jax.reports.reliability import Reliability


class Report:
    """Collects the sections of a page and the names of what is missing.

    Attributes:
      contents: what the sources hold.
      sections: (heading, HTML) in the order of the page.
      missing: sentences about absent parts.
    """

    def __init__(self, contents: Contents, figures: pathlib.Path):
        self.contents = contents
        self.sections: list[tuple[str, str]] = []
        self.missing: list[str] = []
        self._figures = figures
        self._figures.mkdir(parents=True, exist_ok=True)

    def picture(
        self, name: str, png: bytes, alt: str, caption: str, of: Sequence[Evaluated] = ()
    ) -> str:
        """Saves the figure as `<figures>/<name>.png` and returns it as HTML.

        Args:
          of: results it shows, whose protocols end the caption.
        """
        (self._figures / f"{name}.png").write_bytes(png)
        basis = dict.fromkeys(map(provenance.in_words, of))
        return page.picture(png, alt, " ".join((caption, *basis)))

    def figure_name(self, kind: str, label: str) -> str:
        """A file's name; it says whose figure it is where there are several."""
        return f"{kind}_{slug(label)}" if self.contents.several else kind

    def whose(self, label: str) -> str:
        """The beginning of a caption where there are several models or data sets."""
        return f"{label}. " if self.contents.several else ""

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section unless all of its parts are empty."""
        if content := "".join(parts):
            self.sections.append((heading, content))


def add_all(report: Report, reliability: Reliability) -> None:
    """Adds every section of figures for which the sources hold something."""
    report.missing += reliability.left_out
    report.add("Training", *(_training(report, run) for run in report.contents.runs))
    report.add("Classification", *_confusions(report), *_class_f1(report), *_tables(report))
    report.add("Gestational age", *_ages(report))
    report.add("Data efficiency", *_few_shot(report))
    report.add("Subgroups", *subgroups.section(report, reliability.splits))
    report.add("Calibration and abstention", *calibration.section(report, reliability.calibrations))
    report.add("Example images", *_gallery(report))


def _training(report: Report, run: TrainedRun) -> str:
    name = run.name if len(report.contents.runs) > 1 else ""
    if not any("loss" in m for m in run.metrics):
        report.missing.append(f"Training curves: no losses in {run.workdir / 'metrics.jsonl'}.")
        return ""
    batch = number(_find(run.config, "global_batch_size"))
    sigmoid = "sigmoid" in str(_find(run.config, "loss")) + str(_find(run.config, "objective"))
    chance = math.log(batch) if batch and batch > 1 and not sigmoid else None
    caption = (
        "Validation loss is measured on held-out images without augmentation. The dashed line is "
        "the loss of a model that tells nothing apart. The logit scale is the inverse temperature."
    )
    if name:
        caption = f"{name}. {caption}"
    caption += _training_went(run.train)
    if run.skipped_metric_lines:
        caption += f" {run.skipped_metric_lines} unreadable lines were skipped."
    png = plots.training_curves(run.metrics, chance)
    file_name = f"training_{slug(name)}" if name else "training"
    return report.picture(file_name, png, f"Loss curves of training {name}".strip(), caption)


def _training_went(train: Mapping[str, Any]) -> str:
    """Sentences about what went wrong, and what share of the time was not lost."""
    words = ""
    if skipped := number(train.get("skipped_steps")):
        words += (
            f" {skipped:.0f} steps were skipped, for their loss or gradient was not finite (their "
            "examples are listed in the folder skipped of the run)."
        )
    if spikes := number(train.get("loss_spikes")):
        words += f" The loss jumped {spikes:.0f} time{'s' if spikes > 1 else ''}."
    goodput = train.get("goodput", {})
    share, waited = number(goodput.get("share")), number(goodput.get("data_wait_share"))
    if share is not None and waited is not None:
        words += (
            f" {100 * share:.0f} % of the time went into training steps; of training itself "
            f"{100 * waited:.1f} % was waiting for data."
        )
    return words


def _confusions(report: Report) -> Iterator[str]:
    for one in _classifications(report):
        details = one.result.details
        classes = details.get("classes") or list(details.get("per_class_f1", {}))
        if "confusion" not in details or not classes:
            continue
        runs = max(number(details.get("runs")) or 1, 1)
        counts = np.asarray(details["confusion"], np.float64) / runs
        # Zero-shot tasks judge fewer classes than compete; elsewhere both are the same.
        labels = details.get("labels") or classes
        caption = "Rows are true classes and add up to 100 %; the small figures are counts."
        if runs > 1:
            caption += f" Counts are means over {runs:.0f} probes."
        judged = {name for name, row in zip(labels, counts, strict=False) if row.any()}
        absent = [display(name) for name in classes if name not in judged]
        if absent:
            # In zero-shot tasks they compete on purpose; elsewhere the data just lack them.
            zero_shot = one.result.study.startswith("zero_shot.")
            what = "Candidates without any image, offered as distractors"
            caption += (
                f" {what if zero_shot else 'Classes without any image'}: {', '.join(absent)}."
            )
        title = naming.title(one.result.study)
        yield report.picture(
            report.figure_name(f"confusion_{slug(one.result.study)}", one.label),
            plots.confusion_matrix(counts, labels, classes, title),
            f"Confusion matrix: {title}",
            report.whose(one.label) + caption,
        )


def _class_f1(report: Report) -> Iterator[str]:
    for label in report.contents.labels():
        panels = []
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
        if panels:
            caption = "F1 of each class. Chance is the macro F1 of guessing."
            yield report.picture(
                report.figure_name("f1_per_class", label),
                plots.f1_bars(panels),
                "F1 of each class",
                report.whose(label) + caption,
            )


def _tables(report: Report) -> Iterator[str]:
    """Classes one by one where a study lists them; all metrics, opened on demand."""
    for one in _classifications(report):
        if rows := one.result.details.get("table"):
            title = report.whose(one.label) + naming.title(one.result.study)
            columns = [display(name) for name in rows[0]]
            cells = [[_cell(value) for value in row.values()] for row in rows]
            yield page.paragraph(title, "title") + page.plain_table(columns, cells)
    metrics = [
        (
            naming.title(one.result.study),
            one.label,
            naming.metric(name).words,
            naming.metric(name).show(estimate.value),
            "none"
            if estimate.low is None or estimate.high is None
            else f"{estimate.low:.3f} to {estimate.high:.3f}",
            "" if estimate.n is None else estimate.n,
        )
        for one in _classifications(report, baselines=True)
        for name, estimate in one.result.metrics.items()
    ]
    if metrics:
        columns = ("Task", "Model / data", "Metric", "Value", "95 % interval", "Images")
        yield page.details("All metrics of classification", page.plain_table(columns, metrics))


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


def _ages(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        if one.result.study != "age":
            continue
        where = f"Age chart of {one.label}"
        if one.result.predictions is None:
            report.missing.append(f"{where}: no predictions beside {one.folder / 'age.json'}.")
            continue
        ages = age.age_predictions(one.result.predictions)
        if not ages.predicted_days.size:
            report.missing.append(f"{where}: no image has a prediction and hc_mm.")
            continue
        yield _age(report, one, ages)


def _age(report: Report, one: Evaluated, ages: age.AgePredictions) -> str:
    result = one.result
    implied = result.data.get("ages_from") == naming.IMPLIED_AGES
    label = "age implied by the circumference" if implied else "true age"
    caption = (
        f"{ages.valid.size:,} head images with a true circumference of {ages.hc_mm.min():.0f} to "
        f"{ages.hc_mm.max():.0f} mm. A prediction is valid when the true circumference lies within "
        "the WHO 2.5th to 97.5th percentile at the predicted age. "
    )
    constants = "; ".join(
        f"{baseline.description}, {100 * baseline.estimate.value:.1f} %"
        for baseline in result.baselines.values()
        if baseline.metric == "valid_prediction_rate"
    )
    if constants:
        caption += f"Valid: {100 * ages.valid.mean():.1f} %. Constant ages: {constants}."
    if implied:
        caption += " The data set holds no ages: the true age is the WHO median at the true size."
    constant = number(result.details.get("constant_baseline_days"))
    return report.picture(
        report.figure_name("age", one.label),
        age.age_chart(ages, constant, label),
        "Predicted ages on the WHO chart",
        report.whose(one.label) + caption,
    )


def _few_shot(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        result = one.result
        if not result.curve:
            continue
        task = result.study.partition(".")[2]
        probe = report.contents.beside(one, f"probe.{task}")
        raw = report.contents.beside(one, headline.RAW_PIXELS) if task == "planes" else None
        beside = {
            "probe, all training patients": probe,
            "raw pixels, all training patients": raw,
        }
        references = {
            words: other.metrics["macro_f1"].value
            for words, other in beside.items()
            if other is not None and "macro_f1" in other.metrics
        }
        caption = (
            "Mean macro F1 of probes trained on few patients, over support sets and repeated runs, "
            "with its 95 % band."
        )
        if references:
            caption += " The horizontal lines are probes on all training patients."
        title = f"Data efficiency: {naming.title(result.study).removeprefix('Few-shot ')}"
        yield report.picture(
            report.figure_name(slug(result.study), one.label),
            plots.few_shot(result.curve, references, title),
            "Macro F1 against labelled patients",
            report.whose(one.label) + caption,
        )


def _gallery(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        study = one.result.study
        if study == headline.RAW_PIXELS or one.result.curve:
            continue  # a baseline, and a study of how much, not of which
        try:
            found = examples.load(one.folder, study)
        except ValueError as error:
            report.missing.append(f"Example images: {error}.")
            continue
        if not found:
            if study == "zero_shot.planes":
                report.missing.append(f"Example images of {one.label}: none were stored.")
            continue
        title = naming.title(study)
        caption = (
            f"{title}: predictions with their three best candidates. A hash of the image id picks "
            "the images, with the classes taking turns. Wrong predictions get as much room as "
            "right ones, whatever their true share."
        )
        if scores := one.result.details.get("scores"):
            caption += f" Scores: {scores}."
        rows = [
            (row.example_id, display(row.label), display(row.prediction), _candidates(row))
            for row, _ in found
        ]
        columns = ("Image", "True", "Predicted", "Three best candidates")
        yield report.picture(
            report.figure_name(f"examples_{slug(study)}", one.label),
            gallery.figure(found),
            f"Example images: {title}",
            report.whose(one.label) + caption,
        ) + page.details("These images as a table", page.plain_table(columns, rows))


def _candidates(row: examples.Judged) -> str:
    return ", ".join(f"{display(name)} {score:.3f}" for name, score in row.candidates)


def _find(config: Mapping[str, Any], key: str) -> Any:
    """The first value under `key` at any depth, or None."""
    if key in config:
        return config[key]
    for value in config.values():
        if isinstance(value, Mapping) and (found := _find(value, key)) is not None:
            return found
    return None
