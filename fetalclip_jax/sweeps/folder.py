"""A sweep's folder, and what is known of each of its points.

<workdir>/points/<name>/          a run like any other, with what is judged of it
          points/<name>/point.json     how far it came
          points/<name>/log.txt        what it printed
          points/<name>/validation/    results of the studies, of the validation patients
          records/<digest>/       prepared data; points that read the same share them
          sweep.json, sweep.csv, sweep.html, figures/
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax import continuation
from fetalclip_jax import run as runs
from fetalclip_jax.config import load_config
from fetalclip_jax.data import record_files
from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation import result as results
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.sweeps.plan import TEMPERATURE, Plan, Point
from fetalclip_jax.training import inputs, origin

# Of a point: not begun, running (or ended without a word), ended early on a notice, given up by
# early stopping, ended by an error, finished and judged.
STATUSES = ("waiting", "running", "interrupted", "stopped", "failed", "done")
_LOG_END_BYTES = 8192


@dataclasses.dataclass(frozen=True)
class State:
    """How far a point came.

    Attributes:
      status: one of `STATUSES`.
      message: the last line of one that failed, why one was stopped; "" otherwise.
      step: training steps done, where that is known.
      seconds: of training and judging, where they are known.
      options: of the studies that judged it, where any were given.
    """

    status: str
    message: str = ""
    step: int | None = None
    seconds: float | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Folder:
    """The paths in a sweep's folder.

    Attributes:
      workdir: the folder.
    """

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)

    @property
    def points(self) -> pathlib.Path:
        return self.workdir / "points"

    @property
    def summary(self) -> pathlib.Path:
        return self.workdir / "sweep.json"

    @property
    def table(self) -> pathlib.Path:
        return self.workdir / "sweep.csv"

    @property
    def page(self) -> pathlib.Path:
        return self.workdir / "sweep.html"

    @property
    def figures(self) -> pathlib.Path:
        return self.workdir / "figures"

    def run(self, point: Point) -> runs.Run:
        return runs.Run(self.points / point.name)

    def log(self, point: Point) -> pathlib.Path:
        return self.points / point.name / "log.txt"

    def results(self, point: Point, plan: Plan) -> pathlib.Path:
        """Where the studies of a point lie. A run's report shows those of the test alone."""
        name = "results" if plan.judging.patients == "test" else plan.judging.patients
        return self.points / point.name / name

    def write_state(self, point: Point, state: State) -> None:
        runs.write_json(self.points / point.name / "point.json", dataclasses.asdict(state))

    def state(self, point: Point, plan: Plan) -> State:
        """How far a point came, by what lies in its folder."""
        path = self.points / point.name / "point.json"
        try:
            said = State(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            said = State("waiting")
        if said.status == "done" and not self._is_whole(point, plan):
            return State("interrupted", "its results are not all there")
        if said.status == "done" and said.options != options(plan):
            return State("interrupted", "it was judged with other options or on other data")
        return said

    def found(self, point: Point, plan: Plan) -> dict[str, Result]:
        """Results of the studies of a point that is done, by study."""
        loaded = [results.load(path) for path in results.find(self.results(point, plan))]
        return {one.study: one for one in loaded if one.study in plan.judging.studies}

    def strangers(self, plan: Plan) -> list[str]:
        """Folders of points that the sweep does not have any more."""
        known = {point.name for point in plan.points}
        there = self.points.iterdir() if self.points.is_dir() else ()
        return sorted(one.name for one in there if one.is_dir() and one.name not in known)

    def resolved(self, plan: Plan) -> Plan:
        """The sweep with the model of its origin in every point that takes it.

        Raises:
          ValueError: a point whose origin is missing or does not say what model it is, or that
            sets a part of the model it takes.
        """
        return dataclasses.replace(plan, points=tuple(map(self._resolved, plan.points)))

    def _resolved(self, point: Point) -> Point:
        config, where = point.config, f"point {point.index} ({point.name})"
        for name in point.overrides if config.init_model else ():
            if name == TEMPERATURE or name.startswith("model."):
                raise ValueError(
                    f"{where}: {name} is a part of the model, which config.init_model takes from "
                    "config.init_from; leave out one of them"
                )
        try:
            config = origin.with_its_model(config, self.run(point).workdir)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return dataclasses.replace(point, config=config)

    def check(self, plan: Plan) -> None:
        """Makes sure that this is the folder of this sweep.

        Raises:
          ValueError: it is that of a run, its sweep.json is of something else, or points in it
            were trained with other settings.
        """
        if (self.workdir / "config.json").exists():
            raise ValueError(f"{self.workdir} is the folder of one run; choose another --workdir")
        if self.summary.exists() and '"points"' not in self.summary.read_text(errors="replace"):
            raise ValueError(
                f"{self.summary} is not of a sweep and would be overwritten; choose another "
                "--workdir"
            )
        for point in plan.points:
            own = self.run(point)
            if not own.config.exists() or not own.steps():
                continue
            changes = continuation.differences(load_config(own.config), point.config)
            if changes:
                listed = "; ".join(
                    f"{name}: {old!r} there, {new!r} now" for name, (old, new) in changes.items()
                )
                raise ValueError(
                    f"{own.workdir} holds another experiment ({listed}); use its settings, or "
                    "another --workdir for this sweep"
                )

    def prepare(self, point: Point) -> None:
        """Gives a point's run the records of all points that read the same data.

        While one point makes them the others wait, so that they are made once.
        """
        own, splits = self.run(point), ("train", inputs.validation_split(point.config))
        place = own.workdir / "records"
        if runs.is_lead():
            own.workdir.mkdir(parents=True, exist_ok=True)
            # What a run with checkpoints learned from stays, whatever became of the data; one
            # without may lead to records that others learned from, which it must not replace.
            if not place.exists() or (place.is_symlink() and not own.steps()):
                self._link(place, _digest(point, splits))
        with _locked(place / ".lock") if runs.is_lead() else contextlib.nullcontext():
            for split in splits:
                inputs.open_records(point.config, own.workdir, split)
            inputs.open_mixed_in(point.config, own.workdir)

    def _link(self, place: pathlib.Path, digest: str) -> None:
        folder = self.workdir / "records" / digest
        folder.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        # Relative, so that the whole folder can be moved.
        place.symlink_to(os.path.relpath(folder, place.parent))

    def _is_whole(self, point: Point, plan: Plan) -> bool:
        there = {path.stem for path in results.find(self.results(point, plan))}
        return set(plan.judging.studies) <= there


def options(plan: Plan) -> dict[str, Any]:
    """The options of a sweep's studies as a file has them, without studies that have none.

    With the data set that points are judged on, where that is not the one they are trained on.
    """
    given = {name: dict(one) for name, one in plan.judging.options.items() if one}
    if plan.judging.judged_on is not None:
        given["judged_on"] = dataclasses.asdict(plan.judging.judged_on)
    return json.loads(json.dumps(given, sort_keys=True, default=str))


def last_line(log: pathlib.Path) -> str:
    """The last line that a program printed; "" for none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "")


def _digest(point: Point, splits: Sequence[str]) -> str:
    """Names the records of a point by what they are made of: of other files they are others."""
    size = point.config.model.vision_cfg.image_size
    described = {
        split: record_files.describe(inputs.source(point.config, split), size) for split in splits
    }
    for other, _ in inputs.mixed_in(point.config):
        mixed_in = inputs.source(other, registry.roles(other.data.source)["train"])
        described[other.data.source] = record_files.describe(mixed_in, size)
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process holds `path`.

    Where disks know no locks it does not wait: the same records are then made twice.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
