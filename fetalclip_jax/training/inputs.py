"""What a run reads: its records and its tokenizer, each made on first use, and batches of them."""

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32
from ml_collections import ConfigDict

from fetalclip_jax import storage, tokenizers
from fetalclip_jax.config import class_names, images_per_example
from fetalclip_jax.data import pipeline, records, subset
from fetalclip_jax.data.labelled import LabelledRecords
from fetalclip_jax.data.mixture import Mixture
from fetalclip_jax.datasets import registry
from fetalclip_jax.datasets.checked import CheckedSource
from fetalclip_jax.labels import TASKS
from fetalclip_jax.parallel import distributed
from fetalclip_jax.run import Run, whole_folder
from fetalclip_jax.training import origin

Records = records.RecordDataset | subset.Subset | Mixture

# Held-out batches whose loss is logged with every checkpoint.
_VALIDATION_BATCHES = 4


def source(config: ConfigDict, split: str) -> CheckedSource:
    """The examples of one split of `config.data.source`.

    Raises:
      ValueError: an unknown source or split, or whatever the source finds wrong with its folder;
        an objective that needs what the source does not have.
    """
    data = config.data
    options = data[data.source].to_dict() if data.source in data else {}
    if split == "train" and images_per_example(config) == 2:
        if registry.SECOND_IMAGES_OPTION not in options:
            raise ValueError(
                f"config.loss.consistency_weight={config.loss.consistency_weight} needs two "
                f"pictures of each anatomy, which config.data.source={data.source!r} does not "
                "have; set the weight to 0, or the source to one that draws them, such as phantom"
            )
        options[registry.SECOND_IMAGES_OPTION] = True
    return registry.open_source(
        data.source,
        data.root,
        split,
        options=options,
        image_size=config.model.vision_cfg.image_size,
        seed=data.seed,
    )


def validation_split(config: ConfigDict) -> str:
    """The split whose patients are neither trained on nor tested.

    Raises:
      ValueError: an unknown source.
    """
    return registry.roles(config.data.source)["validation"]


def mixed_in(config: ConfigDict) -> list[tuple[ConfigDict, float]]:
    """The configuration as it reads each data set of `config.data.mixture`, and its share.

    Raises:
      ValueError: a row that is none, a data set twice, or shares that leave nothing for the first.
    """
    found, names, rows = [], [config.data.source], config.data.mixture
    where = f"config.data.mixture={rows!r}"
    for row in rows:
        if not (isinstance(row, (tuple, list)) and [*map(type, row)] == [str, str, float]):
            raise ValueError(
                f"{where}: {row!r} is not (source, root, share), such as ('phantom', '', 0.5)"
            )
        source, root, share = row
        registry.roles(source)
        if source in names:
            raise ValueError(f"{where}: {source} is trained on already; name each data set once")
        names.append(source)
        other = config.copy_and_resolve_references()
        other.data.update(
            {"source": source, "root": root, "train_images": 0, "train_patients": 0, "mixture": ()}
        )
        found.append((other, share))
    shares = [share for _, share in found]
    if not all(share > 0 for share in shares) or sum(shares) >= 1:
        raise ValueError(
            f"{where}: shares of a batch must be above 0 and leave a part of it for "
            f"{config.data.source}: together below 1"
        )
    return found


def open_records(config: ConfigDict, workdir: storage.Path, split: str) -> records.RecordDataset:
    """Prepared records of one split, made on first use, by the lead process for all.

    Data that changed since are prepared anew, until a checkpoint relies on the records. Only the
    lead needs the original data.

    Raises:
      ValueError: as `source` and `data.records.prepare`.
    """
    return _open_records(config, workdir, split, split)


def open_mixed_in(
    config: ConfigDict, workdir: storage.Path
) -> list[tuple[ConfigDict, records.RecordDataset, float]]:
    """Records to train on of each data set of `config.data.mixture`; see `mixed_in`.

    Raises:
      ValueError: as `mixed_in` and `open_records`.
    """
    found = []
    for other, share in mixed_in(config):
        split = registry.roles(other.data.source)["train"]
        folder = f"{other.data.source}-{split}"
        found.append((other, _open_records(other, workdir, split, folder), share))
    return found


def _open_records(
    config: ConfigDict, workdir: storage.Path, split: str, folder: str
) -> records.RecordDataset:
    directory = Run(workdir).records(folder)

    def prepare() -> None:
        records.prepare(
            source(config, split),
            directory,
            image_size=config.model.vision_cfg.image_size,
            workers=config.data.workers,
            max_bad_share=config.data.max_bad_share,
            name=f"{config.data.source} {split}",
            replace=not Run(workdir).steps(),
        )

    distributed.on_lead(prepare)
    distributed.wait_for_disk(directory)
    return records.RecordDataset(directory)


def examples(config: ConfigDict, workdir: storage.Path, split: str) -> Records:
    """What is learned from a split: its records, or those with a label to learn; of "train" also
    some patients alone, or a mixture with other data sets.

    Says how many have a label, and what the others are, and what a batch is made of.

    Raises:
      ValueError: as `open_mixed_in`, `data.subset.of_patients` and `first_patients`; both numbers
        of what to train on are given; no record has a label.
    """
    dataset = open_records(config, workdir, split)
    if split != "train":
        return _labelled(config, dataset, split)
    images, patients = config.data.train_images, config.data.train_patients
    if images and patients:
        raise ValueError(
            f"config.data.train_images={images} and config.data.train_patients={patients}: give "
            "one of them"
        )
    if images:
        dataset = subset.of_patients(dataset, images, config.data.seed)
    if patients:
        dataset = subset.first_patients(dataset, patients, config.seed)
    dataset = _labelled(config, dataset, split)
    others = open_mixed_in(config, workdir)
    return _mixed(config, dataset, others) if others or patients else dataset


def _mixed(config: ConfigDict, dataset: records.RecordDataset | subset.Subset, others) -> Mixture:
    parts, names, shares = [dataset], [config.data.source], [1 - sum(one for *_, one in others)]
    for other, found, share in others:
        parts.append(_labelled(other, found, "train"))
        names.append(other.data.source)
        shares.append(share)
    mixture, size = Mixture(parts, names, shares), config.train.global_batch_size
    for name, (images, rows) in zip(names, mixture.parts_of_batch(size), strict=True):
        often = f", each {rows / images:.3g} times" if rows > images else ""
        distributed.say(f"{name}: {images} images, {rows} rows of a batch of {size}{often}")
        if often and config.captions.positives == "text" and not class_names(config):
            distributed.say(
                f"{name}: an image that is in a batch twice, in two wordings, counts as two; "
                "config.captions.positives='facts' compares what is said"
            )
    return mixture


def _labelled(
    config: ConfigDict, dataset: records.RecordDataset | subset.Subset, split: str
) -> records.RecordDataset | subset.Subset:
    if not class_names(config):
        return dataset
    labelled = LabelledRecords(dataset, TASKS[config.loss.labels])
    distributed.say(
        f"{config.data.source} {split}: {_counted(labelled.counts())}"
        + (f"; left out: {_counted(labelled.left_out)}" if labelled.left_out else "")
    )
    return labelled


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def open_tokenizer(config: ConfigDict, workdir: storage.Path) -> tokenizers.Tokenizer:
    """The run's tokenizer, made on first use, by the lead process for all, and kept with the run.

    Raises:
      ValueError: a vocabulary or a context length that does not fit the model.
    """
    folder = Run(workdir).tokenizer
    distributed.on_lead(lambda: None if _has_tokenizer(folder) else _make_tokenizer(config, folder))
    distributed.wait_for_disk(folder)
    return tokenizers.load(folder)


def _has_tokenizer(folder: storage.Path) -> bool:
    # In a bucket a folder is there from its first file on.
    return (folder / tokenizers.FILE_NAME if storage.is_bucket(folder) else folder).exists()


def _make_tokenizer(config: ConfigDict, folder: storage.Path) -> None:
    text = config.model.text_cfg
    if config.init_from:
        tokenizer = origin.tokenizer(config)
    else:
        tokenizer = tokenizers.new(config.tokenizer.kind, text, config.captions.seed)
    tokenizers.check_fits(tokenizer, text)
    with whole_folder(folder, tokenizers.FILE_NAME) as partial:
        tokenizer.save(partial)


def train_batches(
    config: ConfigDict,
    dataset: Records,
    tokenizer: tokenizers.Tokenizer,
    *,
    first_step: int,
    part: tuple[int, int],
) -> pipeline.BatchStream:
    """Endless global batches from number `first_step` on, of each the rows of one part.

    Args:
      first_step: batches that were seen before; none of them is read.
      part: (i, n) for the i-th of n equal runs of rows of `config.train.global_batch_size`.

    Raises:
      ValueError: as `data.pipeline.train_iterator`.
    """
    return _batches(
        config,
        dataset,
        tokenizer,
        global_batch_size=config.train.global_batch_size,
        augment=config.augment,
        caption_variants=config.captions.variants,
        first_step=first_step,
        part=part,
        workers=config.data.loader_workers,
    )


def validation_batches(
    config: ConfigDict,
    workdir: storage.Path,
    tokenizer: tokenizers.Tokenizer,
    shards: int,
    *,
    part: tuple[int, int],
) -> list[dict[str, np.ndarray]]:
    """The same few batches of patients not trained on, without augmentation, at every call.

    Args:
      shards: parts that a batch is split into: devices, times micro-batches.
      part: as in `train_batches`.

    Raises:
      ValueError: fewer examples than `shards`.
    """
    split = validation_split(config)
    dataset = examples(config, workdir, split)
    size = min(config.train.global_batch_size, len(dataset))
    size -= size % shards
    if not size:
        raise ValueError(
            f"the {split} split has {len(dataset)} examples, fewer than the {shards} devices a "
            "batch is split over; make it larger"
        )
    fixed = _batches(
        config,
        dataset,
        tokenizer,
        global_batch_size=size,
        augment=None,
        caption_variants=1,
        part=part,
    )
    with contextlib.closing(fixed):
        return [next(fixed) for _ in range(min(_VALIDATION_BATCHES, len(dataset) // size))]


def _batches(config, dataset, tokenizer, **options) -> pipeline.BatchStream:
    return pipeline.train_iterator(
        dataset,
        _no_text if class_names(config) else tokenizer,
        seed=config.seed,
        caption_seed=config.captions.seed,
        positives=config.captions.positives,
        **options,
    )


def _no_text(texts: Sequence[str]) -> Int32[np.ndarray, "n 1"]:
    """Tokens of an objective that reads none: of one length, which is compiled once."""
    return np.zeros((len(texts), 1), np.int32)
