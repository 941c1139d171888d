"""Whether a checkpoint is still what was written, and that of this model and tokenizer.

A damaged checkpoint is found here, before it is read: what reads arrays in parallel reports every
array of a broken file at once, and takes some damage for data.
"""

import errno
import functools
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fetalclip_jax import run, storage

_CHUNK_BYTES = 1 << 20
# An ETag differs with the parts that a file was sent in, and with how it is encrypted, too.
_OF_CONTENT = ("crc32c", "md5")
_TELLING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def record(folder: storage.Path) -> None:
    """Writes size and checksum of every file in the folders of `folder` into its `files.json`.

    In a bucket the checksum is the bucket's own, with its kind before it, else it is CRC-32.
    """
    run.write_json(folder / run.RECORDED, _describe_all(folder))


def is_recorded(folder: storage.Path) -> bool:
    return (folder / run.RECORDED).exists()


def damage(folder: storage.Path, part: str = "") -> str | None:
    """What is wrong with the files of `folder`, in a few words; None where nothing is.

    Nothing is known of a folder that was never recorded.

    Args:
      part: a folder in `folder`, to look at that alone.
    """
    if not is_recorded(folder):
        return None
    try:
        recorded = json.loads((folder / run.RECORDED).read_text())
        expected = {name: tuple(recorded[name]) for name in recorded}
    except (ValueError, TypeError):
        return f"{run.RECORDED} is not readable"
    look = _in_bucket(folder) if storage.is_bucket(folder) else functools.partial(_look, folder)
    for name, (size, checksum) in expected.items():
        if part and not name.startswith(f"{part}/"):
            continue
        if found := look(name, size, checksum):
            return found
    return None


def _look(folder: storage.Path, name: str, size: int, checksum: str | int) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} bytes of {size}"
    # A copy of a run in a bucket has checksums of another kind.
    if isinstance(checksum, int) and _describe(path) != [size, checksum]:
        return f"{name} has other content than was written"
    return None


def _in_bucket(folder: storage.BucketPath) -> Callable[[str, int, str | int], str | None]:
    """As `_look`, from one list of what is there."""
    there = folder.listing()

    def look(name: str, size: int, checksum: str | int) -> str | None:
        if name not in there:
            return f"{name} is missing"
        if there[name][0] != size:
            return f"{name} has {there[name][0]} bytes of {size}"
        # A copy of a run on a disk or in a bucket of another service has those of another kind.
        if _kind(checksum) == _kind(there[name][1]) in _OF_CONTENT and checksum != there[name][1]:
            return f"{name} has other content than was written"
        return None

    return look


def _kind(checksum: str | int) -> str:
    return str(checksum).partition(":")[0]


def check_finite(tree: Any) -> None:
    """Raises ValueError where a number is NaN or infinite: no run saves such a state."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        # In NumPy: a compilation for every shape would take longer than looking.
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0 and not np.isfinite(np.asarray(shard.data)).all():
                raise ValueError(f"{jax.tree_util.keystr(path)} holds numbers that are not finite")


def read_json(item: storage.Path) -> dict[str, Any]:
    """An item saved as JSON; empty where it cannot be read."""
    try:
        content = json.loads((item / "metadata").read_text())
    except storage.BucketError:
        raise
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_tokenizer(folder: storage.Path, fingerprint: str) -> None:
    """Raises ValueError where a checkpoint is of a model with another tokenizer."""
    there = read_json(folder / "progress").get("tokenizer")
    if fingerprint and there and there != fingerprint:
        raise ValueError(
            f"{folder} was trained with the tokenizer of fingerprint {there[:12]}, and "
            f"{folder.parent.parent / 'tokenizer'} has {fingerprint[:12]}: put back the tokenizer "
            "folder of that run"
        )


def check_position(folder: storage.Path, step: int) -> None:
    """Raises ValueError where the data position is that of another step."""
    position = read_json(folder / "data")  # empty in checkpoints of earlier versions
    if position and position.get("step") != step:
        raise ValueError(f"state of step {step}, data position of step {position.get('step')}")


def check_shapes(item: storage.Path, there: Any, abstract: Any, noun: str) -> None:
    """Raises ValueError where the arrays of a checkpoint are not those of the model or optimizer.

    Args:
      item: where they are.
      there: tree of what has shapes, in the checkpoint.
      abstract: the same, as the configuration describes it.
      noun: what it describes.
    """
    found, wanted = _shapes(there), _shapes(abstract)
    differing = [
        f"{name}: {found.get(name, 'none')} there, {wanted.get(name, 'none')} in the {noun}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise ValueError(
            f"the {'parameters' if noun == 'model' else 'arrays'} in {item} do not fit the {noun} "
            "described by config.json: "
            f"{'; '.join(differing[:3])}{' ...' if len(differing) > 3 else ''}"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    # Orbax gives lists and dictionaries for the tuples, with names and without, that it saved.
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def reason(error: BaseException) -> str:
    """The first cause of an error, short."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    for number in _TELLING:  # what reads and writes arrays puts much around it
        if os.strerror(number) in text:
            return os.strerror(number)
    return _short(text) if type(error) is ValueError else f"{type(error).__name__}: {_short(text)}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:160] + "..."


def _describe_all(folder: storage.Path) -> dict[str, list]:
    # Not those of `folder` itself: Orbax goes on writing them, and does without them.
    if storage.is_bucket(folder):
        return {name: list(found) for name, found in folder.listing().items() if "/" in name}
    paths = (path for path in sorted(folder.glob("*/**/*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): _describe(path) for path in paths}


def _describe(path: storage.Path) -> list[int]:
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return [size, checksum]
