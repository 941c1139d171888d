"""Every field an experiment has, with its default. Files in `configs/` change some of them."""

import importlib.util
import inspect
import json
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from fetalclip_jax import run
from fetalclip_jax.models import presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.presets import CLIPConfig

# Fields that runs of earlier versions carry and nothing reads any more.
_FORMER_FIELDS = ("evaluation",)


def default_config() -> ConfigDict:
    """The complete configuration tree; unknown fields are errors, so this is also the schema."""
    config = ConfigDict()
    config.seed = 0
    config.model = presets.get(
        "ViT-Mi-16-96-conv"
    ).to_dict()  # the fields of an open_clip model JSON
    config.compute = ConfigDict({"dtype": "float32", "scan_layers": True, "remat": "none"})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.data = ConfigDict()
    config.data.source = "phantom"  # phantom | hc18
    config.data.root = ""  # folder of the original data set; the phantom needs none
    config.data.workers = 2  # processes that prepare records
    config.data.max_bad_share = 0.01  # unreadable examples tolerated before a run stops
    config.data.seed = 0  # the phantom's seed; the split of ids elsewhere
    config.data.phantom = ConfigDict(
        # Three groups of patients: pretraining, fitting probes, and testing.
        {"images_per_patient": 6, "train_images": 7200, "pool_images": 1500, "test_images": 1500}
    )
    config.data.hc18 = ConfigDict({"test_share": 0.2})

    config.captions = ConfigDict({"variants": 16, "seed": 0})
    config.augment = ConfigDict(
        {"rotate_degrees": 7.0, "translate": 0.05, "jitter": 0.15, "flip": 0.5, "zoom": 0.0}
    )
    config.tokenizer = ConfigDict({"kind": "sentencepiece"})  # sentencepiece | clip_bpe
    config.init_from = ""  # workdir of a run whose parameters and tokenizer to start from

    config.loss = ConfigDict({"kind": "softmax"})  # one of training.objective.KINDS
    config.train = ConfigDict(
        {
            "steps": 1000,
            "global_batch_size": 128,
            "checkpoint_every": 100,
            "log_every": 20,
            "ema_decay": 0.0,  # of the averaged parameters kept beside the trained ones; 0: none
        }
    )
    config.optimizer = ConfigDict(
        {
            "learning_rate": 1e-3,
            "warmup_steps": 100,
            "beta1": 0.9,
            "beta2": 0.98,
            "eps": 1e-6,
            "weight_decay": 0.1,
            "clip_norm": 1.0,  # largest norm of all gradients together; inf: none
        }
    )
    config.evaluation = ConfigDict(
        {
            "batch_size": 128,
            "probe_copies": 5,  # augmented copies of each probe image
            "few_shot_patients": (2, 4, 8, 16, 32),
            # paper: raw features and one learning rate; tuned: standardised features and the
            # better of two learning rates, for models whose features have another scale.
            "probe_protocol": "tuned",
        }
    )
    return config.lock()


def save_config(config: ConfigDict, path: pathlib.Path) -> None:
    """Writes `config` as JSON, whole or not at all."""
    run.write_text(path, config.to_json_best_effort(indent=2) + "\n")


def load_config(path: pathlib.Path) -> ConfigDict:
    """Reads what `save_config` wrote, over today's defaults.

    Raises:
      ValueError: no such file, or a field that is not known here.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; is {path.parent} the --workdir of a trained run?")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        known = default_config().keys()
        former = [name for name in _FORMER_FIELDS if name not in known]
        return _over_defaults({k: v for k, v in fields.items() if k not in former})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a configuration of this version: {_line(error)}") from error


def parse(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads an experiment as ml_collections users write and change it.

    Args:
      path: `x.py` with a function `get_config()`, or `x.py:argument` for `get_config(argument)`.
      overrides: `--config.a.b=value`, as on a command line.

    Raises:
      ValueError: no such file, an error in it, a key that does not exist, or a value of the wrong
        type.
    """
    from absl import flags
    from ml_collections import config_flags

    file, *argument = path.split(":", 1)
    config = _call(_get_config(file), file, argument)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"--config={path}: get_config returns {type(config).__name__}, not a ConfigDict; let it "
            "change and return fetalclip_jax.config.default_config()"
        )
    try:
        config = _over_defaults(config.to_dict())
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"--config={path}: {_line(error)}; {_FIELDS}") from error
    asked = " ".join(overrides)
    values, command = flags.FlagValues(), ["fetalclip", *overrides]
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=command
        )
        left = values(command)
    except (AttributeError, KeyError, flags.UnrecognizedFlagError) as error:
        raise ValueError(f"{asked}: no such key in {path} ({_line(error)}); {_FIELDS}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise ValueError(f"--config={path} {asked}: {_line(error)}") from error
    if left[1:]:
        raise ValueError(f"unknown arguments: {' '.join(left[1:])}")
    return holder.value


_FIELDS = "the fields are those of fetalclip_jax/config.py"


def _get_config(file: str) -> Callable[..., Any]:
    """The function of that name in a Python file."""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"--config={file}: no such file")
    spec = importlib.util.spec_from_file_location("experiment_config", file)
    if spec is None:
        raise ValueError(f"--config={file}: not a Python file (name.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(_where(file, error)) from error
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(
            f"--config={file} has no function get_config(); it makes and returns the configuration"
        )
    return module.get_config


def _call(get_config: Callable[..., Any], file: str, argument: list[str]) -> Any:
    try:
        inspect.signature(get_config).bind(*argument)
    except TypeError as error:
        if argument:
            advice = f"takes no argument, {argument[0]!r} was given; leave :{argument[0]} out"
        else:
            advice = f"needs an argument; use --config={file}:ARGUMENT"
        raise ValueError(f"--config={file}: get_config {advice}") from error
    try:
        return get_config(*argument)
    except Exception as error:
        raise ValueError(_where(file, error)) from error


def _where(file: str, error: Exception) -> str:
    """An error in a configuration file in one line, with the line of that file."""
    here = pathlib.Path(file).resolve()
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if pathlib.Path(frame.filename).resolve() == here
    ]
    if isinstance(error, SyntaxError) and pathlib.Path(error.filename or "").resolve() == here:
        lines = [error.lineno]
    place = f", line {lines[-1]}" if lines else ""
    return f"--config={file}{place}: {type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    """The message of any library's error in one line."""
    # A KeyError's own text is the representation of its message.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _over_defaults(fields: Mapping[str, Any]) -> ConfigDict:
    """The default configuration with `fields` in it; a field it does not have is an error."""
    config, fields = default_config(), dict(fields)
    # A model is whole: what it leaves out is that field's own default, not the default model's.
    if "model" in fields:
        config.model = CLIPConfig.from_dict(fields.pop("model")).to_dict()
    config.update(fields)
    return config


def build_model(config: ConfigDict) -> CLIP:
    """The flax module a configuration describes.

    Raises:
      ValueError: an unknown model field, compute dtype or remat policy.
    """
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if config.compute.dtype not in dtypes:
        raise ValueError(
            f"config.compute.dtype={config.compute.dtype!r} is not one of {', '.join(dtypes)}"
        )
    return CLIP(
        CLIPConfig.from_dict(config.model.to_dict()),
        scan_layers=config.compute.scan_layers,
        remat=config.compute.remat,
        dtype=dtypes[config.compute.dtype],
    )


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """Dotted name -> value, tuples as lists so that JSON round trips compare equal."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _as_lists(value)
    return flat


def _as_lists(value: object) -> object:
    return [_as_lists(v) for v in value] if isinstance(value, (tuple, list)) else value
