"""From what a user writes to a path."""

import os
import pathlib
import re

from etils import epath

from fetalclip_jax.storage.bucket import SCHEMES, BucketPath

# What `path` gives; type hints name it.
Path = pathlib.Path | epath.Path


def path(name: str | os.PathLike) -> Path:
    """A `pathlib.Path`, or a `BucketPath` for what begins with gs:// or s3://, or GS:// or S3://.

    Raises:
      ValueError: another scheme, no bucket, or an address that has lost one of its slashes.
    """
    text = os.fspath(name)
    scheme, slashes, rest = re.match(
        r"(?:([A-Za-z][A-Za-z0-9]+):(/+))?(.*)", text, re.DOTALL
    ).groups()
    scheme = scheme and scheme.lower()
    if scheme is None or (scheme not in SCHEMES and slashes == "/"):
        return pathlib.Path(text)
    if scheme not in SCHEMES:
        known = " and ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"{text}: known are folders on disks, and buckets as {known}")
    if slashes != "//" or not rest:
        raise ValueError(f"{text} is no bucket; write {scheme}://BUCKET/FOLDER")
    return BucketPath(f"{scheme}://{rest.rstrip('/')}")


def is_bucket(path: Path) -> bool:
    return isinstance(path, BucketPath)
