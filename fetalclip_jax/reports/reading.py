"""What a report is made from: runs that trained, and results of `fetalclip evaluate`."""

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fetalclip_jax import storage
from fetalclip_jax.evaluation import result as results
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import naming


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What training left in a run's folder; any part may be missing.

    Attributes:
      workdir: the folder.
      config: the resolved experiment (`config.json`), empty when there is none.
      metrics: training metrics by step, ascending; one mapping for each logged step.
      skipped_metric_lines: lines of `metrics.jsonl` cut short by a killed process.
      train: `results/train.json`: time, steps, images, parameters.
      bad_examples: split -> (example id, reason) of what its records leave out.
    """

    workdir: storage.Path
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    skipped_metric_lines: int
    train: Mapping[str, Any]
    bad_examples: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def name(self) -> str:
        """As the configuration calls the run, or its folder."""
        return str(self.config.get("name") or self.workdir.resolve().name)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A result and where it lies.

    Attributes:
      result: what a study found.
      folder: where it was saved; its example images lie below.
      label: "model / data", and as much more as tells it from the others of its study.
    """

    result: Result
    folder: storage.Path
    label: str

    @property
    def model_name(self) -> str:
        return _name(self.result.model, "model")

    @property
    def data_name(self) -> str:
        return _name(self.result.data, "data")

    @property
    def simulated(self) -> bool:
        """Whether the images were drawn by a program."""
        return bool(self.result.data.get("simulated"))


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything that the sources of a report hold.

    Attributes:
      runs: in the order of the sources.
      evaluated: in the order of the page: by study, then in the order of the sources.
    """

    runs: tuple[TrainedRun, ...]
    evaluated: tuple[Evaluated, ...]

    @property
    def several(self) -> bool:
        """Whether a figure must say whose it is."""
        return len({one.label for one in self.evaluated}) > 1

    def beside(self, one: Evaluated, study: str) -> Result | None:
        """The result of another study for the model and data of `one`, if there is one."""
        found = [
            other
            for other in self.evaluated
            if (other.result.study, other.model_name, other.data_name)
            == (study, one.model_name, one.data_name)
        ]
        # Judged twice, say by two protocols: the one under the same label is closest.
        found.sort(key=lambda other: other.label != one.label)
        return found[0].result if found else None

    def labels(self) -> list[str]:
        """Every label once."""
        return list(dict.fromkeys(one.label for one in self.evaluated))


def read(sources: Sequence[storage.Path]) -> Contents:
    """Reads runs and folders of results.

    Args:
      sources: folders; one with `config.json` or `metrics.jsonl` is a run, whose results lie in
        its `results/`.

    Raises:
      ValueError: no folder, one without anything to report, or a broken file.
    """
    if not sources:
        raise ValueError("no run and no folder of results is given: nothing to report")
    runs, paths = [], {}
    for source in map(storage.path, sources):
        if not source.is_dir():
            raise ValueError(f"{source} is not a folder; give a run or what `evaluate` wrote")
        found = results.find(source / "results" if is_run(source) else source)
        if is_run(source):
            runs.append(_read_run(source))
        if not found and not (is_run(source) and (runs[-1].metrics or runs[-1].train)):
            raise ValueError(
                f"{source} has neither metrics.jsonl nor results: nothing to report; train a "
                f"model there, or `fetalclip evaluate --output {source}`"
            )
        # The same file through two sources is one result.
        paths |= {path.resolve(): path for path in found}
    loaded = [(_load(path), path.parent) for path in paths.values()]
    loaded.sort(key=lambda pair: naming.order(pair[0].study))
    labels = _labels(loaded)
    unique_runs = {run.workdir.resolve(): run for run in runs}
    return Contents(
        runs=tuple(unique_runs.values()),
        evaluated=tuple(
            Evaluated(result, folder, label)
            for (result, folder), label in zip(loaded, labels, strict=True)
        ),
    )


def _load(path: storage.Path) -> Result:
    result = results.load(path)
    try:
        studies.check_predictions(result)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return result


def is_run(folder: storage.Path) -> bool:
    """Whether a folder is one that training or `fetalclip import` claims."""
    return any((folder / name).is_file() for name in ("config.json", "metrics.jsonl"))


def _labels(loaded: Sequence[tuple[Result, storage.Path]]) -> list[str]:
    """A label of each result that no other of the same study has."""
    ways: tuple[Callable[[Result, storage.Path], str], ...] = (
        lambda r, _: f"{_name(r.model, 'model')} / {_name(r.data, 'data')}",
        lambda r, f: f"{ways[0](r, f)} ({r.protocol.get('name', 'protocol not recorded')})",
        lambda r, f: f"{ways[1](r, f)} in {f}",
    )
    written = [[(r.study, way(r, folder)) for way in ways] for r, folder in loaded]
    chosen = []
    for names in written:
        unique = (
            name
            for k, name in enumerate(names)
            if sum(others[k] == name for others in written) == 1
        )
        chosen.append(next(unique, names[-1])[1])
    return chosen


def _name(identity: Mapping[str, Any], kind: str) -> str:
    return str(identity.get("name") or f"{kind} not recorded")


def _read_run(workdir: storage.Path) -> TrainedRun:
    metrics, skipped = _read_metrics(workdir / "metrics.jsonl")
    return TrainedRun(
        workdir=workdir,
        config=_read_json(workdir / "config.json"),
        metrics=metrics,
        skipped_metric_lines=skipped,
        train=_read_json(workdir / "results" / "train.json"),
        bad_examples={
            path.parent.name: rows
            for path in sorted((workdir / "records").glob("*/bad_examples.csv"))
            if (rows := _read_bad_examples(path))
        },
    )


def _read_json(path: storage.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); run its program again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def _read_bad_examples(path: storage.Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(r.get("example_id") or "", r.get("reason") or "") for r in csv.DictReader(file)]


def _read_metrics(path: storage.Path) -> tuple[list[dict[str, Any]], int]:
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
