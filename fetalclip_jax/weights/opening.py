"""What is asked of a file of weights besides its tensors: which model, and which tokenizer."""

from typing import Any

from ml_collections import ConfigDict

from fetalclip_jax import storage, tokenizers
from fetalclip_jax.config import flatten
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.tokenizers.sentencepiece import SentencePieceTokenizer
from fetalclip_jax.weights import files, params

CLIP_VOCAB_SIZE = 49408

# What may differ from the configuration beside a file: sizes that positions can be fitted to, and
# fields that training alone reads.
_SIZES = ("vision_cfg.image_size", "text_cfg.context_length")
_OF_TRAINING = ("vision_cfg.patch_dropout", "init_logit_scale")


def resolve(file: files.WeightFile, config: Any = None) -> CLIPConfig:
    """The model of a file; one that is described beside it may be given other positions only.

    Args:
      config: a preset's name, the path of an open_clip JSON, or its fields; None for the
        description beside the file.

    Raises:
      ValueError: neither is there, or they disagree.
    """
    if config is None and file.config is None:
        raise ValueError(
            f"{file.path} does not say what model it holds; pass config, a preset's name or an "
            f"open_clip model JSON{params.advice(file)}"
        )
    if config is None:
        return file.config
    asked = files.resolve_config(config)
    if file.config is not None and (differing := differences(file.config, asked, sizes=True)):
        raise ValueError(
            f"{file.described_by} describes {file.path} as another model than config: "
            f"{_listed(differing, 'asked for')}; leave config out, or make it agree"
        )
    return asked


def check_agrees(what: str, there: CLIPConfig, here: CLIPConfig, advice: str) -> None:
    """Raises ValueError where two models are not the same function of the same parameters."""
    if differing := differences(there, here):
        raise ValueError(f"{what} has another model: {_listed(differing, 'here')}; {advice}")


def differences(
    there: CLIPConfig, here: CLIPConfig, *, sizes: bool = False
) -> dict[str, tuple[Any, Any]]:
    """The fields in which two models differ for whoever uses their parameters.

    Args:
      sizes: leave out what positional embeddings can be fitted to.
    """
    old, new = (flatten(ConfigDict(config.to_dict())) for config in (there, here))
    free = (*_OF_TRAINING, *(_SIZES if sizes else ()))
    return {
        name: (old[name], new[name])
        for name in old
        if old[name] != new[name]
        and name not in free
        # What a bias starts from is read in training alone; whether there is one is not.
        and not (name == "init_logit_bias" and None not in (old[name], new[name]))
    }


def _listed(differing: dict[str, tuple[Any, Any]], where: str) -> str:
    return "; ".join(
        f"{name}: {there!r} there, {here!r} {where}" for name, (there, here) in differing.items()
    )


def tokenizer(path: storage.Path, config: CLIPConfig, given: Any = None) -> tokenizers.Tokenizer:
    """The tokenizer that was asked for, else the one beside the weights, else CLIP's own.

    Raises:
      ValueError: none of these is of the model.
    """
    beside = (path if path.is_dir() else path.parent) / "tokenizer"
    length = config.text_cfg.context_length
    if given is None and not beside.is_dir():
        if config.text_cfg.vocab_size != CLIP_VOCAB_SIZE:
            raise ValueError(
                f"{path}: the model has {config.text_cfg.vocab_size} token ids, CLIP's vocabulary "
                f"has {CLIP_VOCAB_SIZE}; pass tokenizer, the folder or SentencePiece file that "
                "belongs to it"
            )
        return tokenizers.new("clip_bpe", config.text_cfg)
    where = storage.path(given or beside)
    if where.is_dir():
        return tokenizers.load(where)
    return SentencePieceTokenizer.from_file(where, length)
