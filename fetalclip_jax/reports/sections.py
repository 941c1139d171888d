"""The sections of a report, each made from what the sources hold and silent about the rest."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fetalclip_jax.evaluation.comparisons import Comparisons
from fetalclip_jax.reports import (
    age,
    calibration,
    classification,
    comparison,
    confusions,
    curves,
    data_checks,
    explanation,
    heart,
    images,
    naming,
    plots,
    regression,
    retrieval,
    segmentation,
    subgroups,
)
from fetalclip_jax.reports.curves import Curves
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import number, slug
from fetalclip_jax.reports.page import side_by_side
from fetalclip_jax.reports.reading import Evaluated, TrainedRun
from fetalclip_jax.reports.reliability import Reliability


def add_all(
    report: Report, compared: Comparisons | None, drawn: Curves, reliability: Reliability
) -> None:
    """Adds every section of figures for which the sources hold something.

    Args:
      compared: pairs of models, or None.
      drawn: data-efficiency curves.
      reliability: subgroups and calibration.
    """
    report.missing += reliability.left_out
    report.add("Comparison", *comparison.parts(report, compared))
    report.add("Training", *(_training(report, run) for run in report.contents.runs))
    report.add("Classification", *classification.parts(report))
    report.add("Gestational age", *_ages(report))
    report.add("Heart defects", *heart.parts(report))
    report.add("Segmentation", *segmentation.parts(report))
    report.add("Supervised regression", *regression.parts(report))
    report.add("Retrieval", *retrieval.parts(report))
    report.add("Explanation", *explanation.maps(report))
    report.add("Map of features", *explanation.embeddings(report))
    report.add("Data efficiency", *curves.parts(report, drawn))
    report.add("Subgroups", *subgroups.section(report, reliability.splits))
    report.add("Calibration and abstention", *calibration.section(report, reliability.calibrations))
    report.add("Near-duplicates and doubtful labels", *data_checks.parts(report))
    report.add("Worst confident mistakes", *images.mistakes(report))
    report.add("What is mistaken for what", *confusions.section(report))
    report.add("Example images", *images.by_hash(report))


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
    alt = f"Loss curves of training {name}".strip()
    return report.picture(file_name, png, alt, caption, of=())


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


def _ages(report: Report) -> Iterator[str]:
    pictures = []
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
        pictures.append(_age(report, one, ages))
    yield side_by_side("", pictures)


def _age(report: Report, one: Evaluated, ages: age.AgePredictions) -> str:
    result = one.result
    implied = result.data.get("ages_from") == naming.IMPLIED_AGES
    label = "age implied by the circumference" if implied else "true age"
    caption = (
        f"{ages.valid.size:,} head images with a true circumference of {ages.hc_mm.min():.0f} to "
        f"{ages.hc_mm.max():.0f} mm. A prediction is valid when the true circumference lies within "
        "the WHO 2.5th to 97.5th percentile at the predicted age. Heads of the built-in phantom "
        "grow by the same chart: a model that learned from simulated images was taught by what "
        "judges it. "
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
        of=[one],
    )


def _find(config: Mapping[str, Any], key: str) -> Any:
    """The first value under `key` at any depth, or None."""
    if key in config:
        return config[key]
    for value in config.values():
        if isinstance(value, Mapping) and (found := _find(value, key)) is not None:
            return found
    return None
