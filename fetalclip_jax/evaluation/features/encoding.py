"""Encoding a data set once, for every study that reads it."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from fetalclip_jax.data import augment
from fetalclip_jax.evaluation.features.store import NUMBER_COLUMNS, TEXT_COLUMNS, FeatureStore
from fetalclip_jax.models import preprocess as image

RAW_SIDE = 16


def encode(
    model, dataset, *, batch_size: int = 128, copies: int = 0, seed: int = 0, progress: bool = True
) -> FeatureStore:
    """Encode every image of a data set, clean and `copies` times augmented.

    Augmentation happens at the size of the records, not at the native size of the image.

    Args:
      model: the loaded model.
      dataset: `__len__`, `[i] -> Example` with square images of the model's size, `fingerprint`.
      batch_size: images per call of the vision tower; the last batch is filled up with black.
      copies: augmented copies of each image, besides the clean one.
      seed: of the augmentation; copy k of image i depends on (seed, i, k) alone.
      progress: show a progress bar.

    Raises:
      ValueError: if the data set is empty or its images are not of the model's size.
    """
    if len(dataset) == 0:
        raise ValueError("the data set has no image: there is nothing to encode")
    if copies < 0 or batch_size < 1:
        raise ValueError(f"copies {copies} must be >= 0 and batch_size {batch_size} >= 1")
    size = model.config.vision_cfg.image_size
    rows = [(i, k) for i in range(len(dataset)) for k in range(copies + 1)]
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    features, raw_pixels, examples = [], [], []
    # One thread decodes and augments the next batch while the device encodes this one.
    with ThreadPoolExecutor(1) as reader, tqdm(total=len(rows), disable=not progress) as bar:
        bar.set_description("features")
        upcoming = reader.submit(_read, dataset, batches[0], size, seed)
        for number, batch in enumerate(batches):
            pixels, metadata = upcoming.result()
            if number + 1 < len(batches):
                upcoming = reader.submit(_read, dataset, batches[number + 1], size, seed)
            filled = np.zeros((batch_size, *pixels.shape[1:]), np.uint8)
            filled[: len(batch)] = pixels
            encoded = model.encode_image(np.asarray(image.normalise(filled)))
            features.append(np.asarray(encoded)[: len(batch)])
            raw_pixels.append(np.stack([shrink(one) for one in pixels]))
            examples.extend(metadata)
            bar.update(len(batch))
    return FeatureStore(
        image_features=np.concatenate(features),
        columns={name: _column(examples, name) for name in TEXT_COLUMNS + NUMBER_COLUMNS},
        raw_pixels=np.concatenate(raw_pixels),
        copy=np.array([k for _, k in rows], np.int32),
        fingerprint={
            "model": model.fingerprint,
            "data": dataset.fingerprint,
            "image_size": size,
            "copies": copies,
            "seed": seed,
        },
    )


def shrink(pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "p"]:
    """A grey 16 x 16 thumbnail by area averaging, flattened."""
    grey = pixels.astype(np.float32).mean(-1)
    small = cv2.resize(grey, (RAW_SIDE, RAW_SIDE), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8).ravel()


def _read(dataset, rows, size, seed):
    """Pixels uint8 [b, size, size, 3] and metadata of (index, copy) rows."""
    pixels, metadata = [], []
    for index, copy in rows:
        example = dataset[index]
        found = example.image.shape[:2]
        if found != (size, size):
            raise ValueError(
                f"{example.example_id}: image of {found[0]} x {found[1]} pixels, but the model "
                f"reads {size} x {size}: prepare the data set with image_size={size}"
            )
        picture = example.image
        if copy > 0:
            picture = augment.probe_augment(picture, np.random.default_rng([seed, index, copy]))
        if picture.ndim == 2:
            picture = np.broadcast_to(picture[..., None], (size, size, 3))
        pixels.append(picture)
        metadata.append(_metadata(example, size))
    return np.stack(pixels), metadata


def _metadata(example, size):
    values = {name: getattr(example, name, None) for name in TEXT_COLUMNS + NUMBER_COLUMNS}
    return values | {"resized_spacing_mm": example.resized_spacing_mm(size)}


def _column(examples, name):
    values = [example[name] for example in examples]
    if name in TEXT_COLUMNS:
        return np.array(["" if value is None else value for value in values], np.str_)
    return np.array([np.nan if value is None else value for value in values], np.float64)
