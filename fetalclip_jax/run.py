"""A run's folder: where everything in it lies, whose it is, and how its files are written.

<workdir>/config.json     the resolved configuration
          records/<split> prepared data (ArrayRecord)
          tokenizer/      the vocabulary the model was trained with
          checkpoints/    parameters, optimiser state, data position
          metrics.jsonl, tensorboard/, results/, report.html, results.json
"""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fetalclip_jax.config import flatten, load_config, save_config

# May differ between a run and its continuation: they choose machines and habits, not results.
_FREE_FIELDS = ("data.workers", "data.root", "train.checkpoint_every", "train.log_every")
_FREE_PREFIXES = ("mesh.", "evaluation.")


def claim_workdir(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Marks `workdir` as this experiment's, or checks that it already is.

    Only a checkpoint binds a folder: before the first one a mistaken field can be put right.

    Raises:
      ValueError: it holds another experiment; names the fields that differ.
    """
    path = workdir / "config.json"
    trained = any(p.name.isdigit() for p in (workdir / "checkpoints").glob("*"))
    if not path.exists():
        if trained:
            raise ValueError(
                f"{workdir} holds checkpoints but no config.json, so it is not known what they "
                "are; choose another --workdir"
            )
        workdir.mkdir(parents=True, exist_ok=True)
        save_config(config, path)
        return
    old, new = flatten(load_config(path)), flatten(config)
    differing = [
        f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
        and name not in _FREE_FIELDS
        and not name.startswith(_FREE_PREFIXES)
    ]
    if differing and trained:
        raise ValueError(
            f"{workdir} holds another experiment; choose another --workdir or delete it.\n  "
            + "\n  ".join(differing)
        )
    if differing:
        shutil.rmtree(workdir / "tokenizer", ignore_errors=True)
    save_config(config, path)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes `content` so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
