"""Weight files and folders of other libraries: which tensors they hold, and of what model."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax.models import presets
from fetalclip_jax.models.preprocess import CLIP_MEAN, CLIP_STD
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import open_clip, safetensors_file, torch_zip, transformers_clip
from fetalclip_jax.weights.layout import Piece

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TRANSFORMERS_CONFIG = "config.json"
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PREPROCESSOR = "preprocessor_config.json"

# Numbers that OpenAI's own files carry beside the weights.
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """Tensors that are still in their file.

    Attributes:
      path: the file of the tensors.
      entries: by name; each has `shape`, `dtype`, `read()` and `read_slice(index)`.
      style: "open_clip" or "transformers", by the names.
      config: the model, where a file beside the tensors describes it.
    """

    path: pathlib.Path
    entries: Mapping[str, Any]
    style: str
    config: CLIPConfig | None

    def pieces(self, config: CLIPConfig) -> list[Piece]:
        """Where this file holds the numbers of a model."""
        return pieces(self.style, config)


def pieces(style: str, config: CLIPConfig) -> list[Piece]:
    """Where a file of a style, "open_clip" or "transformers", holds the numbers of a model."""
    return {"open_clip": open_clip, "transformers": transformers_clip}[style].pieces(config)


@dataclasses.dataclass(frozen=True)
class ArrayEntry:
    """An array in memory behind the interface of an entry."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self) -> np.ndarray:
        return self.array

    def read_slice(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.array[index]


def open_weights(path: pathlib.Path) -> WeightFile:
    """Opens a `.pt` or `.safetensors` file, an open_clip folder or a `CLIPModel` folder.

    No tensor is read yet, and nothing in a file is ever run.

    Raises:
      ValueError: none of these; a damaged file; a configuration that is not supported.
    """
    if not path.is_dir():
        return _open_file(path, None)
    for config_name, names, read_config in (
        (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, open_clip_config),
        (TRANSFORMERS_CONFIG, TRANSFORMERS_WEIGHTS, transformers_clip.model_config),
    ):
        description = path / config_name
        found = [path / name for name in names if (path / name).is_file()]
        if not description.is_file() or not found:
            continue
        config = _described(description, read_config)
        if config_name == TRANSFORMERS_CONFIG and (path / PREPROCESSOR).is_file():
            _described(path / PREPROCESSOR, _check_preprocessor)
        return _open_file(found[0], config)
    raise ValueError(
        f"{path} holds neither the checkpoints of a run (fetalclip train or import makes one) nor "
        f"weights: {OPEN_CLIP_CONFIG} beside {' or '.join(OPEN_CLIP_WEIGHTS)}, or "
        f"{TRANSFORMERS_CONFIG} beside {' or '.join(TRANSFORMERS_WEIGHTS)} "
        "(weights in several shards: join them into one)"
    )


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
    if not isinstance(model, Mapping) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
        raise ValueError(
            "not the configuration of an open_clip model: embed_dim, vision_cfg and text_cfg are "
            f"not all in it, but {sorted(model) if isinstance(model, Mapping) else model!r}"
        )
    return CLIPConfig.from_dict(model)


def _check_preprocessor(fields: Mapping[str, Any]) -> None:
    _check_statistics(fields, "image_mean", "image_std")


def _check_statistics(fields: Mapping[str, Any], *names: str) -> None:
    """That images are normalised by CLIP's mean and deviation, as `data.image` does."""
    for name, ours in zip(names, (CLIP_MEAN, CLIP_STD), strict=True):
        theirs = fields.get(name)
        if theirs is not None and not (
            np.shape(theirs) == (3,) and np.allclose(theirs, ours, atol=1e-6)
        ):
            raise ValueError(f"{name}={theirs} is not supported, only CLIP's: {ours.tolist()}")


def _described(path: pathlib.Path, read):
    """What `read` makes of a JSON file; its errors name the file."""
    try:
        return read(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def resolve_config(config: CLIPConfig | Mapping | str) -> CLIPConfig:
    """A preset's name, the path of an open_clip JSON, or its fields, as a configuration.

    Raises:
      ValueError: no such preset or file; a field that is not supported.
    """
    if isinstance(config, CLIPConfig):
        return config
    if isinstance(config, Mapping):
        return open_clip_config(config)
    if not str(config).endswith(".json"):
        return presets.get(str(config))
    return _described(pathlib.Path(config), open_clip_config)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
      ValueError: no such file, no JSON, or no mapping.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read it as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"holds {type(fields).__name__}, expected a mapping of fields")
    return fields


def _open_file(path: pathlib.Path, config: CLIPConfig | None) -> WeightFile:
    reader = safetensors_file if path.suffix == ".safetensors" else torch_zip
    entries = dict(reader.open_tensors(path))
    for name in (*_OPENAI_EXTRAS, *transformers_clip.IGNORED):
        entries.pop(name, None)
    if "text.token_embedding.weight" in entries:
        # open_clip's class for towers of several kinds names a plain text tower so.
        entries = {name.removeprefix("text."): entry for name, entry in entries.items()}
    scale = entries.get("logit_scale")
    if scale is not None and scale.shape == (1,):
        entries["logit_scale"] = ArrayEntry(scale.read().reshape(()))
    style = "transformers" if "visual_projection.weight" in entries else "open_clip"
    return WeightFile(path, entries, style, config)
