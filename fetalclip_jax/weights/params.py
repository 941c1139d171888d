"""Parameters from the tensors of a weight file, each read straight into its place."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from fetalclip_jax.models import presets
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import files
from fetalclip_jax.weights.files import ArrayEntry, WeightFile
from fetalclip_jax.weights.layout import Piece
from fetalclip_jax.weights.positions import resize_image_positions, resize_text_positions

# Bytes of a line of the cache. XLA's CPU client uses memory that starts at a multiple of it as it
# is, without a copy.
_ALIGNMENT = 64
# Share of the tensors from which on a preset is worth a try.
_NEAR = 0.1


def read_params(
    file: WeightFile, config: CLIPConfig, shardings: Any, dtype: Any = None
) -> dict[str, Any]:
    """The parameters of a model, in the given shardings; each process reads only its own parts.

    Args:
      file: the tensors.
      config: the model; its tensors must be those of the file, see `check`.
      shardings: tree of `jax.sharding.Sharding` in the shape of the parameters, or one for all.
      dtype: what to cast to, all but the logit scale and bias, which are then float32; None keeps
        each tensor's own data type.

    Returns:
      Nested dictionaries as `CLIP.init` makes them.

    Raises:
      ValueError: tensors that are missing, unexpected or of another shape, all at once; values
        that are NaN or infinite, counted; an activation that is not the file's.
    """
    file.check_activation(config)
    pieces = file.pieces(config)
    check(file, pieces)
    by_path: dict[tuple[str, ...], list[Piece]] = {}
    for piece in pieces:
        by_path.setdefault(piece.path, []).append(piece)
    not_finite: dict[str, int] = {}
    casts = dict.fromkeys([("logit_scale",), ("logit_bias",)], dtype and np.float32)
    flat = {
        path: _read_leaf(parts, file.entries, where, casts.get(path, dtype), not_finite)
        for (path, parts), where in zip(by_path.items(), _ordered(shardings, by_path), strict=True)
    }
    if not_finite:
        first = next(iter(not_finite))
        kept_as = "" if dtype is None else f" as {np.dtype(dtype)}"
        raise ValueError(
            f"{file.path}: {sum(not_finite.values())} values in {len(not_finite)} tensors are NaN "
            f"or infinite{kept_as}, the first in {first}: every feature would be; use the weights "
            "of an earlier step" + ("" if dtype is None else ", or a wider data type")
        )
    return traverse_util.unflatten_dict(flat)


def _ordered(shardings: Any, by_path: Mapping) -> list[jax.sharding.Sharding]:
    if isinstance(shardings, jax.sharding.Sharding):
        return [shardings] * len(by_path)
    flat = traverse_util.flatten_dict(shardings)
    return [flat[path] for path in by_path]


def _read_leaf(parts: list[Piece], entries, sharding, dtype, not_finite) -> jax.Array:
    first = parts[0]
    dtype = np.dtype(dtype or entries[first.name].dtype)
    shape = list(first.shape)
    if first.select is not None:
        shape.insert(first.select[0], 1 + max(piece.select[1] for piece in parts))
    if first.at:
        shape.insert(0, 1 + max(piece.at[0] for piece in parts))

    def read(index: tuple[slice, ...]) -> np.ndarray:
        bounds = [range(*one.indices(size)) for one, size in zip(index, shape, strict=True)]
        out = _aligned_empty([len(one) for one in bounds], dtype)
        for piece in parts:
            place = piece.place()
            if any(isinstance(p, int) and p not in b for p, b in zip(place, bounds, strict=True)):
                continue
            inner = tuple(
                slice(b.start, b.stop)
                for p, b in zip(place, bounds, strict=True)
                if not isinstance(p, int)
            )
            part = piece.read(entries[piece.name], inner)
            where = tuple(
                p - b.start if isinstance(p, int) else slice(None)
                for p, b in zip(place, bounds, strict=True)
            )
            target = out[(*where, ...)]
            # What does not fit a narrower data type is counted below.
            with np.errstate(over="ignore"):
                fill(target, part)
            bad = target.size - int(np.count_nonzero(np.isfinite(target)))
            if bad:
                not_finite[piece.name] = not_finite.get(piece.name, 0) + bad
        return out

    # Devices that hold the same part ask for it one after another.
    parts_read: dict[tuple, np.ndarray] = {}

    def read_once(index: tuple[slice, ...]) -> np.ndarray:
        key = tuple(one.indices(size) for one, size in zip(index, shape, strict=True))
        if key not in parts_read:
            parts_read[key] = read(index)
        return parts_read[key]

    return jax.make_array_from_callback(tuple(shape), sharding, read_once)


def fill(out: np.ndarray, part: np.ndarray) -> None:
    """`out[...] = part`, several times faster where `part` is a large transpose.

    A line of the cache holds a few neighbours of `out` and as many of `part`; writing whole rows
    of `out` would fetch each line of `part` again for every one of them.
    """
    strip = _ALIGNMENT // out.itemsize
    if out.ndim < 2 or part.strides[-1] == part.itemsize or out.shape[-1] <= strip:
        out[...] = part
        return
    for start in range(0, out.shape[-1], strip):
        out[..., start : start + strip] = part[..., start : start + strip]


def _aligned_empty(shape: list[int], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def check(file: WeightFile, pieces: list[Piece]) -> None:
    """That a file holds just the tensors of a model.

    Raises:
      ValueError: lists every tensor that is missing, unexpected or of another shape, and the
        preset that fits best.
    """
    expected = {piece.name: piece.file_shape for piece in pieces}
    found = {name: entry.shape for name, entry in file.entries.items()}
    problems = [f"missing: {name} {list(expected[name])}" for name in expected if name not in found]
    problems += [
        f"unexpected: {name} {list(found[name])}" for name in found if name not in expected
    ]
    problems += [
        f"another shape: {name} is {list(found[name])}, the model's is {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        raise ValueError(
            f"{file.path} does not fit the model: {len(problems)} tensors of "
            f"{len(expected)} differ{_advice_on_bias(found, expected) or advice(file)}\n  "
            + "\n  ".join(problems)
        )
    kinds = {str(entry.dtype) for entry in file.entries.values() if entry.dtype.kind not in "fV"}
    if kinds:
        raise ValueError(f"{file.path}: weights are {', '.join(kinds)}, expected floating point")


def _advice_on_bias(found: Mapping, expected: Mapping) -> str:
    """What to do where the bias of the sigmoid loss is all that differs; as `advice`."""
    if found.keys() ^ expected.keys() != {"logit_bias"}:
        return ""
    if "logit_bias" in found:
        return "; it has the bias of a sigmoid loss: add init_logit_bias=-10.0 to the model config"
    return "; it has no bias of a sigmoid loss: take init_logit_bias out of the model config"


def nearest_presets(file: WeightFile) -> tuple[list[str], float]:
    """The presets that share most tensors with a file, by name and shape, and what share.

    Several where only their activation differs, which no tensor shows.
    """
    found = {(name, entry.shape) for name, entry in file.entries.items()}
    best, best_share = [], 0.0
    for name, config in presets.PRESETS.items():
        try:
            expected = {(p.name, p.file_shape) for p in files.pieces(file.style, config)}
        except ValueError:  # a model that exists only here
            continue
        share = len(found & expected) / len(found | expected)
        if share > best_share:
            best, best_share = [], share
        if share == best_share > 0:
            best.append(name)
    return best, best_share


def advice(file: WeightFile) -> str:
    """Which preset to try, as the end of a sentence."""
    names, share = nearest_presets(file)
    if file.is_openai:
        names = [name for name in names if presets.get(name).quick_gelu]
    if not names:
        return "; no preset has a tensor of these names and shapes: is it a CLIP?"
    if share < _NEAR:
        return "; no preset is near it: config must be the model JSON that came with it"
    twins = ""
    if len(names) > 1:
        twins = "; no tensor tells these apart: OpenAI's own weights are of -quickgelu"
    named = " or ".join(map(repr, names))
    return f"; the nearest preset is {named} ({share:.0%} of the tensors agree{twins})"


def with_resized_positions(file: WeightFile, config: CLIPConfig) -> WeightFile:
    """The file as one of a model of the image size and context length of `config`."""
    entries = dict(file.entries)
    for piece in file.pieces(config):
        resize = {
            ("visual", "positional_embedding"): resize_image_positions,
            ("text", "positional_embedding"): resize_text_positions,
        }.get(piece.path)
        entry = entries.get(piece.name)
        if resize is None or entry is None or entry.shape == piece.file_shape:
            continue
        if len(entry.shape) == 2 and entry.shape[1] == piece.file_shape[1]:
            entries[piece.name] = ArrayEntry(resize(entry.read(), piece.file_shape[0]))
    return dataclasses.replace(file, entries=entries)
