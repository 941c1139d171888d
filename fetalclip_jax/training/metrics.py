"""Where numbers go while training: JSON lines, TensorBoard, Weights & Biases if asked for."""

import hashlib
import json
import math
import resource
import sys
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from fetalclip_jax import storage
from fetalclip_jax.run import Run, is_lead, write_text


class MetricsWriter:
    """Appends to `<workdir>/metrics.jsonl` and to TensorBoard event files, in the lead process.

    Only the lead process of a job writes. A number that is not finite is left out: JSON knows none.

    Args:
      resume_step: lines logged after this step belong to work that was lost with the process;
        they are dropped, so that every step appears once.
      wandb_project: a project of Weights & Biases that the numbers go to as well; "" for none.
      settings: of the run, for that project.

    Raises:
      ValueError: a project, and Weights & Biases is not installed.
    """

    def __init__(
        self,
        workdir: storage.Path,
        resume_step: int = 0,
        *,
        wandb_project: str = "",
        settings: Mapping[str, Any] | None = None,
    ):
        self._writes = is_lead()
        if not self._writes:
            return
        # The one that may fail comes first: nothing is open yet.
        self._online = _wandb_run(wandb_project, workdir, settings) if wandb_project else None
        run = Run(workdir)
        self._spool = storage.Spool(run.workdir)
        metrics = self._spool.fetch(run.metrics.name)
        kept = []
        if metrics.exists() and resume_step:
            for line in metrics.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # the line a killed process was writing
                    continue
                if record["step"] <= resume_step:
                    kept.append(line + "\n")
        write_text(metrics, "".join(kept))
        self._path, self._complained = run.metrics, False
        self._file = metrics.open("a")
        events = self._spool.folder / run.tensorboard.name
        self._events = SummaryWriter(str(events), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        if not self._writes:
            return
        values = {
            name: value if isinstance(value, int) else float(value)
            for name, value in values.items()
            if math.isfinite(value)
        }
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        try:
            self._file.flush()
            self._complained = False
        except OSError as error:  # what could not be written stays to be written with the next line
            if not self._complained:
                print(f"{self._path} cannot be written ({error.strerror}); it is tried again")
            self._complained = True
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._online is not None:
            self._online.log(values, step=step)
        self.send(now=False)

    def send(self, *, now: bool = True) -> None:
        """Brings a workdir in a bucket up to date: each minute, or `now`, before a checkpoint."""
        if not self._writes:
            return
        if now and storage.is_bucket(self._path):
            self._events.flush()
        self._sync(now=now)

    def _sync(self, *, now: bool = True) -> None:
        try:
            self._spool.sync(now=now)
        except storage.BucketError as error:  # as with a full disk
            print(f"metrics are sent later: {error}")

    def close(self) -> None:
        if not self._writes:
            return
        self._file.close()
        self._events.close()
        self._sync()
        if self._online is not None:
            self._online.finish()


def _wandb_run(project: str, workdir: storage.Path, settings: Mapping[str, Any] | None):
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            f"config.train.wandb_project={project!r} needs Weights & Biases ({error}): "
            "pip install wandb, or leave it empty"
        ) from error
    where = storage.path(workdir).resolve()
    # A run that was killed goes on under the same name there: it is that of its folder.
    identity = hashlib.sha256(str(where).encode()).hexdigest()[:16]
    return wandb.init(
        project=project,
        id=identity,
        name=where.name,
        dir=None if storage.is_bucket(where) else str(where),
        resume="allow",
        config=dict(settings or {}),
    )


def peak_rss_gib() -> float:
    """Peak resident memory in GiB of this process or of its largest finished child."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes on Linux
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return peak * unit / 2**30
