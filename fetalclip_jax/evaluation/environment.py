"""Software and hardware that a result was made with."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import fetalclip_jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_GIT_SECONDS = 10


def describe() -> dict[str, Any]:
    """What a reader needs to judge whether a result can be had again; JSON-able.

    Keys: `date` (of the day in UTC, ISO 8601), `python`, `platform`, `packages` (name -> version),
    `commit` (None if the package does not lie in a checkout; "+" ends that of a changed one),
    `backend`, `devices` (kind -> count over all processes), `processes`, `processor`, `cores` (that
    this process may use) and `memory_gib`. What the machine does not tell is None.
    """
    devices = [device.device_kind for device in jax.devices()]
    versions = {"fetalclip_jax": fetalclip_jax.__version__}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "commit": _commit(pathlib.Path(fetalclip_jax.__file__).resolve().parents[1]),
        "backend": jax.default_backend(),
        "devices": {kind: devices.count(kind) for kind in dict.fromkeys(devices)},
        "processes": jax.process_count(),
        "processor": _processor(pathlib.Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
    }


def _commit(folder: pathlib.Path) -> str | None:
    """The commit of a checkout whose top is `folder`; of one around an installed package, none."""
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.SubprocessError):  # no git here, or a folder it refuses
        return None


def _processor(cpuinfo: pathlib.Path) -> str | None:
    """The name its maker gave it; `platform.processor` says no more than the architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or None)


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round(size / 2**30, 1)
