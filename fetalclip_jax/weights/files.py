"""Weight files and folders of other libraries: which tensors they hold, and of what model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.models import presets
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights import (
    description,
    names,
    open_clip,
    safetensors_file,
    torch_zip,
    transformers_clip,
)
from fetalclip_jax.weights.layout import Piece

OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

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
      described_by: that file.
      is_openai: whether marks beside the tensors say that they are OpenAI's own.
    """

    path: storage.Path
    entries: Mapping[str, Any]
    style: str
    config: CLIPConfig | None
    described_by: storage.Path | None = None
    is_openai: bool = False

    def pieces(self, config: CLIPConfig) -> list[Piece]:
        """Where this file holds the numbers of a model."""
        return pieces(self.style, config)

    def check_activation(self, config: CLIPConfig) -> None:
        """That a model computes the activation that the file's marks stand for.

        Raises:
          ValueError: OpenAI's own weights for a model without quick_gelu.
        """
        if self.is_openai and not config.quick_gelu:
            raise ValueError(
                f"{self.path} carries {', '.join(_OPENAI_EXTRAS)} beside the weights, which marks "
                "OpenAI's own, trained with quick_gelu; config has quick_gelu=False: take the "
                "preset whose name ends in -quickgelu, or a model JSON with quick_gelu=true"
            )


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
        return self.array[(*index, ...)]


def open_weights(path: storage.Path) -> WeightFile:
    """Opens a `.pt` or `.safetensors` file, an open_clip folder or a `CLIPModel` folder.

    No tensor is read yet, and nothing in a file is ever run.

    Raises:
      ValueError: none of these; a damaged file; a configuration that is not supported.
    """
    if not path.is_dir():
        file = _open_file(path)
        described_by, config = description.beside(path, file.style) or (None, None)
        return dataclasses.replace(file, config=config, described_by=described_by)
    for config_name, weight_names, read_config in (
        (description.OPEN_CLIP, OPEN_CLIP_WEIGHTS, description.read_open_clip),
        (description.TRANSFORMERS, TRANSFORMERS_WEIGHTS, description.read_transformers),
    ):
        described_by = path / config_name
        found = [path / name for name in weight_names if (path / name).is_file()]
        if described_by.is_file() and found:
            config = read_config(described_by)
            return dataclasses.replace(
                _open_file(found[0]), config=config, described_by=described_by
            )
    raise ValueError(
        f"{path} holds neither the checkpoints of a run (fetalclip train or import makes one) nor "
        f"weights: {description.OPEN_CLIP} beside {' or '.join(OPEN_CLIP_WEIGHTS)}, or "
        f"{description.TRANSFORMERS} beside {' or '.join(TRANSFORMERS_WEIGHTS)} "
        "(weights in several shards: join them into one)"
    )


def resolve_config(config: CLIPConfig | Mapping | str) -> CLIPConfig:
    """A preset's name, the path of an open_clip JSON, or its fields, as a configuration.

    Raises:
      ValueError: no such preset or file; a field that is not supported.
    """
    if isinstance(config, CLIPConfig):
        return config
    if isinstance(config, Mapping):
        return description.open_clip_config(config)
    if not str(config).endswith(".json"):
        return presets.get(str(config))
    return description.read_open_clip(storage.path(config))


def _open_file(path: storage.Path) -> WeightFile:
    reader = safetensors_file if path.suffix == ".safetensors" else torch_zip
    # From a bucket it comes whole: tensors are read one by one, in any order.
    copy = storage.local_copy(path) if path.is_file() else path
    entries = names.without_prefixes(reader.open_tensors(copy))
    is_openai = entries.keys() >= set(_OPENAI_EXTRAS)
    for name in (*_OPENAI_EXTRAS, *transformers_clip.IGNORED):
        entries.pop(name, None)
    if "text.token_embedding.weight" in entries:
        # open_clip's class for towers of several kinds names a plain text tower so.
        entries = {name.removeprefix("text."): entry for name, entry in entries.items()}
    for name in ("logit_scale", "logit_bias"):
        if name in entries and entries[name].shape == (1,):
            entries[name] = ArrayEntry(entries[name].read().reshape(()))
    style = "transformers" if "visual_projection.weight" in entries else "open_clip"
    return WeightFile(path, entries, style, None, is_openai=is_openai)
