"""A run's folder: where everything in it lies, whose it is, and how its files are written.

<workdir>/config.json     the resolved configuration
          config_changes.jsonl    settings that were changed on the way, each with its step
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
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from fetalclip_jax import storage
from fetalclip_jax.storage.lease import Lease

if TYPE_CHECKING:
    from fetalclip_jax import continuation

# Locks held by this process: file -> it, open.
_locks: dict[pathlib.Path, int] = {}
# Leases held by this process of folders in buckets.
_leases: dict[storage.BucketPath, Lease] = {}
# What a finished checkpoint has in a bucket, where no folder gets its name at the end.
RECORDED = "files.json"


class Run:
    """The paths in a run's folder.

    Attributes:
      workdir: the folder.
    """

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = storage.path(workdir)

    @property
    def config(self) -> storage.Path:
        return self.workdir / "config.json"

    @property
    def config_changes(self) -> storage.Path:
        return self.workdir / "config_changes.jsonl"

    @property
    def tokenizer(self) -> storage.Path:
        return self.workdir / "tokenizer"

    @property
    def checkpoints(self) -> storage.Path:
        return self.workdir / "checkpoints"

    @property
    def metrics(self) -> storage.Path:
        return self.workdir / "metrics.jsonl"

    @property
    def tensorboard(self) -> storage.Path:
        return self.workdir / "tensorboard"

    @property
    def heartbeats(self) -> storage.Path:
        return self.workdir / "heartbeats"

    @property
    def skipped(self) -> storage.Path:
        return self.workdir / "skipped"

    @property
    def results(self) -> storage.Path:
        return self.workdir / "results"

    @property
    def figures(self) -> storage.Path:
        return self.workdir / "figures"

    @property
    def report(self) -> storage.Path:
        return self.workdir / "report.html"

    @property
    def summary(self) -> storage.Path:
        """Every result in one file."""
        return self.workdir / "results.json"

    def records(self, split: str) -> storage.Path:
        return self.workdir / "records" / split

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        found = [path for path in self.checkpoints.glob("*") if path.name.isdigit()]
        if storage.is_bucket(self.checkpoints):
            found = [path for path in found if (path / RECORDED).is_file()]
        return sorted(int(path.name) for path in found)

    def claim(
        self, config: ConfigDict, *, allow_config_change: bool = False
    ) -> "continuation.Continuation":
        """Marks the folder as this experiment's, or checks that it already is.

        From here to the end of the process no other may claim the folder. Only a checkpoint binds
        it to its settings: before the first one a mistaken field can be put right. Settings that
        matter and may change are written down by `accept`, once the run does go on with them.

        Args:
          allow_config_change: accept other settings where the parameters fit them.

        Raises:
          ValueError: it cannot be written, another process works in it, or it holds another
            experiment; names the fields that differ.
        """
        # Imported here: they bring JAX along.
        from fetalclip_jax import continuation
        from fetalclip_jax.config import load_config, save_config

        steps = self.steps()
        if steps and not self.config.exists():
            raise ValueError(
                f"{self.workdir} holds checkpoints but no config.json, so it is not known what "
                "they are; choose another --workdir"
            )
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            _lock(self.workdir)
        except storage.BucketError:
            raise
        except OSError as error:
            raise ValueError(
                f"{self.workdir} cannot be written ({error.strerror}); make it writable, or choose "
                "another --workdir"
            ) from error
        plan = continuation.Continuation()
        if self.config.exists():
            there = load_config(self.config)
            if steps and not there.data.source:
                raise ValueError(
                    f"{self.workdir} holds imported weights; train from its parameters with "
                    f"--config.init_from={self.workdir} and another --workdir"
                )
            if steps:
                plan = continuation.decide(
                    self.workdir, there, config, steps, allow_config_change=allow_config_change
                )
            elif continuation.differences(there, config) and is_lead():
                storage.rmtree(self.tokenizer)
        if not plan.changes:
            save_config(config, self.config)
        return plan

    def in_use(self) -> str:
        """Who works in the folder, on a disk; "" for nobody, or where that cannot be known."""
        try:
            with (self.workdir / ".lock").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return file.read(200).strip() or "another process"
        except OSError:
            pass
        return ""

    def accept(self, config: ConfigDict, changes: "continuation.Changes", step: int) -> None:
        """Makes `config` the run's from `step` on; says and keeps what changed."""
        from fetalclip_jax.config import save_config

        if not changes or not is_lead():
            return
        save_config(config, self.config)
        history = self.config_changes.read_text() if self.config_changes.exists() else ""
        line = json.dumps({"step": step, "changes": changes})
        write_text(self.config_changes, f"{history}{line}\n")
        for name, (old, new) in changes.items():
            print(f"From step {step} on, {name} is {new!r}; it was {old!r}", flush=True)


def is_lead() -> bool:
    """Whether this is the process of a job that writes files; the only one of most."""
    # A process without JAX is part of no distributed job, and need not import it to find out.
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def write_bytes(path: storage.Path, content: bytes) -> None:
    """Writes `content` so that a reader sees the old file or the whole new one.

    Only the lead process writes; the others of a job return at once.
    """
    if not is_lead():
        return
    if storage.is_bucket(path):
        path.write_bytes(content)  # whole by itself
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: storage.Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: storage.Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: storage.Path, last: str) -> Iterator[pathlib.Path]:
    """Gives a folder on a disk to fill, which becomes `path` when the block ends without an error.

    A process that is killed in between leaves no `path`; in a bucket, none that has `last`.

    Args:
      path: the folder to make.
      last: the file in it that readers ask for first, which arrives last in a bucket.

    Raises:
      ValueError: `path` exists already.
    """
    if (path / last if storage.is_bucket(path) else path).exists():
        raise ValueError(f"{path} is there already; choose another folder")
    if storage.is_bucket(path):
        with tempfile.TemporaryDirectory() as partial:
            yield pathlib.Path(partial)
            storage.upload(pathlib.Path(partial), path, last)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's is for its maker alone
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lock(workdir: storage.Path) -> None:
    """Holds `<workdir>/.lock` until this process ends, however it ends.

    Raises:
      ValueError: another process holds it.
    """
    path = workdir.resolve() / ".lock"
    if storage.is_bucket(path):
        if path not in _leases:
            _leases[path] = Lease(path)
        return
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
    _leases.clear()


os.register_at_fork(after_in_child=_drop_locks)
