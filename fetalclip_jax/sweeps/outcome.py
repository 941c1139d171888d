"""What a sweep found so far: sweep.json and sweep.csv, one row a point.

sweep.json    config, score, patients, points, settings, verdict, notes
sweep.csv     index, name, what each point sets, status, message, step, seconds, and of every study
              and metric the value with its interval, over the judged patients
"""

import csv
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from fetalclip_jax import run as runs
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.sweeps import plan as plans
from fetalclip_jax.sweeps import repeats
from fetalclip_jax.sweeps.folder import Folder, State
from fetalclip_jax.sweeps.plan import Plan, Point
from fetalclip_jax.sweeps.repeats import Setting, Verdict
from fetalclip_jax.sweeps.score import is_error


@dataclasses.dataclass(frozen=True)
class Row:
    """A point, how far it came, and what its studies found once it is done."""

    point: Point
    state: State
    found: Mapping[str, Result]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything a sweep found.

    Attributes:
      plan: what was asked.
      rows: one a point, in order.
      settings: finished points joined over seeds, in order.
      verdict: which is best; None where points are judged on test patients: nothing is chosen.
      notes: what must be known beside it, in sentences.
    """

    plan: Plan
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    verdict: Verdict | None
    notes: tuple[str, ...]

    def count(self, status: str) -> int:
        return sum(row.state.status == status for row in self.rows)

    @property
    def fields(self) -> list[str]:
        """What points set, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row.point.overrides))

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.plan.path,
            "score": self.plan.score,
            "patients": self.plan.judging.patients,
            "points": [_row_json(row) for row in self.rows],
            "settings": [one.to_json() for one in self.settings],
            "verdict": self.verdict.to_json() if self.verdict else None,
            "notes": list(self.notes),
        }


def collect(plan: Plan, folder: Folder) -> Outcome:
    """Reads what the points of a sweep left.

    Raises:
      ValueError: a result that is broken, or that lacks the score.
    """
    rows = []
    for point in plan.points:
        state = folder.state(point, plan)
        found = folder.found(point, plan) if state.status == "done" else {}
        rows.append(Row(point, state, found))
    settings = tuple(_settings(plan, rows))
    verdict = None
    if plan.judging.patients == "validation":
        verdict = repeats.verdict(settings, plan.score, lower_is_better=is_error(plan.score))
    notes = tuple(_notes(plan, folder, rows, settings))
    return Outcome(plan, tuple(rows), settings, verdict, notes)


def write(outcome: Outcome, folder: Folder) -> None:
    """Writes sweep.json and sweep.csv, each whole or not at all."""
    runs.write_json(folder.summary, outcome.to_json())
    runs.write_text(folder.table, table(outcome))


def table(outcome: Outcome) -> str:
    """The CSV."""
    metrics = list(
        dict.fromkeys(
            (study, name)
            for row in outcome.rows
            for study, result in row.found.items()
            for name in result.metrics
        )
    )
    ends = ("", "_low", "_high")
    fields = [name for name in outcome.fields if name != plans.SEED]
    columns = ["index", "name", *fields, plans.SEED, "status", "message", "step", "seconds"]
    columns += [f"{study}/{name}{end}" for study, name in metrics for end in ends]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in outcome.rows:
        state, point = row.state, row.point
        cells = [point.index, point.name, *(point.overrides.get(f, "") for f in fields)]
        cells += [point.config.seed, state.status, state.message, state.step, state.seconds]
        for study, name in metrics:
            estimate = row.found[study].metrics.get(name) if study in row.found else None
            cells += [getattr(estimate, part, None) for part in ("value", "low", "high")]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _settings(plan: Plan, rows: list[Row]):
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.found:
            groups.setdefault(repeats.key(row.point.settings), []).append(row)
    fields = list(dict.fromkeys(name for row in rows for name in row.point.settings))
    kept = independent([row.point.settings for row in rows], fields)
    for own in groups.values():
        settings = own[0].point.settings
        told = {name: settings[name] for name in kept if name in settings} or settings
        name = plans.named(told, fields) or own[0].point.name
        study = plan.score.partition("/")[0]
        seeds = {row.point.config.seed: row.found[study] for row in own}
        yield repeats.setting(name, settings, plan.score, seeds)


def independent(settings: list[Mapping[str, Any]], fields: list[str]) -> list[str]:
    """Fields that vary and that no field before them decides, such as steps by the batch size."""
    kept: list[str] = []
    for field in fields:
        values = [str(one.get(field)) for one in settings]
        if len(set(values)) < 2:
            continue
        decided = any(
            len({(str(one.get(other)), value) for one, value in zip(settings, values, strict=True)})
            == len({str(one.get(other)) for one in settings})
            for other in kept
        )
        if not decided:
            kept.append(field)
    return kept


def _notes(plan: Plan, folder: Folder, rows: list[Row], settings: tuple[Setting, ...]):
    if plan.judging.patients == "validation" and settings:
        yield (
            "Judged on validation patients, by whom the best of many is chosen: its score is "
            "higher than it would be on others. Judge the chosen point on test patients with "
            "fetalclip evaluate --model."
        )
    counts = sorted({len(one.values) for one in settings})
    if counts and counts[0] == 1:
        yield "Settings of one seed have no interval."
    if 2 in counts or 3 in counts:
        yield (
            "Two or three seeds say little of the spread over seeds: intervals of single settings "
            "are wide."
        )
    for status, words in (
        ("failed", "failed and are in no mean"),
        ("stopped", "were stopped early: their scores, of shorter training, are in no mean"),
        ("interrupted", "are not finished"),
        ("running", "are running, or ended without a word"),
        ("waiting", "have not begun"),
    ):
        if count := sum(row.state.status == status for row in rows):
            yield f"{count} of {len(rows)} points {words}."
    count = len({repeats.key(row.point.settings) for row in rows})
    if settings and len(settings) < count:
        yield (
            f"{count - len(settings)} of {count} settings have no finished point and are compared "
            "with none."
        )
    if strangers := folder.strangers(plan):
        yield (
            f"{len(strangers)} folders in {folder.points} are of no point of this sweep and are "
            f"left out: {', '.join(strangers[:3])}{', ...' * (len(strangers) > 3)}."
        )


def _row_json(row: Row) -> dict[str, Any]:
    point = row.point
    return {
        "index": point.index,
        "name": point.name,
        "overrides": dict(point.overrides),
        "seed": point.config.seed,
        "images_seen": (row.state.step or 0) * point.config.train.global_batch_size,
        **{name: value for name, value in vars(row.state).items() if name != "options"},
        "scores": {
            study: {name: dataclasses.asdict(one) for name, one in result.metrics.items()}
            for study, result in row.found.items()
        },
    }
