"""reliability.json and its tables, beside the page."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax import run as runs
from fetalclip_jax import storage
from fetalclip_jax.evaluation.calibration import Calibration
from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.subgroups import DATA_SET
from fetalclip_jax.reports.reliability import Reliability

_SUBGROUP_COLUMNS = (
    *("study", "model", "data", "column", "subgroup", "images", "patients", "simulated"),
    *("metric", "value", "low", "high", "lacking_classes"),
)
_CALIBRATION_COLUMNS = (
    *("study", "model", "data", "probabilities", "measure", "value", "low", "high", "images"),
    "patients",
)


def write(folder: storage.Path, found: Reliability) -> None:
    """Writes reliability.json, reliability_subgroups.csv and reliability_calibration.csv."""
    runs.write_json(folder / "reliability.json", found.to_json())
    runs.write_text(folder / "reliability_subgroups.csv", subgroup_table(found))
    runs.write_text(folder / "reliability_calibration.csv", calibration_table(found))


def subgroup_table(found: Reliability) -> str:
    """Every metric of every subgroup as a row of CSV."""
    rows = []
    for one in found.splits:
        of = (one.found.study, one.found.model)
        for group in one.found.groups:
            data = group.name if one.found.column == DATA_SET else one.found.data
            counts = (one.found.column, group.name, group.images, group.patients, group.simulated)
            lacking = "; ".join(group.lacking)
            rows += [
                (*of, data, *counts, metric, e.value, e.low, e.high, lacking)
                for metric, e in group.metrics.items()
            ]
    return _csv(_SUBGROUP_COLUMNS, rows)


def calibration_table(found: Reliability) -> str:
    """Every measure of probabilities as a row of CSV."""
    rows = []
    for one, calibrated in found.calibrations:
        of = (calibrated.study, one.model_name, one.data_name)
        for probabilities, name, e in _measures(calibrated):
            edges = (e.value, e.low, e.high, e.n, e.groups)
            rows.append((*of, probabilities, name, *edges))
    return _csv(_CALIBRATION_COLUMNS, rows)


def _measures(found: Calibration) -> Iterator[tuple[str, str, Estimate]]:
    for when, one in (("as scored", found.before), ("at the temperature", found.after)):
        yield when, "expected calibration error", Estimate(one.expected_error, n=found.images)
        yield when, "that by chance alone", Estimate(one.expected_by_chance, n=found.images)
        yield when, "root mean square calibration error", one.rms_error
        yield when, "Brier score", one.brier
        yield when, "log loss", one.log_loss
    when, abstention = "at the temperature", found.abstention
    yield when, "area under risk by coverage", abstention.area
    for coverage, estimate in abstention.error_at.items():
        yield when, f"error at {coverage:.0%} coverage", estimate
    yield when, f"coverage at a chosen risk of {abstention.asked:.0%}", abstention.coverage
    if abstention.error is not None:
        yield when, f"error at a chosen risk of {abstention.asked:.0%}", abstention.error
    for one in found.sets:
        parts: Mapping[str, Estimate] = {
            "coverage": one.coverage,
            "coverage by image": one.image_coverage,
            "mean size": one.size,
            "share with one answer": one.single,
            "share empty": one.empty,
        }
        parts |= {f"coverage of {name}": e for name, e in one.of_class.items()}
        for column, groups in one.of_group.items():
            parts |= {f"coverage of {column} {name}": e for name, e in groups.items()}
        for name, estimate in parts.items():
            yield when, f"{one.level:.0%} sets: {name}", estimate


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
