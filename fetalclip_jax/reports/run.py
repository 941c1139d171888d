"""What a run left in its working directory, read back leniently: any part may be missing."""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

PREDICTION_TASKS = ("planes", "brain", "age")


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of one run.

    Attributes:
      workdir: the directory that was read.
      config: the resolved experiment (`config.json`), empty when there is none.
      metrics: training metrics by step, ascending; one mapping for each logged step.
      skipped_metric_lines: lines of `metrics.jsonl` cut short by a killed process.
      results: file stem -> contents of `results/<stem>.json`.
      predictions: task -> rows of `results/predictions_<task>.csv`, all values as text.
    """

    workdir: pathlib.Path
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    skipped_metric_lines: int
    results: Mapping[str, Mapping[str, Any]]
    predictions: Mapping[str, Sequence[Mapping[str, str]]]

    @property
    def data_source(self) -> str:
        """`config.data.source`, or "" when the configuration does not say."""
        data = self.config.get("data")
        return str(data.get("source", "")) if isinstance(data, Mapping) else ""

    def result(self, name: str) -> Mapping[str, Any]:
        """The named result, or an empty mapping."""
        return self.results.get(name, {})


def load_run(workdir: str | pathlib.Path) -> Run:
    """Reads everything a report can use from `workdir`.

    Raises:
      ValueError: the directory does not exist, holds nothing to report, or holds a broken file.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise ValueError(f"{workdir} is not a directory; give the working directory of a run")
    config_path = workdir / "config.json"
    metrics, skipped = _read_metrics(workdir / "metrics.jsonl")
    results = {p.stem: _read_json(p) for p in sorted((workdir / "results").glob("*.json"))}
    if not metrics and not results:
        raise ValueError(
            f"{workdir} has neither metrics.jsonl nor results/*.json: nothing to report; "
            "train or evaluate a model there first"
        )
    return Run(
        workdir=workdir,
        config=_read_json(config_path) if config_path.exists() else {},
        metrics=metrics,
        skipped_metric_lines=skipped,
        results=results,
        predictions={
            task: _read_csv(path)
            for task in PREDICTION_TASKS
            if (path := workdir / "results" / f"predictions_{task}.csv").exists()
        },
    )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); run its program again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def _read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"example_id", "prediction"} <= rows[0].keys():
        raise ValueError(
            f"{path} has the columns {sorted(map(str, rows[0]))}; example_id and prediction are "
            "needed; run its program again"
        )
    return rows


def _read_metrics(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """Metrics merged by step. A resumed run repeats steps: what was logged last holds."""
    if not path.exists():
        return [], 0
    by_step: dict[int, dict[str, Any]] = {}
    skipped = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError):
            skipped += 1  # A process killed while it wrote leaves half a line.
            continue
        by_step.setdefault(step, {}).update(entry)
    return [by_step[step] for step in sorted(by_step)], skipped
