"""Files of a data set: where they are, which are missing, and when they were changed."""

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from fetalclip_jax import storage


def identities(folder: storage.Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Name -> (size in bytes, time of the last change in ns) of those that are there.

    Nothing is opened: a data set of any size is identified in moments.
    """
    if storage.is_bucket(folder):
        return _identities_in_bucket(folder, names)
    found = {}
    for name in names:
        try:
            status = (folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(status.st_mode):
            found[name] = (status.st_size, status.st_mtime_ns)
    return found


def _identities_in_bucket(
    folder: storage.BucketPath, names: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """As `identities`, by one list; what stands for the time changes with a file's content."""
    there = folder.listing()
    return {
        name: (there[name][0], zlib.crc32(there[name][1].encode()))
        for name in names
        if name in there
    }


def digest(content: Any) -> str:
    """Hexadecimal SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def missing_note(
    missing: Sequence[str], listed: int, folder: storage.Path, what: str = "images"
) -> tuple[str, ...]:
    """What is said of files that are not there; nothing where there are none."""
    if not missing:
        return ()
    return (
        f"{len(missing)} of the {listed} {what} it lists are not in {folder} and are left out "
        f"(first: {missing[0]})",
    )


def describe_folder(root: str | os.PathLike) -> str:
    """What is found at `root`, for an error message."""
    folder = storage.path(root)
    if not os.fspath(root):
        return "no root folder is given"
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return f"{folder} holds {sorted(path.name for path in folder.iterdir())[:5]}"
