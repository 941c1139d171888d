"""What a run reads: its records and its tokenizer, each made on first use."""

import pathlib
import shutil

from ml_collections import ConfigDict

from fetalclip_jax import tokenizers
from fetalclip_jax.data import records
from fetalclip_jax.datasets import registry
from fetalclip_jax.datasets.checked import CheckedSource


def source(config: ConfigDict, split: str) -> CheckedSource:
    """The examples of one split of `config.data.source`.

    Raises:
      ValueError: an unknown source or split, or whatever the source finds wrong with its folder.
    """
    data = config.data
    return registry.open_source(
        data.source,
        data.root,
        split,
        options=data[data.source].to_dict() if data.source in data else {},
        image_size=config.model.vision_cfg.image_size,
        seed=data.seed,
    )


def validation_split(config: ConfigDict) -> str:
    """The split whose patients are neither trained on nor tested.

    Raises:
      ValueError: an unknown source.
    """
    return registry.roles(config.data.source)["validation"]


def open_records(config: ConfigDict, workdir: pathlib.Path, split: str) -> records.RecordDataset:
    """Prepared records of one split, made on first use.

    Data that changed since are prepared anew, until a checkpoint relies on the records.

    Raises:
      ValueError: as `source` and `data.records.prepare`.
    """
    trained = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
    return records.prepare(
        source(config, split),
        workdir / "records" / split,
        image_size=config.model.vision_cfg.image_size,
        workers=config.data.workers,
        max_bad_share=config.data.max_bad_share,
        name=f"{config.data.source} {split}",
        replace=not trained,
    )


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
        tokenizer = tokenizers.new(config.tokenizer.kind, text, config.captions.seed)
    tokenizers.check_fits(tokenizer, text)
    # Written beside its place: a process that is killed here must not leave half a vocabulary.
    partial = workdir / ".tokenizer.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save(partial)
    partial.rename(folder)
    return tokenizer
