"""What is done about a bucket's errors: some are tried again, the others end as one line."""

import errno
import functools
import logging
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")

# The libraries below try a request again by themselves, for about half a minute.
_ATTEMPTS = 4
_FIRST_WAIT_S = 1.0
_REFUSED = (401, 403)
# TensorStore, which reads and writes arrays by itself, says so by these.
_OUT_OF_REACH = (
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED"),
)
_LOGGED = ("gcsfs", "s3fs", "fsspec")

# What to do about each bucket that refuses or is not there.
_SIGN_IN = {
    "gs": (
        "sign in (gcloud auth application-default login) as an account with "
        "roles/storage.objectUser and roles/storage.legacyBucketReader on it"
    ),
    "s3": (
        "give credentials (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) that may "
        "get, put, list and delete its objects"
    ),
}


class BucketError(OSError):
    """A bucket that refuses, is not there or does not answer, in one line."""

    def __init__(self, line: str):
        super().__init__(errno.EIO, line)

    def __str__(self) -> str:
        return self.strerror


def call(what: str, path: str, function: Callable[..., _Result], *arguments, **options) -> _Result:
    """What `function` gives; it is called again, after a pause, where trying again can help.

    Args:
      what: is done, such as "read".
      path: with its scheme.

    Raises:
      FileNotFoundError: there is no such object.
      FileExistsError: there is one already, or another than was to be replaced.
      BucketError: the bucket refuses, is not there, or fails every time.
    """
    quieten()
    for attempt in range(_ATTEMPTS):
        try:
            return function(*arguments, **options)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except FileNotFoundError as error:
            if what != "write":
                raise missing(path) from error
            raise BucketError(_no_bucket(path)) from error
        except Exception as error:  # of the system, aiohttp, botocore, gcsfs, by what is wrong
            if _is_unmet(error):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
            if _is_refusal(error):
                raise BucketError(_refused(what, path, error)) from error
            if attempt + 1 == _ATTEMPTS:
                raise BucketError(
                    f"{_bucket(path)} does not answer: to {what} {path} failed {_ATTEMPTS} times, "
                    f"at last with {_short(error)}; run the same command again when it does"
                ) from error
        # At random, so that the processes of a job do not come back all at once.
        time.sleep(_FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def is_outage(error: BaseException | None) -> bool:
    """Whether it says that a bucket is out of reach, and nothing of what lies there."""
    while error is not None:
        if isinstance(error, BucketError) or any(word in str(error) for word in _OUT_OF_REACH):
            return True
        error = error.__cause__ or error.__context__
    return False


def missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


@functools.cache
def quieten() -> None:
    """Keeps the libraries from logging each failed request: what is final is said here."""
    for name in _LOGGED:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _is_unmet(error: Exception) -> bool:
    """Whether a condition on what is there did not hold, as s3fs says it."""
    answer = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code") in ("PreconditionFailed", "412")


def _is_refusal(error: Exception) -> bool:
    code = getattr(error, "code", None)
    return (
        isinstance(error, PermissionError)
        or (str(code).isdigit() and int(code) in _REFUSED)
        or str(error).startswith("Forbidden")  # of gcsfs
        or type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError")
    )


def _refused(what: str, path: str, error: Exception) -> str:
    return (
        f"{_bucket(path)} refuses to {what} {path} ({_short(error)}): "
        f"{_SIGN_IN[path.partition(':')[0]]}, or name another bucket"
    )


def _no_bucket(path: str) -> str:
    return f"{_bucket(path)} does not exist (to write {path}): make the bucket, or correct its name"


def _bucket(path: str) -> str:
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:120] + "..."
