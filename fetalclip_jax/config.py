"""Every field an experiment has, with its default. Files in `configs/` change some of them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fetalclip_jax import config_files, run, storage
from fetalclip_jax.config_files import one_line
from fetalclip_jax.data.augment import AugmentConfig
from fetalclip_jax.datasets import registry
from fetalclip_jax.labels import TASKS
from fetalclip_jax.models import presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.lora import LoRA
from fetalclip_jax.models.presets import CLIPConfig

# Biases, norms, LayerScales, the class token, the logit scale and bias.
NOT_DECAYED = r"(.*/)?(bias|scale|ls_1|ls_2|class_embedding|logit_scale|logit_bias)"
# Fields that runs of earlier versions carry and nothing reads any more.
_FORMER_FIELDS = ("evaluation",)


def default_config() -> ConfigDict:
    """The complete configuration tree; unknown fields are errors, so this is also the schema."""
    config = ConfigDict()
    config.seed = 0
    # The fields of an open_clip model JSON.
    config.model = model_fields(presets.get("ViT-Mi-16-96-conv"))
    config.compute = ConfigDict({"dtype": "float32", "scan_layers": True, "remat": "none"})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.data = ConfigDict()
    config.data.source = "phantom"  # a name in datasets.registry.KINDS
    config.data.root = ""  # folder of the original data set; the phantom needs none
    config.data.workers = 2  # processes that prepare records
    config.data.loader_workers = 0  # processes that read training batches; 0: threads
    config.data.max_bad_share = 0.01  # bad examples tolerated before a run stops
    config.data.seed = 0  # of what is simulated, and of the patients held out
    config.data.train_images = 0  # how many to train on, of patients drawn by the seed; 0: all
    # Or how many patients, with all their images, drawn by config.seed; 0: all.
    config.data.train_patients = 0
    # Further data sets to train on at once: rows of (source, root, share of every batch); the rest
    # of a batch is of config.data.source, which alone is chosen from, validated and judged on.
    config.data.mixture = ()
    # Options of each data set under its name, such as config.data.phantom.train_images.
    config.data.update(registry.default_options())

    config.captions = ConfigDict(
        {
            "variants": 16,
            "seed": 0,
            "positives": "text",  # captions that mean the same: text (to the letter) | facts
        }
    )
    # Strengths of what is changed at random in training images, see data.augment.AugmentConfig.
    config.augment = ConfigDict(dataclasses.asdict(AugmentConfig()))
    config.tokenizer = ConfigDict({"kind": "sentencepiece"})  # sentencepiece | clip_bpe
    # What to start from, with its tokenizer: a run, or weights, whatever `load` opens.
    config.init_from = ""
    config.init_config = ""  # its model, where it does not say: a preset's name or open_clip JSON
    config.init_model = False  # its model becomes config.model, whatever is written there
    # Low-rank adapters: with targets, they are trained and what they adapt is not.
    config.lora = ConfigDict(
        {
            "targets": (),  # patterns of names, such as ("visual/.*/(query|value)",)
            "rank": 8,
            "alpha": 16.0,
            "seed": 0,  # of what the adapters start from
        }
    )

    config.loss = ConfigDict(
        {
            "kind": "softmax",  # one of training.objective.KINDS
            "block_size": 0,  # rows and columns of the logits in memory at a time; 0: all
            "exchange": "gather",  # gather | ring: how texts come to the other devices
            "labels": "planes",  # what `classify` tells apart: a name in labels.TASKS
            # Of a term that makes features of one anatomy alike, seen by two machines; 0: none.
            # For data that can be drawn twice: the phantom.
            "consistency_weight": 0.0,
            "consistency": "cosine",  # cosine | contrastive: against the others of the batch too
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1000,
            "global_batch_size": 128,
            "checkpoint_every": 100,
            "keep_checkpoints": 2,  # the newest ones
            "keep_best": "val_loss",  # and the one with the lowest; or ema_val_loss; "": none
            "log_every": 20,
            "micro_batches": 1,  # parts of the batch encoded one by one: less memory, more time
            "max_skipped_steps": 10,  # in a row, not finite, after which the run stops
            "stall_seconds": 600.0,  # without a finished step until it is said who waits; 0: never
            "studies": (),  # such as ("zero_shot.planes",), of the validation split
            "study_every": 0,  # steps between two times that `studies` are run; 0: never
            "wandb_project": "",  # of Weights & Biases, for the metrics; "": none
            "ema_decay": 0.0,  # of the averaged parameters kept beside the trained ones; 0: none
        }
    )
    config.optimizer = ConfigDict(
        {
            "learning_rate": 1e-3,
            # cosine: to zero at train.steps; constant: can be extended before its cool-down
            "schedule": "cosine",
            "cooldown_steps": 0,  # at the end of a constant schedule, linear to zero
            "warmup_steps": 100,
            "beta1": 0.9,
            "beta2": 0.98,
            "eps": 1e-6,
            "weight_decay": 0.1,
            "clip_norm": 1.0,  # largest norm of all gradients together; inf: none
            # Rows of (pattern of parameter names, factor), see training.parameter_table; the first
            # that matches decides. A learning rate times 0 is not trained.
            "learning_rate_factors": (),
            # As in open_clip, what has one axis in each layer is not pulled towards zero.
            "weight_decay_factors": ((NOT_DECAYED, 0.0),),
        }
    )
    return config.lock()


def save_config(config: ConfigDict, path: storage.Path) -> None:
    """Writes `config` as JSON, whole or not at all."""
    run.write_text(path, config.to_json_best_effort(indent=2) + "\n")


def load_config(path: storage.Path) -> ConfigDict:
    """Reads what `save_config` wrote, over today's defaults.

    Raises:
      ValueError: no such file, or a field that is not known here.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; is {path.parent} the --workdir of a trained run?")
    try:
        fields = _as_tuples(json.loads(path.read_text(encoding="utf-8")))
        known = default_config().keys()
        former = [name for name in _FORMER_FIELDS if name not in known]
        return _over_defaults({k: v for k, v in fields.items() if k not in former})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a configuration of this version: {one_line(error)}"
        ) from error


def parse(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """An experiment: a file of `configs/` with overrides, see `config_files`.

    Raises:
      ValueError: no such file, an error in it, a key that does not exist, or a value of the wrong
        type.
    """
    config = config_files.read(path)
    try:
        config = _over_defaults(config.to_dict())
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--config={path}: {one_line(error)}; fields are those of fetalclip_jax/config.py"
        ) from error
    return config_files.override(config, overrides, path)


def _over_defaults(fields: Mapping[str, Any]) -> ConfigDict:
    """The default configuration with `fields` in it; a field it does not have is an error."""
    config, fields = default_config(), dict(fields)
    # A model is whole: what it leaves out is that field's own default, not the default model's.
    if "model" in fields:
        config.model = model_fields(CLIPConfig.from_dict(fields.pop("model")))
    config.update(fields)
    return config


def model_fields(model: CLIPConfig) -> ConfigDict:
    """A model's fields; those that are None can be set to a number on the command line."""
    fields = ConfigDict(model.to_dict())
    for part in (fields, fields.vision_cfg, fields.text_cfg):
        for name, value in part.items():
            if value is None:
                part[name] = placeholder(float)
    return fields


def build_model(config: ConfigDict) -> CLIP:
    """The flax module a configuration describes.

    Raises:
      ValueError: an unknown model field, compute dtype, remat policy or set of labels; adapters
        that cannot be meant.
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
        lora=LoRA(**config.lora) if config.lora.targets else None,
        classes=len(class_names(config)),
    )


def images_per_example(config: ConfigDict) -> int:
    """Pictures of each example that a step encodes: two where they are to have features alike."""
    return 2 if config.loss.consistency_weight > 0 else 1


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """What the head of a model that learns labels tells apart; empty for other objectives.

    Raises:
      ValueError: unknown labels.
    """
    if config.loss.kind != "classify":
        return ()
    if config.loss.labels not in TASKS:
        raise ValueError(
            f"config.loss.labels={config.loss.labels!r} is not one of {', '.join(TASKS)}"
        )
    return TASKS[config.loss.labels].names


def trained_on(data: ConfigDict | None) -> dict[str, str]:
    """Kind -> root of every data set that `config.data` trains on, the judged one first."""
    if data is None:
        return {}
    further = {source: root for source, root, _ in data.get("mixture", ())}
    return ({data.source: data.root} if data.source else {}) | further


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """Dotted name -> value, tuples as lists so that JSON round trips compare equal."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _as_lists(value)
    return flat


def _as_tuples(value: Any) -> Any:
    """JSON has no tuples; here no value is a list."""
    if isinstance(value, dict):
        return {name: _as_tuples(one) for name, one in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _as_lists(value: object) -> object:
    return [_as_lists(v) for v in value] if isinstance(value, (tuple, list)) else value
