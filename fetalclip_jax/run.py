"""A run's folder: where everything in it lies, whose it is, and how its files are written.

<workdir>/config.json     the resolved configuration
          records/<split> prepared data (ArrayRecord)
          tokenizer/      the vocabulary the model was trained with
          checkpoints/    parameters, optimiser state, data position
          metrics.jsonl, tensorboard/
          heartbeats/     signs of life, a file for each process
          skipped/        examples of steps that were skipped, a file for each process
          results/, figures/, report.html, results.json

Importing this module does not import JAX: programs that only write files use it too.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

# May differ between a run and its continuation: they choose machines and habits, not results.
_FREE_FIELDS = (
    *("data.workers", "data.root", "train.checkpoint_every", "train.log_every"),
    *("train.max_skipped_steps", "train.stall_seconds", "train.wandb_project"),
    *("train.studies", "train.study_every"),
)
_FREE_PREFIXES = ("mesh.",)

# Locks held by this process: folder -> its open lock file.
_locks: dict[pathlib.Path, int] = {}


class Run:
    """The paths in a run's folder.

    Attributes:
      workdir: the folder.
    """

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)

    @property
    def config(self) -> pathlib.Path:
        return self.workdir / "config.json"

    @property
    def tokenizer(self) -> pathlib.Path:
        return self.workdir / "tokenizer"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.workdir / "checkpoints"

    @property
    def metrics(self) -> pathlib.Path:
        return self.workdir / "metrics.jsonl"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.workdir / "tensorboard"

    @property
    def heartbeats(self) -> pathlib.Path:
        return self.workdir / "heartbeats"

    @property
    def skipped(self) -> pathlib.Path:
        return self.workdir / "skipped"

    @property
    def results(self) -> pathlib.Path:
        return self.workdir / "results"

    @property
    def figures(self) -> pathlib.Path:
        return self.workdir / "figures"

    @property
    def report(self) -> pathlib.Path:
        return self.workdir / "report.html"

    @property
    def summary(self) -> pathlib.Path:
        """Every result in one file."""
        return self.workdir / "results.json"

    def records(self, split: str) -> pathlib.Path:
        return self.workdir / "records" / split

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(int(p.name) for p in self.checkpoints.glob("*") if p.name.isdigit())

    def claim(self, config: ConfigDict) -> None:
        """Marks the folder as this experiment's, or checks that it already is.

        From here to the end of the process no other may claim the folder. Only a checkpoint binds
        it to its settings: before the first one a mistaken field can be put right.

        Raises:
          ValueError: another process works in it, or it holds another experiment; names the
            fields that differ.
        """
        # Imported here: it brings JAX along.
        from fetalclip_jax.config import flatten, load_config, save_config

        steps = self.steps()
        if steps and not self.config.exists():
            raise ValueError(
                f"{self.workdir} holds checkpoints but no config.json, so it is not known what "
                "they are; choose another --workdir"
            )
        self.workdir.mkdir(parents=True, exist_ok=True)
        _lock(self.workdir)
        if self.config.exists():
            old, new = flatten(load_config(self.config)), flatten(config)
            differing = {
                name: (old.get(name), new.get(name))
                for name in sorted(old.keys() | new.keys())
                if old.get(name) != new.get(name)
                and name not in _FREE_FIELDS
                and not name.startswith(_FREE_PREFIXES)
            }
            if steps and not old["data.source"]:
                raise ValueError(f"{self.workdir} holds imported weights; {self._start_from_it()}")
            if differing and steps:
                raise ValueError(self._refusal(differing, old["train.steps"], steps[-1]))
            if differing and is_lead():
                shutil.rmtree(self.tokenizer, ignore_errors=True)
        save_config(config, self.config)

    def _refusal(
        self, differing: Mapping[str, tuple[Any, Any]], planned: int, latest_step: int
    ) -> str:
        if differing.keys() == {"train.steps"}:
            asked = differing["train.steps"][1]
            if latest_step >= planned:
                return (
                    f"{self.workdir} has finished its {planned} steps, with the learning rate at "
                    f"zero: config.train.steps={asked} would be another schedule from the start, "
                    f"not its continuation; {self._start_from_it()}"
                )
            return (
                f"{self.workdir} has a schedule of {planned} steps and is at step {latest_step}: "
                f"config.train.steps={asked} would be another schedule from the start; go on with "
                f"config.train.steps={planned}, or {self._start_from_it()}"
            )
        fields = "; ".join(
            f"{name}: {old!r} there, {new!r} now" for name, (old, new) in differing.items()
        )
        return (
            f"{self.workdir} holds another experiment ({fields}); use its settings to continue it, "
            "or another --workdir"
        )

    def _start_from_it(self) -> str:
        return (
            f"train from its parameters with --config.init_from={self.workdir} and another "
            "--workdir"
        )


def is_lead() -> bool:
    """Whether this is the process of a job that writes files; the only one of most."""
    # A process without JAX is part of no distributed job, and need not import it to find out.
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes `content` so that a reader sees the old file or the whole new one.

    Only the lead process writes; the others of a job return at once.
    """
    if not is_lead():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a hidden folder to fill, which becomes `path` when the block ends without an error.

    A process that is killed in between leaves no `path`.

    Raises:
      ValueError: `path` exists already.
    """
    if path.exists():
        raise ValueError(f"{path} is there already; choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's is for its maker alone
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lock(workdir: pathlib.Path) -> None:
    """Holds `<workdir>/.lock` until this process ends, however it ends.

    Raises:
      ValueError: another process holds it.
    """
    path = workdir.resolve() / ".lock"
    held = _locks.get(path)
    if held is not None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), os.stat(path)):
                return
        os.close(_locks.pop(path))  # the folder it belonged to is gone
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(file, 200).decode(errors="replace").strip()
        os.close(file)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ValueError(
                f"{workdir} is in use by {holder or 'another process'}; wait for it, or choose "
                "another --workdir"
            ) from error
        # Some network disks know no locks; a run there is as safe as its user is careful.
        print(f"{workdir} cannot be locked ({error.strerror}): start one process in it at a time")
        return
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _locks[path] = file


def _drop_locks() -> None:
    """In a forked child: closes its copies, which would hold the folder when the parent is gone."""
    for file in _locks.values():
        os.close(file)
    _locks.clear()


os.register_at_fork(after_in_child=_drop_locks)
