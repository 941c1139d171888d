"""Retrieval: the captions of an image among those of a data set, and its images for a caption.

A caption is that of the data set, or is made of what is known of the image, worded as in training
and as `seed` chooses. Captions that mean the same are all right: of data sets, those of the same
text but for case, spaces and Unicode forms; of made ones, those that state the same facts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.data.columns import CAPTION
from fetalclip_jax.data.example import NO_IMAGE, Example
from fetalclip_jax.data.rows import Captions
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure, ranks
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.evaluation.text_features import encode_tokens

AT = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
# Of more batches than this, texts of like length are encoded together: a program for each length
# costs less than the padding.
_WORTH_SORTING = 8


@dataclasses.dataclass(frozen=True)
class RetrievalSettings(Settings):
    """Options of retrieval.

    Attributes:
      role: images that are searched, "test" or "all".
      batch_size: captions per call of the text tower.
      block_size: queries whose similarities are held at a time.
      progress: show a progress bar over the captions.
    """

    role: str = "test"
    batch_size: int = 256
    block_size: int = 256
    progress: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size < 1 or self.block_size < 1:
            raise ValueError(
                f"batch_size={self.batch_size} and block_size={self.block_size} must be at least 1"
            )


class Retrieval:
    """Recall at 1, 5 and 10 and the median rank, from image to text and from text to image."""

    settings_type = RetrievalSettings

    name = "retrieval"

    def __init__(self, **options):
        protocols = {"default": {}, "paper": {"role": "all", "resample_by": "image"}}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        self.scores = {
            f"{direction}_{metric}": less
            for direction in DIRECTIONS
            for metric, less in [*((f"recall_at_{k}", False) for k in AT), ("median_rank", True)]
        }
        self.needs = (Need("images", self.settings.role),)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Searches the clean images of `stores["images"]`; see `evaluation.study.Study`."""
        settings = self.settings
        stores["images"].check_model(model.fingerprint)
        texts, meanings, store, left_out = captions(stores["images"].clean(), settings.seed)
        require_finite("the image features", store.image_features, store.columns["example_id"])
        distinct, own, times = np.unique(texts, return_inverse=True, return_counts=True)
        features = _encoded(model, distinct, settings)
        blocks = {"block_size": settings.block_size}
        of_text = np.zeros(len(distinct), np.int64)
        of_text[own] = meanings
        to_text, nearest = ranks.first_hits(
            store.image_features, features, meanings, of_text, times, **blocks
        )
        to_image, _ = ranks.first_hits(features, store.image_features, of_text, meanings, **blocks)
        predictions = _predictions(
            store,
            own,
            distinct,
            nearest,
            dict(zip(DIRECTIONS, (to_text, to_image[own]), strict=True)),
        )
        bootstrap = Bootstrap(
            store.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        found = self.measures(predictions)
        from_data = _has_caption(store)
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(found),
            protocol=settings.to_json(leave_out=("progress", "batch_size", "block_size")),
            baselines=_baselines(found, bootstrap, store, meanings),
            details={
                "count": len(store),
                "patients": len(np.unique(store.patients())),
                "captions": len(distinct),
                "meanings": len(np.unique(meanings)),
                "captions_of_the_data": int(from_data.sum()),
                "captions_made_of_metadata": int((~from_data).sum()),
                "hits_mean": "the same text but for case and spaces, or the same facts",
                "ties": "count against the model",
                "resample_by": settings.resample_by,
                "resampled": "queries; the gallery is fixed",
                "left_out": left_out,
            },
            predictions=predictions,
        )

    @staticmethod
    def measures(predictions: Predictions) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        rows = np.arange(len(predictions.example_id))
        found = {}
        for direction in DIRECTIONS:
            of_query = predictions.extra[f"rank_{direction}"]
            for k in _ats(predictions):
                hits = measure.mean(of_query <= k)
                found[f"{direction}_recall_at_{k}"] = Measured(hits, rows)
            middle = measure.Median(of_query.astype(np.float64))
            found[f"{direction}_median_rank"] = Measured(middle, rows)
        return found


def captions(
    store: FeatureStore, seed: int
) -> tuple[np.ndarray, Int[np.ndarray, "n"], FeatureStore, dict[str, int]]:
    """Captions of images, as training would word them, and numbers for what they mean.

    Args:
      store: clean images.
      seed: chooses the wording of those that are made of metadata.

    Returns:
      texts [n], meanings [n], the images that have one, and how many are left out by reason.

    Raises:
      ValueError: nothing is known of any image, or all captions mean the same.
    """
    words = Captions(variants=1, seed=seed, positives="facts")
    silent = words(Example("", NO_IMAGE), 0, 1.0)[1]
    pairs = [words(example, 0, 1.0) for example in _examples(store)]
    speaks = np.array([meaning not in (silent, "caption: ") for _, meaning in pairs])
    texts = np.array([text for text, _ in pairs], np.str_)[speaks]
    if not len(texts):
        raise ValueError(
            f"retrieval: none of {len(store)} images has a caption, or a plane, an age or a pixel "
            "spacing to make one of; choose a data set with captions or labels"
        )
    found = [meaning for meaning, speaking in zip([m for _, m in pairs], speaks, strict=True)
             if speaking]  # fmt: skip
    _, meanings = np.unique(found, return_inverse=True)
    if meanings.max() == 0:
        raise ValueError(
            f"retrieval: the captions of all {len(texts)} images mean the same, such as "
            f"{str(texts[0])!r}: there is nothing to tell apart; choose a data set with two or more"
        )
    return texts, meanings, store.select(speaks), {"nothing is known": int((~speaks).sum())}


def _examples(store: FeatureStore) -> list[Example]:
    """What is known of the images, with the spacing of the pixels a model is shown."""
    columns, count = store.columns, len(store)
    texts = {
        name: [str(value) or None for value in columns.get(name, np.full(count, ""))]
        for name in (CAPTION, "plane", "brain_plane", "label")
    }
    ages, spacings = (
        [None if np.isnan(value) else value for value in columns[name].tolist()]
        for name in ("ga_days", "resized_spacing_mm")
    )
    return [
        Example(
            example_id=str(columns["example_id"][i]),
            image=NO_IMAGE,
            ga_days=None if ages[i] is None else int(ages[i]),
            pixel_spacing_mm=spacings[i],
            **{name: values[i] for name, values in texts.items()},
        )
        for i in range(count)
    ]


def _has_caption(store: FeatureStore) -> np.ndarray:
    return store.columns.get(CAPTION, np.full(len(store), "")) != ""


def _encoded(model, texts: np.ndarray, settings: RetrievalSettings) -> Float[np.ndarray, "m d"]:
    """Each distinct caption once, those of like length together where there are many."""
    tokens = np.asarray(model.tokenize(texts.tolist()))
    order = np.arange(len(tokens))
    if len(tokens) > _WORTH_SORTING * settings.batch_size:
        order = np.argsort(tokens.argmax(1), kind="stable")
    encoded = encode_tokens(
        model, tokens[order], batch_size=settings.batch_size, progress=settings.progress
    )
    features = np.empty_like(encoded)
    features[order] = encoded
    return features


def _ats(predictions: Predictions) -> tuple[int, ...]:
    """Of as many as there are, a hit is no merit."""
    return tuple(k for k in AT if k == 1 or k < len(predictions.example_id))


def _baselines(
    found: Mapping[str, Measured], bootstrap: Bootstrap, store: FeatureStore, meanings: np.ndarray
) -> dict[str, Baseline]:
    """Lists in random order, and those of somebody who knows the plane and nothing more."""
    every = np.full(len(store), len(store))
    guesses = {"chance": (every, ranks.counts_of(meanings), "a list in random order")}
    planes, plane = np.unique(store.columns["plane"], return_inverse=True)
    if len(planes) > 1:
        both = plane * (meanings.max() + 1) + meanings
        counts = ranks.counts_of(plane), ranks.counts_of(both)
        guesses["plane"] = (*counts, "the right plane first, in random order")
    baselines = {}
    for name, (entries, right, description) in guesses.items():
        for metric in found:
            if "_recall_at_" in metric:
                k = int(metric.rpartition("_")[2])
                value = float(ranks.chance_of_hit(entries, right, k).mean())
            else:
                value = float(ranks.chance_median_rank(entries, right))
            baselines[f"{name}_{metric}"] = Baseline(metric, bootstrap.constant(value), description)
    return baselines


def _predictions(
    store: FeatureStore,
    own: np.ndarray,
    distinct: np.ndarray,
    nearest: np.ndarray,
    of_query: Mapping[str, Any],
) -> Predictions:
    """The caption that is nearest to each image, by the image it is the caption of.

    Captions quote the size of a pixel, and differ between models of different image sizes: what is
    looked for is an image's caption, whatever its words.
    """
    ids = store.columns["example_id"]
    first = np.zeros(len(distinct), np.int64)
    first[own[::-1]] = np.arange(len(own))[::-1]  # the first image of each caption
    hit = of_query[DIRECTIONS[0]] == 1
    extra = {f"rank_{direction}": found for direction, found in of_query.items()}
    return Predictions(
        example_id=ids,
        patient_id=store.columns["patient_id"],
        label=ids,
        prediction=np.where(hit, ids, ids[first[nearest]]),
        extra=extra | {"caption": distinct[own], "nearest_caption": distinct[nearest]},
        groups=group_columns(store),
    )
