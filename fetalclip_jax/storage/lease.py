"""Who works in a folder of a bucket: an object there that its holder renews while it lives."""

import atexit
import contextlib
import json
import os
import pathlib
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
# Between writing a lease and believing in it.
_SETTLES_S = 1.0


class Lease:
    """Holds an object until this process ends, however it ends.

    Two processes that start at one time cannot both have it: each writes it only in place of what
    it read, and reads it again after a pause. Where one does not reach the bucket for longer than a
    lease lasts, another can take it over; the one that lost it says so.

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
        # Whether any other that is there has written after it was looked at, and so is at work.
        rival = False
        first = since = None
        while True:
            holder, version = self._holder()
            # From the first look on, however long that took.
            since = since or time.monotonic()
            if holder.get("token") == self._token:
                return
            if holder and (rival or not _is_gone(holder, time.monotonic() - since)):
                first = first or holder
                if rival or _runs_here(holder) or first != holder:
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
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                self._write(version)
                # Where the service knows no conditions, the last of several writers has it.
                time.sleep(_SETTLES_S)
            rival = True

    def _write(self, version: str | None) -> None:
        """In place of what `_holder` read, and of nothing else."""
        if version is None:
            self._path.create(self._content())
        else:
            self._path.replace_version(self._content(), version)

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED_EVERY_S):
            # The next time may come in time.
            with contextlib.suppress(BucketError, FileNotFoundError, FileExistsError):
                holder, version = self._holder()
                if holder.get("token") not in (self._token, None):
                    print(
                        f"{self._path.parent} was taken over by {_words(holder)}, for this "
                        "process did not reach the bucket: end one of them",
                        flush=True,
                    )
                    return
                self._write(version)

    def _holder(self) -> tuple[dict[str, Any], str | None]:
        """What the object says, empty where it says nothing, and its version or an earlier one."""
        version = self._path.version()
        if version is None:
            return {}, None
        try:
            content = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}, version
        return (content if isinstance(content, dict) else {}), version

    def _content(self) -> bytes:
        content = {
            "token": self._token,
            "process": self._process,
            "started": _started(self._process),
            "host": socket.gethostname(),
            "system": _system(),
            "time": time.time(),
        }
        return json.dumps(content).encode()


def _is_gone(holder: dict[str, Any], watched_s: float) -> bool:
    """Whether a holder, which is not this process, has ended, as far as can be known from here."""
    # Twice, for clocks differ; what was watched itself needs no clock of others.
    if watched_s > _LASTS_S or time.time() - holder.get("time", 0) > 2 * _LASTS_S:
        return True
    return _is_of_here(holder) and not _runs_here(holder)


def _is_of_here(holder: dict[str, Any]) -> bool:
    """Whether its process number means here what it meant there."""
    return (holder.get("host"), holder.get("system")) == (socket.gethostname(), _system())


def _runs_here(holder: dict[str, Any]) -> bool:
    # A container that is started again has the host's name and the number of the one before it.
    if not _is_of_here(holder) or holder["process"] == os.getpid():
        return False
    try:
        os.kill(holder["process"], 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Else its number is that of another process by now.
    started = _started(holder["process"])
    return started is None or started == holder["started"]


def _system() -> str:
    """Which numbering of processes this one is in: the boot and the container. "" if unknown."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str | None:
    """When a process started, in ticks since the boot; None where the system does not say."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]


def _words(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}"
