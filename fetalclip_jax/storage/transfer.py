"""Files and folders on their way to a bucket, and from it."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
import weakref
from concurrent import futures

from fetalclip_jax.storage.bucket import BucketPath
from fetalclip_jax.storage.paths import Path, is_bucket

# Requests on their way at once.
_AT_ONCE = 8


def upload(folder: pathlib.Path, target: BucketPath, last: str) -> None:
    """Copies a folder to a bucket; the file `last`, which readers look for, when all else is there.

    Raises:
      BucketError: it cannot be written.
    """
    names = _names(folder)
    assert last in names, last
    names.remove(last)
    _each(lambda name: (target / name).upload_from(folder / name), names)
    (target / last).upload_from(folder / last)


def download(path: BucketPath, target: pathlib.Path) -> None:
    """Copies an object, or all below a name, to a disk.

    Raises:
      BucketError: it cannot be read.
    """
    listing = path.listing()
    _each(lambda name: _get(path / name, target / name, listing[name][0]), list(listing))


def rmtree(path: Path) -> None:
    """Deletes a folder and what is in it, where it is there."""
    if is_bucket(path):
        path.rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


class Spool:
    """A folder that is appended to: on a disk the folder itself, else one that is uploaded.

    Objects cannot be appended to, so the files grow on this host's disk, and go to the bucket now
    and then and when asked. What was there before is left as it is, or fetched by `fetch`.

    Attributes:
      folder: where to write.
    """

    def __init__(self, target: Path, *, every_s: float = 60.0):
        self._target, self._every_s, self._synced_at = target, every_s, time.monotonic()
        self._sent: dict[str, tuple[int, int]] = {}
        if not is_bucket(target):
            self.folder = target
            return
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fetalclip-spool-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def fetch(self, name: str) -> pathlib.Path:
        """The file of that name to write on, with what it held before; it need not exist."""
        path = self.folder / name
        if is_bucket(self._target) and not path.exists():
            with contextlib.suppress(FileNotFoundError):
                path.write_bytes((self._target / name).read_bytes())
        return path

    def sync(self, *, now: bool = True) -> None:
        """Sends what is new to the bucket.

        Args:
          now: though the last time is less than `every_s` ago.
        """
        if not is_bucket(self._target):
            return
        if not now and time.monotonic() - self._synced_at < self._every_s:
            return
        self._synced_at = time.monotonic()
        for name in _names(self.folder):
            status = (self.folder / name).stat()
            identity = (status.st_size, status.st_mtime_ns)
            if self._sent.get(name) != identity:
                (self._target / name).upload_from(self.folder / name)
                self._sent[name] = identity


def _get(path: BucketPath, target: pathlib.Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.download_to(target)
    found = target.stat().st_size
    if found != size:
        raise ValueError(f"{path} changed while it was copied ({found} bytes of {size}); try again")


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
    )


def _each(action, names: list[str]) -> None:
    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(action, names):
            pass
