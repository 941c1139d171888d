"""Compiled steps, each kept by what decides over it, so that none is compiled twice."""

import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from importlib import metadata

from ml_collections import ConfigDict

import fetalclip_jax
from fetalclip_jax import compilation_cache
from fetalclip_jax.config import flatten, save_config
from fetalclip_jax.planning import libtpu
from fetalclip_jax.planning.chips import Topology
from fetalclip_jax.planning.compiled import Compiled
from fetalclip_jax.run import write_json

# Fields that a compiled step does not depend on begin with these, unless they are listed below.
_NOT_COMPILED = ("data.", "captions.", "augment.", "tokenizer.", "init_from", "train.")
_COMPILED = ("train.steps", "train.global_batch_size", "train.micro_batches", "train.ema_decay")
# What the compiled step is made of.
_CODE = ("losses", "models", "parallel", "training", "planning/compiled.py", "planning/worker.py")


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for.

    Attributes:
      topology: of TPUs; None for simulated CPU devices.
      devices: how many.
    """

    topology: Topology | None
    devices: int

    def __str__(self) -> str:
        return str(self.topology) if self.topology else f"{self.devices} simulated devices"


def get(config: ConfigDict, target: Target, folder: pathlib.Path | None = None) -> Compiled:
    """The compiled step of `config`, from the store, or compiled and stored.

    Args:
      folder: of the store; None for this package's folder under `~/.cache`.

    Raises:
      ValueError: a configuration that cannot work; no libtpu, or another version than jax asks
        for; a compiler that failed.
    """
    kept = find(config, target, folder)
    if kept is not None:
        return kept
    if target.topology is not None:
        libtpu.check()
    # Code that is changed while it is compiled is not what was compiled.
    path, identity = _path(config, target, folder), _identity(config, target)
    found = _compile(config, target)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = dataclasses.asdict(found)
        text = fields.pop("text")
        path.with_suffix(".hlo.gz").write_bytes(gzip.compress(text.encode()))
        write_json(path, fields | {"of": identity})
    return found


def find(config: ConfigDict, target: Target, folder: pathlib.Path | None = None) -> Compiled | None:
    """The stored step; None where it was not compiled yet."""
    path = _path(config, target, folder)
    if path is None or not path.exists():
        return None
    fields = json.loads(path.read_text())
    fields.pop("of")
    text = gzip.decompress(path.with_suffix(".hlo.gz").read_bytes()).decode()
    return _read(fields | {"text": text})


def _path(config, target, folder) -> pathlib.Path | None:
    if folder is None:
        kept = compilation_cache.folder()
        folder = None if kept is None else kept / "plans"
    if folder is None:
        return None
    said = json.dumps(_identity(config, target), sort_keys=True)
    return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"


def _identity(config: ConfigDict, target: Target) -> dict:
    """What decides over a compiled step."""
    fields = {
        name: value
        for name, value in flatten(config).items()
        if name in _COMPILED or not name.startswith(_NOT_COMPILED)
    }
    packages = ("jax", "jaxlib", "flax", "optax", *(("libtpu",) if target.topology else ()))
    return {
        "config": fields,
        "target": str(target),
        "versions": {name: _version(name) for name in packages},
        "code": _code(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _code() -> str:
    root, digest = pathlib.Path(fetalclip_jax.__file__).parent, hashlib.sha256()
    for name in _CODE:
        place = root / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(config: ConfigDict, target: Target) -> Compiled:
    command = [sys.executable, "-m", "fetalclip_jax.planning.worker"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        save_config(config, folder / "config.json")
        ended = subprocess.run(
            [*command, name, *([str(target.topology)] if target.topology else [])],
            env=_environment(target),
            capture_output=True,
            text=True,
        )
        result = folder / "result.json"
        said = json.loads(result.read_text()) if result.exists() else {}
    if "error" in said:
        raise ValueError(said["error"])
    if ended.returncode or not said:
        lines = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
        raise ValueError(f"compiling for {target} failed: {lines[-1]}")
    return _read(said)


def _read(fields: dict) -> Compiled:
    needed = fields.pop("needed")
    return Compiled(**fields, needed=tuple(needed) if needed else None)


def _environment(target: Target) -> dict[str, str]:
    environment = dict(os.environ, JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="3")
    # Programs for devices that are not there cannot be read back from JAX's own cache.
    environment["JAX_COMPILATION_CACHE_DIR"] = ""
    if target.topology is not None:
        return environment | libtpu.ENVIRONMENT
    flags = environment.get("XLA_FLAGS", "").split()
    others = [flag for flag in flags if "force_host_platform_device_count" not in flag]
    count = f"--xla_force_host_platform_device_count={target.devices}"
    return environment | {"XLA_FLAGS": " ".join([*others, count])}
