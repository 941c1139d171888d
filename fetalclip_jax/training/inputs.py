"""What a run reads: its records and its tokenizer, each made on first use."""

import pathlib
import shutil

from ml_collections import ConfigDict

from fetalclip_jax import tokenizers
from fetalclip_jax.data import records
from fetalclip_jax.datasets import hc18, phantom


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
        return phantom.PhantomSource(
            data.seed,
            start,
            start + count,
            image_size=config.model.vision_cfg.image_size,
            images_per_patient=sizes.images_per_patient,
        )
    if data.source == "hc18":
        return hc18.HC18Source(
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
