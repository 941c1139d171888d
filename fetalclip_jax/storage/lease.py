"""Who works in a folder of a bucket: an object there that its holder renews while it lives."""

import atexit
import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import Any

from fetalclip_jax.storage.bucket import BucketPath
from fetalclip_jax.storage.retrying import BucketError

# A holder that has not renewed its lease for so long is gone.
_LASTS_S = 60.0
_RENEWED_EVERY_S = 15.0
_POLL_S = 1.0


class Lease:
    """Holds an object until this process ends, however it ends.

    Two processes that start at one time cannot both create it. Where one does not reach the bucket
    for longer than a lease lasts, another can take it over; the one that lost it says so.

    Args:
      path: of the object.

    Raises:
      ValueError: another process holds it; names that.
      BucketError: the bucket refuses.
    """

    def __init__(self, path: BucketPath):
        self._path, self._token, self._process = path, secrets.token_hex(8), os.getpid()
        self._over = threading.Event()
        self._take()
        threading.Thread(target=self._renew, name="lease", daemon=True).start()
        atexit.register(self.release)

    def release(self) -> None:
        """Lets the next process have it at once."""
        if self._over.is_set() or os.getpid() != self._process:
            return
        self._over.set()
        # At the end of a process there may be no way left to the bucket; then it runs out.
        with contextlib.suppress(Exception):
            files = self._path.filesystem()
            if json.loads(files.cat_file(self._path.name_in_bucket))["token"] == self._token:
                files.rm_file(self._path.name_in_bucket)

    def _take(self) -> None:
        first, since = None, time.monotonic()
        while (holder := self._holder()).get("token") != self._token:
            if holder and not _is_gone(holder, time.monotonic() - since):
                if first is None:
                    first = holder
                if _runs_here(holder) or first != holder:
                    raise ValueError(
                        f"{self._path.parent} is in use by {_words(holder)}; wait for it, or "
                        "choose another --workdir"
                    )
                if first is holder:
                    print(
                        f"{self._path.parent} was in use by {_words(holder)}; waiting up to "
                        f"{_LASTS_S:.0f} s for a sign that it still is",
                        flush=True,
                    )
                time.sleep(_POLL_S)
                continue
            if holder:
                self._path.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                self._path.create(self._content())

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED_EVERY_S):
            with contextlib.suppress(BucketError):  # the next time may come in time
                if self._holder().get("token") not in (self._token, None):
                    print(
                        f"{self._path.parent} was taken over by {_words(self._holder())}, for this "
                        "process did not reach the bucket: end one of them",
                        flush=True,
                    )
                    return
                self._path.write_bytes(self._content())

    def _holder(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def _content(self) -> bytes:
        content = {
            "token": self._token,
            "process": self._process,
            "host": socket.gethostname(),
            "time": time.time(),
        }
        return json.dumps(content).encode()


def _is_gone(holder: dict[str, Any], watched_s: float) -> bool:
    """Whether a holder has ended, as far as can be known from here."""
    # Twice, for clocks differ; what was watched itself needs no clock of others.
    if watched_s > _LASTS_S or time.time() - holder["time"] > 2 * _LASTS_S:
        return True
    return holder["host"] == socket.gethostname() and not _runs_here(holder)


def _runs_here(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["process"], 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _words(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}"
