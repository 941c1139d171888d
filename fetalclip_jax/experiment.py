"""What a configuration and a working directory mean: records, tokenizer, model.

<workdir>/config.json     the resolved configuration
          records/<split> prepared data (ArrayRecord)
          tokenizer/      the vocabulary the model was trained with
          checkpoints/    parameters, optimiser state, data position
          metrics.jsonl, tensorboard/, features/<split>, results/, report.html
"""

import json
import pathlib
import shutil

import jax.numpy as jnp
from ml_collections import ConfigDict

from fetalclip_jax import tokenizers
from fetalclip_jax.captions.synthesis import caption_corpus
from fetalclip_jax.config import flatten, load_config, save_config
from fetalclip_jax.data import records, sources
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.presets import CLIPConfig, TextConfig
from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer
from fetalclip_jax.tokenizers.sentencepiece import SentencePieceTokenizer

# Captions the vocabulary is learned from: enough to see every word and number format.
_CORPUS_CAPTIONS = 8000
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


def source(config: ConfigDict, split: str):
    """The examples of one split: `train`, `test`, and for the phantom `pool` (probe patients).

    Raises:
      ValueError: an unknown source or split, or whatever the source finds wrong with its folder.
    """
    data = config.data
    if data.source == "phantom":
        sizes = data.phantom
        ends = {
            "train": (0, sizes.train_images),
            "pool": (sizes.train_images, sizes.pool_images),
            "test": (sizes.train_images + sizes.pool_images, sizes.test_images),
        }
        if split not in ends:
            raise ValueError(f"the phantom has no split {split!r}; it has {', '.join(ends)}")
        start, count = ends[split]
        for name, size in sizes.items():
            if size % sizes.images_per_patient:
                raise ValueError(
                    f"config.data.phantom.{name}={size} is not a multiple of images_per_patient="
                    f"{sizes.images_per_patient}: a patient would fall into two splits"
                )
        return sources.PhantomSource(
            data.seed,
            start,
            start + count,
            image_size=config.model.vision_cfg.image_size,
            images_per_patient=sizes.images_per_patient,
        )
    if data.source == "hc18":
        return sources.HC18Source(
            data.root, split=split, test_share=data.hc18.test_share, seed=data.seed
        )
    raise ValueError(f"config.data.source={data.source!r} is not one of phantom, hc18")


def open_records(config: ConfigDict, workdir: pathlib.Path, split: str) -> records.RecordDataset:
    """Prepared records of one split, made on first use.

    Raises:
      ValueError: as `source` and `data.records.prepare`.
    """
    return records.prepare(
        source(config, split),
        workdir / "records" / split,
        image_size=config.model.vision_cfg.image_size,
        workers=config.data.workers,
        max_bad_share=config.data.max_bad_share,
        name=f"{config.data.source} {split}",
    )


def new_tokenizer(kind: str, text: TextConfig, seed: int = 0) -> tokenizers.Tokenizer:
    """CLIP's own vocabulary, or one learned from synthetic captions.

    Raises:
      ValueError: an unknown kind.
    """
    if kind == "clip_bpe":
        return ClipBPETokenizer(context_length=text.context_length)
    if kind == "sentencepiece":
        return SentencePieceTokenizer.train(
            caption_corpus(_CORPUS_CAPTIONS, seed),
            vocab_size=text.vocab_size,
            context_length=text.context_length,
        )
    raise ValueError(f"config.tokenizer.kind={kind!r} is not one of sentencepiece, clip_bpe")


def open_tokenizer(config: ConfigDict, workdir: pathlib.Path) -> tokenizers.Tokenizer:
    """The run's tokenizer, made on first use and kept with the run.

    Raises:
      ValueError: a vocabulary or a context length that does not fit the model.
    """
    folder, text = workdir / "tokenizer", config.model.text_cfg
    if folder.is_dir():
        return tokenizers.load(folder)
    if config.init_from:
        tokenizer = tokenizers.load(pathlib.Path(config.init_from) / "tokenizer")
    else:
        tokenizer = new_tokenizer(config.tokenizer.kind, text, config.captions.seed)
    check_tokenizer(tokenizer, text)
    # Written beside its place: a process that is killed here must not leave half a vocabulary.
    partial = workdir / ".tokenizer.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save(partial)
    partial.rename(folder)
    return tokenizer


def check_tokenizer(tokenizer: tokenizers.Tokenizer, text: TextConfig) -> None:
    """That a text tower knows every id of a tokenizer, and takes rows of its length.

    Raises:
      ValueError: it does not.
    """
    if tokenizer.vocab_size > text.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's text_cfg.vocab_size is "
            f"{text.vocab_size}; set config.model.text_cfg.vocab_size to at least that, or use the "
            "tokenizer that belongs to the model"
        )
    if tokenizer.context_length != text.context_length:
        raise ValueError(
            f"the tokenizer's context_length is {tokenizer.context_length}, the model's "
            f"{text.context_length}; set config.model.text_cfg.context_length to the former"
        )


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


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes `content` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
