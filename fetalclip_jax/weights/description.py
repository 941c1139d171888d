"""What the JSON files beside weights say of the model in them."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.models.preprocess import CLIP_MEAN, CLIP_STD
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import transformers_clip

OPEN_CLIP = "open_clip_config.json"
TRANSFORMERS = "config.json"
PREPROCESSOR = "preprocessor_config.json"

_OPEN_CLIP_FIELDS = {"embed_dim", "vision_cfg", "text_cfg"}


def open_clip_config(fields: Mapping[str, Any]) -> CLIPConfig:
    """The model of an open_clip JSON: a model configuration, or one within a hub description.

    Raises:
      ValueError: a field that is not supported, such as other preprocessing.
    """
    preprocessing = fields.get("preprocess_cfg") or {}
    _check_statistics(preprocessing, "mean", "std")
    for name, known in (
        ("interpolation", (None, "bicubic")),
        ("resize_mode", (None, "shortest", "longest")),
    ):
        if preprocessing.get(name) not in known:
            raise ValueError(f"preprocess_cfg.{name}={preprocessing[name]!r} is not supported")
    model = fields.get("model_cfg", fields)
    if not isinstance(model, Mapping) or not set(model) >= _OPEN_CLIP_FIELDS:
        raise ValueError(
            "not the configuration of an open_clip model: embed_dim, vision_cfg and text_cfg are "
            f"not all in it, but {sorted(model) if isinstance(model, Mapping) else model!r}"
        )
    return CLIPConfig.from_dict(model)


def read_open_clip(path: storage.Path) -> CLIPConfig:
    """The model that an open_clip JSON describes.

    Raises:
      ValueError: names the file, and what in it is not supported.
    """
    return _named(path, open_clip_config)


def read_transformers(path: storage.Path) -> CLIPConfig:
    """The model that a `config.json` of transformers describes.

    Raises:
      ValueError: names the file, and what in it is not supported; preprocessing that is described
        beside it and is not CLIP's.
    """
    config = _named(path, transformers_clip.model_config)
    preprocessor = path.with_name(PREPROCESSOR)
    if preprocessor.is_file():
        _named(preprocessor, lambda fields: _check_statistics(fields, "image_mean", "image_std"))
    return config


def beside(path: storage.Path, style: str) -> tuple[storage.Path, CLIPConfig] | None:
    """The JSON file beside a file of weights that describes its model, and the model; or None.

    Looked at are the usual names of both libraries, those of the weights' own `style` first, and
    the name of the weights with `.json` or "config" for "weights" (`FetalCLIP_weights.pt` comes
    with `FetalCLIP_config.json`). A JSON of those names may be of something else, and is then
    passed over.

    Raises:
      ValueError: a JSON file of these names that cannot be read, or a model that is not supported.
    """
    own = [path.stem + ".json", path.stem.replace("weights", "config") + ".json"]
    names = [*own, OPEN_CLIP, TRANSFORMERS]
    if style == "transformers":
        names.reverse()
    for name in names:
        candidate = path.with_name(name)
        if not candidate.is_file():
            continue
        fields = _named(candidate, dict)
        if fields.get("model_type") == "clip":
            return candidate, read_transformers(candidate)
        if "model_cfg" in fields or set(fields) >= _OPEN_CLIP_FIELDS:
            return candidate, read_open_clip(candidate)
    return None


def _check_statistics(fields: Mapping[str, Any], *names: str) -> None:
    """That images are normalised by CLIP's mean and deviation, as `models.preprocess` does."""
    for name, ours in zip(names, (CLIP_MEAN, CLIP_STD), strict=True):
        theirs = fields.get(name)
        if theirs is not None and not (
            np.shape(theirs) == (3,) and np.allclose(theirs, ours, atol=1e-6)
        ):
            raise ValueError(f"{name}={theirs} is not supported, only CLIP's: {ours.tolist()}")


def _named(path: storage.Path, read):
    """What `read` makes of a JSON file; its errors name the file."""
    try:
        return read(_read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_json(path: storage.Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read it as JSON ({error}); mend it, or move it away from the weights"
        ) from error
    if not isinstance(fields, dict):
        raise ValueError(f"holds {type(fields).__name__}, expected a mapping of fields")
    return fields
