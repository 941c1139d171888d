"""Copies of what lies in buckets on this host's disk, made once, for what reads files in parts.

    $FETALCLIP_CACHE, or ~/.cache/fetalclip_jax/buckets
        <digest of the address and of what lies there>/<name>

An object that changes has another digest, and is copied anew.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from fetalclip_jax.storage import retrying, transfer
from fetalclip_jax.storage.bucket import BucketPath
from fetalclip_jax.storage.paths import Path, is_bucket

_VARIABLE = "FETALCLIP_CACHE"


def local_copy(path: Path) -> pathlib.Path:
    """A file or folder as it is, on a disk of this host; `path` itself where it is on one.

    Whichever process comes first makes the copy, and the others of the host wait for it. It
    appears under its name when it is whole.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: no room for it, or it changed while it was copied.
      BucketError: it cannot be read.
    """
    if not is_bucket(path):
        return path
    listing = path.listing()
    if not listing:
        raise retrying.missing(str(path))
    identity = repr((str(path), sorted(listing.items())))
    folder = _root() / hashlib.sha256(identity.encode()).hexdigest()[:24]
    copy = folder / path.name
    if copy.exists():
        return copy
    with _made_by_one(folder):
        if not copy.exists():
            _copy(path, listing, copy)
    return copy


def _copy(path: BucketPath, listing: dict[str, tuple[int, str]], copy: pathlib.Path) -> None:
    size = sum(size for size, _ in listing.values())
    room = shutil.disk_usage(copy.parent).free
    if size > room:
        raise ValueError(
            f"{path} has {size / 2**30:.1f} GiB, and {copy.parent.parent} room for "
            f"{room / 2**30:.1f}: set {_VARIABLE} to a folder on a larger disk"
        )
    partial = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=copy.parent))
    try:
        transfer.download(path, partial / path.name)
        # Else what was written in the meantime would be kept as what was there before.
        if path.listing() != listing:
            raise ValueError(f"{path} changed while it was copied; try again")
        (partial / path.name).rename(copy)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _root() -> pathlib.Path:
    if os.environ.get(_VARIABLE):
        return pathlib.Path(os.environ[_VARIABLE])
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "fetalclip_jax" / "buckets"


@contextlib.contextmanager
def _made_by_one(folder: pathlib.Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}): set {_VARIABLE} to a folder for "
            "copies of what lies in buckets"
        ) from error
    try:
        with contextlib.suppress(OSError):  # a disk without locks: then each makes its own
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
