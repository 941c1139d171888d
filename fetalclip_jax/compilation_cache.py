"""Compiled programs kept between processes: the second one starts in a fraction of the time."""

import hashlib
import os
import pathlib
import platform

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def enable() -> None:
    """Keeps what JAX compiles under `~/.cache/fetalclip_jax`, one folder per kind of processor.

    To be called before JAX is first imported. A `JAX_COMPILATION_CACHE_DIR` that is set already
    stays; set to nothing, it turns the cache off.
    """
    if _VARIABLE in os.environ:
        return
    if (kept := folder()) is not None:
        os.environ[_VARIABLE] = str(kept / "compiled" / _processor())


def folder() -> pathlib.Path | None:
    """Where this package keeps what it can make again; None for a user without a home."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError:  # of a container
        return None
    return pathlib.Path(home) / "fetalclip_jax"


def _processor() -> str:
    """A name that differs where code compiled for one processor may not run on another.

    Homes are shared by unlike nodes on many clusters.
    """
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = sorted(
        {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    )
    digest = hashlib.sha256("\n".join(features or lines).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"
