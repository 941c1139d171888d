"""Checkpoints in buckets: what Orbax needs there, and what is done where it cannot write there.

Orbax writes and reads gs:// itself, each process its own part. It knows no s3://: there the lead
writes on its disk, and what is finished is copied.
"""

import concurrent.futures
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import jax

from fetalclip_jax import storage
from fetalclip_jax.run import RECORDED, Run
from fetalclip_jax.training import integrity, retention


def is_written_by_orbax(path: storage.Path) -> bool:
    """Whether Orbax can write and read there."""
    return not storage.is_bucket(path) or path.as_posix().startswith("gs://")


def readable(folder: storage.Path) -> storage.Path:
    """A checkpoint where Orbax can read it: a copy, where it cannot in the bucket."""
    if not storage.is_bucket(folder):
        return folder
    if is_written_by_orbax(folder) and (folder / retention.COMMITTED).is_file():
        return folder
    return storage.local_copy(folder)


def adopt(checkpoints: storage.Path) -> None:
    """Marks those that are whole as Orbax marks its own.

    They were copied from a disk, or their process was killed just before it would have done so.
    """
    if not storage.is_bucket(checkpoints) or not is_written_by_orbax(checkpoints):
        return
    for step in Run(checkpoints.parent).steps():
        folder = checkpoints / str(step)
        if (folder / retention.COMMITTED).is_file() or integrity.damage(folder):
            continue
        names = set(folder.listing())
        for item in {name.split("/")[0] for name in names if "/" in name}:
            if f"{item}/{retention.COMMITTED}" not in names:  # what is there was recorded
                (folder / item / retention.COMMITTED).write_bytes(b"")
        (folder / retention.COMMITTED).write_bytes(b"")


class Mirror:
    """A folder of checkpoints on this host's disk, and the one in a bucket that follows it.

    Raises:
      ValueError: several processes, whose disks do not hold each other's parts.
    """

    def __init__(self, target: storage.BucketPath):
        if jax.process_count() > 1:
            raise ValueError(
                f"{target}: {jax.process_count()} processes cannot write checkpoints to s3:// "
                "together; use gs://, or a disk that all hosts share"
            )
        self._target = target
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fetalclip-checkpoints-"))
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoint upload")
        self._sent = concurrent.futures.Future()
        self._sent.set_result(None)
        retention.remove_half_written(target)
        for step in Run(target.parent).steps():
            shutil.copytree(storage.local_copy(target / str(step)), self.folder / str(step))

    def send(self, finished: Callable[[], None]) -> None:
        """Copies in the background what is new, once `finished` returns, and deletes what is gone.

        Args:
          finished: waits until what is being written is on the disk.
        """
        self._sent = self._pool.submit(self._send, finished)

    def wait(self) -> None:
        """Until all is sent; raises what made it fail, once."""
        sent, self._sent = self._sent, concurrent.futures.Future()
        self._sent.set_result(None)
        sent.result()

    def set_aside(self, step: int, name: str) -> None:
        (self._target / str(step)).rename(self._target / name)

    def close(self) -> None:
        self._pool.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, finished: Callable[[], None]) -> None:
        finished()
        here = {path.name for path in self.folder.iterdir() if path.name.isdigit()}
        there = {str(step) for step in Run(self._target.parent).steps()}
        for step in sorted(here - there, key=int):
            storage.upload(self.folder / step, self._target / step, RECORDED)
        for step in there - here:
            # First what makes it one: a checkpoint that is half deleted is none.
            (self._target / step / RECORDED).unlink(missing_ok=True)
            (self._target / step).rmtree(missing_ok=True)
