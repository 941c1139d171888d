"""Paths in buckets."""

import contextlib
import dataclasses
import fnmatch
import io
import os
import pathlib
import posixpath
import shutil
from collections.abc import Iterator
from typing import Any

from etils import epath
from etils.epath import gpath

from fetalclip_jax.storage import retrying

# Scheme -> what it needs that is not installed by default.
SCHEMES = {"gs": "gcs", "s3": "s3"}
# A file above this size is read in parts of it.
_PART_BYTES = 32 << 20
# The version of an object that is not there, as Google calls it.
_NONE = "0"


@dataclasses.dataclass(frozen=True)
class Status:
    """What is known of an object, by the names of `os.stat_result`."""

    st_size: int
    st_mtime_ns: int
    is_directory: bool

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9

    @property
    def length(self) -> int:  # as etils calls it
        return self.st_size

    @property
    def mtime(self) -> int:  # as etils calls it
        return int(self.st_mtime)


@epath.register_path_cls(tuple(f"{scheme}://" for scheme in SCHEMES))
class BucketPath(gpath.PosixGPath):
    """A path in a bucket, with the methods of `pathlib.Path` that this package uses.

    What lies in a bucket are objects with long names; a folder is what their names have in common.
    So there is no empty folder, `mkdir` does nothing, and `rename` copies. Each object is written
    whole or not at all, and at once for all who read it. Every request is tried again where that
    can help (`retrying`). Libraries that use `epath` get this class for such names, too.
    """

    def filesystem(self) -> Any:
        """That of fsspec for the scheme.

        Raises:
          ValueError: it is not installed.
        """
        scheme = self._uri_scheme
        # One plain request for each question, and what others wrote is seen at once.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            import fsspec

            retrying.quieten()
            # fsspec keeps one for each process: an own one would not survive a fork.
            return fsspec.filesystem(scheme, use_listings_cache=False)
        except ImportError as error:
            raise ValueError(
                f"{self}: buckets of {scheme}:// need a package that is not installed: "
                f"pip install 'fetalclip_jax[{SCHEMES[scheme]}]'"
            ) from error

    def listing(self) -> dict[str, tuple[int, str]]:
        """Every object below it: name relative to it -> (bytes, what changes with its content).

        The latter is "<kind>:<value>", of the kinds crc32c, md5 and etag.
        """
        found = self._call("list", "find", detail=True)
        return {
            posixpath.relpath(name, self.name_in_bucket): (int(info["size"]), _version(info))
            for name, info in sorted(found.items())
            if not _is_placeholder(info)
        }

    # ---- reading

    def _info(self) -> dict[str, Any] | None:
        try:
            return self._call("look at", "info")
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        return self._info() is not None

    def is_dir(self) -> bool:
        info = self._info()
        return info is not None and info["type"] == "directory"

    def is_file(self) -> bool:
        info = self._info()
        return info is not None and info["type"] == "file"

    def stat(self) -> Status:
        """
        Raises:
          FileNotFoundError: there is nothing of that name.
        """
        info = self._call("look at", "info")
        time = info.get("mtime") or info.get("LastModified")
        return Status(
            int(info.get("size") or 0),
            int(time.timestamp() * 1e9) if time is not None else 0,
            info["type"] == "directory",
        )

    def iterdir(self) -> Iterator["BucketPath"]:
        try:
            found = self._call("list", "ls", detail=True)
        except FileNotFoundError:
            return
        for info in found:
            name = info["name"].rstrip("/")
            if name != self.name_in_bucket:
                yield self / posixpath.basename(name)

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """What lies below it under names of that pattern; "**" is any number of folders."""
        wanted = pattern.split("/")
        if len(wanted) == 1:
            yield from (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
            return
        names = set()
        for name in self.listing():
            parts = name.split("/")
            names |= {"/".join(parts[: end + 1]) for end in range(len(parts))}
        yield from (self / name for name in sorted(names) if _matches(name.split("/"), wanted))

    def rglob(self, pattern: str) -> Iterator["BucketPath"]:
        yield from self.glob(f"**/{pattern}")

    def read_bytes(self) -> bytes:
        return self._call("read", "cat_file")

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(
        self,
        mode: str = "r",
        *,
        encoding: str | None = None,
        newline: str | None = None,
        **_: Any,
    ) -> Any:
        """A file; what is written appears when it is closed without an error."""
        if mode.replace("b", "") == "r":
            raw = self._reader()
        else:
            raw = _Writer(self, self.read_bytes() if "a" in mode and self.exists() else b"")
        if "b" in mode:
            return raw
        return _Text(raw, encoding=encoding or "utf-8", newline=newline)

    def _reader(self) -> io.BufferedIOBase:
        if self.stat().st_size <= _PART_BYTES:
            return io.BytesIO(self.read_bytes())
        return io.BufferedReader(_Parts(self), _PART_BYTES)

    # ---- writing

    def write_bytes(self, data: bytes) -> int:
        self._put(bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, **_: Any) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def create(self, data: bytes) -> None:
        """Writes it only where there is no such object, of any number of writers for one alone.

        Raises:
          FileExistsError: there is one.
        """
        self._put(bytes(data), version=_NONE)

    def version(self) -> str | None:
        """What `replace_version` asks for; None where there is no such object."""
        info = self._info()
        return (
            None
            if info is None
            else str(info["ETag" if self._uri_scheme == "s3" else "generation"])
        )

    def replace_version(self, data: bytes, version: str) -> None:
        """Writes it only where it still is what `version` gave.

        Services that know no such condition write it in any case.

        Raises:
          FileExistsError: it is another by now.
          FileNotFoundError: it is gone.
        """
        self._put(bytes(data), version=version)

    def upload_from(self, file: pathlib.Path) -> None:
        """Writes what a file on this host's disk holds."""
        if file.stat().st_size <= _PART_BYTES:
            self._put(file.read_bytes())
            return
        put = self.filesystem().put_file
        retrying.call("write", str(self), put, str(file), self.name_in_bucket)

    def download_to(self, file: pathlib.Path) -> None:
        """Writes it to this host's disk."""
        with file.open("wb") as written:
            shutil.copyfileobj(self._reader(), written, _PART_BYTES)

    def touch(self, **_: Any) -> None:
        self.write_bytes(b"")

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists():
            raise FileExistsError(f"{self} is there already")

    def unlink(self, missing_ok: bool = False) -> None:
        with contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext():
            self._call("delete", "rm_file")

    def rmtree(self, missing_ok: bool = False) -> None:
        """Deletes every object below it."""
        if not self.exists():
            if missing_ok:
                return
            raise retrying.missing(str(self))
        # Where a try before the last one did delete, nothing is left to find.
        with contextlib.suppress(FileNotFoundError):
            self._call("delete", "rm", recursive=True)

    def rename(self, target: str | os.PathLike) -> "BucketPath":
        """Copies it, a file or a folder, to another name of the same bucket, then deletes it."""
        target = type(self)(target)
        names = ["."] if self.is_file() else list(self.listing())
        for name in names:
            self._call(
                "write", "cp_file", posixpath.normpath(f"{target.name_in_bucket}/{name}"), name=name
            )
        for name in names:
            (self / name).unlink(missing_ok=True)
        return target

    replace = rename

    # ---- names

    def absolute(self) -> "BucketPath":
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def chmod(self, mode: int) -> None:
        """Nothing: who may read an object is the bucket's affair."""

    @property
    def name_in_bucket(self) -> str:
        """As fsspec wants it: with the bucket's name, without the scheme."""
        return "/".join(self.parts[2:])

    def _put(self, data: bytes, *, version: str | None = None) -> None:
        # An object that is gone is no bucket that is gone.
        what = "write" if version in (None, _NONE) else "replace"
        if self._uri_scheme == "s3" or not data:
            mode = "create" if version == _NONE else "overwrite"
            condition = {"IfMatch": version} if what == "replace" else {}
            self._call(what, "pipe_file", data, mode=mode, **condition)
            return
        # gcsfs would put it between other lines, where a last byte "\r" counts as a line's end.
        _, _, bucket, *parts = self.parts
        condition = {} if version is None else {"ifGenerationMatch": version}
        files = self.filesystem()
        retrying.call(
            what,
            str(self),
            files.call,
            "POST",
            files.base.replace("/storage/", "/upload/storage/") + "b/{}/o",
            bucket,
            uploadType="media",
            name="/".join(parts),
            headers={"Content-Type": "application/octet-stream"},
            data=data,
            json_out=True,
            **condition,
        )

    def _call(self, what: str, method: str, *arguments: Any, name: str = ".", **options: Any):
        path = posixpath.normpath(f"{self.name_in_bucket}/{name}")
        function = getattr(self.filesystem(), method)
        shown = f"{self._uri_scheme}://{path}"
        return retrying.call(what, shown, function, path, *arguments, **options)


class _Writer(io.BytesIO):
    """Uploads what was written when it is closed."""

    def __init__(self, path: BucketPath, start: bytes):
        super().__init__()
        self._path = path
        self.write(start)

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            super().close()

    def close(self) -> None:
        if not self.closed:
            try:
                self._path.write_bytes(self.getvalue())
            finally:
                super().close()


class _Text(io.TextIOWrapper):
    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:  # half a file is none
            self.detach().__exit__(kind, error, trace)


class _Parts(io.RawIOBase):
    """A large object, read part by part."""

    def __init__(self, path: BucketPath):
        self._path, self._size, self._at = path, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        part = self._path._call("read", "cat_file", start=self._at, end=end)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _version(info: dict[str, Any]) -> str:
    for kind, name in (
        ("crc32c", "crc32c"),
        ("md5", "md5Hash"),
        ("etag", "ETag"),
        ("etag", "etag"),
    ):
        if info.get(name):
            return f"{kind}:{info[name]}"
    return "none:"


def _is_placeholder(info: dict[str, Any]) -> bool:
    """Whether it stands for a folder, as consoles and other tools make them."""
    return info["type"] == "directory" or info["name"].endswith("/")


def _matches(parts: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_matches(parts[skipped:], wanted[1:]) for skipped in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])
    )
