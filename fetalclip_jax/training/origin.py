"""What a run starts from: `config.init_from`, a run or weights of any kind."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fetalclip_jax import storage, tokenizers
from fetalclip_jax.config import class_names, load_config, model_fields
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.run import Run
from fetalclip_jax.training import saved
from fetalclip_jax.weights import files, opening
from fetalclip_jax.weights import params as weights

_ITS_MODEL = "use its settings, or take its model with config.init_model=True"


def with_its_model(config: ConfigDict, workdir: storage.Path) -> ConfigDict:
    """The configuration with the model of the origin in it, where `config.init_model` asks for it.

    A run that has started knows its model: the origin may be gone.

    Raises:
      ValueError: there is no origin, or it does not say what model it is; a field that cannot be
        meant without one.
    """
    if not config.init_from:
        _check_without(config)
        return config
    if not config.init_model:
        return config
    there = load_config(Run(workdir).config) if Run(workdir).steps() else None
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if there is not None and there.init_from == config.init_from:
            config.model = there.model
        else:
            config.model = model_fields(_model(config, _open(config)))
    return config.lock()


def with_described_model(config: ConfigDict) -> ConfigDict:
    """The same for a plan, which needs no parameters: `config.init_config` alone will do.

    Raises:
      ValueError: neither it nor `config.init_from` says what model to take.
    """
    if not config.init_model:
        return config
    if not (config.init_from or config.init_config):
        raise ValueError(
            "config.init_model takes the model of config.init_from: name that, or the model alone, "
            "as in --config.init_config=FetalCLIP"
        )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        described = (
            _model(config, _open(config))
            if config.init_from
            else files.resolve_config(config.init_config)
        )
        config.model = model_fields(described)
    return config.lock()


def check(config: ConfigDict) -> None:
    """Looks at what training starts from, without its parameters: a start that cannot be is known
    before data is prepared for it.

    Raises:
      ValueError: as `read_params`, but for values that are not finite.
    """
    if not config.init_from:
        _check_without(config)
        return
    origin, here = _open(config), CLIPConfig.from_dict(config.model.to_dict())
    _check_model(config, origin, here)
    if not isinstance(origin, saved.Saved):
        origin.check_activation(here)
        weights.check(origin, origin.pieces(here))


def read_params(config: ConfigDict, fresh: Any, mesh: Mesh) -> Any:
    """The parameters that training starts with: the origin's, and fresh ones that it lacks.

    What was trained with adapters is taken with them merged; adapters and a head are fresh, but
    the head of an origin that learned the same labels.

    Args:
      fresh: parameters of the model, each of which gives its place on the devices.

    Raises:
      ValueError: no origin of that name, or one of another model.
    """
    origin = _open(config)
    here = CLIPConfig.from_dict(config.model.to_dict())
    head = None
    _check_model(config, origin, here)
    towers = {name: leaf for name, leaf in fresh.items() if name not in ("lora", "head")}
    if isinstance(origin, saved.Saved):
        _, params, head = origin.read(mesh, whole=False)
    else:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, towers)
        params = weights.read_params(origin, here, shardings, jnp.float32)
    if head is not None and "head" in fresh and class_names(origin.config) == class_names(config):
        params = params | {"head": head}
    return fresh | jax.tree.map(
        lambda leaf, like: jax.device_put(leaf, like.sharding),
        params,
        {name: fresh[name] for name in params},
    )


def tokenizer(config: ConfigDict) -> tokenizers.Tokenizer:
    """The origin's tokenizer.

    Raises:
      ValueError: no origin of that name, or weights without one that fits.
    """
    origin = _open(config)
    if isinstance(origin, saved.Saved):
        return origin.tokenizer
    try:
        return opening.tokenizer(storage.path(config.init_from), _model(config, origin))
    except ValueError as error:
        raise ValueError(
            f"config.init_from={config.init_from}: {error} (put its folder beside the weights as "
            "tokenizer/, or make a run of them first: fetalclip import --tokenizer)"
        ) from error


def _open(config: ConfigDict) -> saved.Saved | files.WeightFile:
    path = storage.path(config.init_from)
    if (run := saved.find(path)) is not None:
        if config.init_config:
            raise ValueError(
                f"config.init_config={config.init_config!r}: {path} is a run and carries its own; "
                "leave it empty"
            )
        return run
    if not path.exists():
        raise ValueError(
            f"config.init_from={config.init_from}: no such run, file or folder of weights"
        )
    return files.open_weights(path)


def _model(config: ConfigDict, origin: saved.Saved | files.WeightFile) -> CLIPConfig:
    """The model of the origin, as it says itself, else as `config` says."""
    if isinstance(origin, saved.Saved):
        return CLIPConfig.from_dict(origin.config.model.to_dict())
    if config.init_config:
        return opening.resolve(origin, config.init_config)
    if origin.config is None and not config.init_model:
        return CLIPConfig.from_dict(config.model.to_dict())
    if origin.config is None:
        raise ValueError(
            f"config.init_from={config.init_from} does not say what model it holds; set "
            "config.init_config to a preset's name or an open_clip model JSON"
            f"{weights.advice(origin)}"
        )
    return origin.config


def _check_model(
    config: ConfigDict, origin: saved.Saved | files.WeightFile, here: CLIPConfig
) -> None:
    there = _model(config, origin)
    opening.check_agrees(f"config.init_from={config.init_from}", there, here, _ITS_MODEL)


def _check_without(config: ConfigDict) -> None:
    """Raises ValueError for a field that means something beside `config.init_from` alone."""
    for name, is_set, what in (
        ("init_model", config.init_model, "the model to take"),
        ("init_config", bool(config.init_config), "what it describes"),
        (
            "lora.targets",
            bool(config.lora.targets),
            "what to adapt: adapters of random weights learn little",
        ),
    ):
        if is_set:
            raise ValueError(
                f"config.{name} needs config.init_from, {what}: give a run, a .pt or .safetensors "
                "file or a folder of weights, as in --config.init_from=FetalCLIP_weights.pt"
            )
