"""Folders and files, on a disk or in a bucket: `gs://bucket/folder` and `s3://bucket/folder`.

A path on a disk is a `pathlib.Path`, one in a bucket a `BucketPath`, which has the same methods.
"""

from fetalclip_jax.storage.bucket import BucketPath
from fetalclip_jax.storage.copies import local_copy
from fetalclip_jax.storage.paths import Path, is_bucket, path
from fetalclip_jax.storage.retrying import BucketError, is_outage
from fetalclip_jax.storage.transfer import Spool, rmtree, upload

__all__ = [
    "BucketError",
    "BucketPath",
    "Path",
    "Spool",
    "is_bucket",
    "is_outage",
    "local_copy",
    "path",
    "rmtree",
    "upload",
]
