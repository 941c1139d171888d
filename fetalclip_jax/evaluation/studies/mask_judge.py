"""What decoders draw on test images: measured, tabled, and held against constants."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.heads.unetr import Decoders
from fetalclip_jax.evaluation.outlines import Outlines
from fetalclip_jax.evaluation.result import Baseline, Predictions
from fetalclip_jax.evaluation.statistics import segmentation
from fetalclip_jax.evaluation.statistics.splits import Split
from fetalclip_jax.evaluation.studies.mask_data import ROWS_AT_ONCE, MaskData, areas_of

HEAD = "head"
_IMAGES_AT_ONCE = 32
_HALF = 0.5


def judge(data: MaskData, decoders: Decoders, distances: bool = True) -> Outlines:
    """What every run draws on the test images.

    Args:
      distances: measure Hausdorff distances and circumferences too; else they are nan.
    """
    shown, rows = data.read(data.test), np.arange(len(data.test))
    found = [
        _compared(data, probability, batch, distances)
        for batch, probability in decoders.probabilities(shown, rows, progress=data.progress)
    ]
    return _outlines(data, found)


def drawn(
    data: MaskData, decoders: Decoders, rows: Int[np.ndarray, "n"]
) -> Bool[np.ndarray, "n s s k"]:
    """What most of the runs draw on some test images."""
    found = decoders.probabilities(data.read(data.test), rows)
    return np.concatenate([(one >= _HALF).mean(0) >= _HALF for _, one in found])


def baselines(
    data: MaskData, splits: Sequence[Split], measured: Mapping[str, object]
) -> dict[str, Baseline]:
    """One mask for all images, and one circumference.

    Args:
      splits: whose training images the constants are of.
      measured: by the names of the metrics that there are to compare with.
    """
    rows = np.unique(np.concatenate([data.rows(split)[0] for split in splits]))
    share = _mean_mask(data.fit, rows)
    one_mask = _outlines(
        data,
        [
            _compared(data, np.broadcast_to(share, (1, len(batch), *share.shape)), batch, True)
            for batch in _batches(data)
        ],
    )
    words = "one mask for all images: every pixel that most training images have"
    given = [
        (f"constant_mask_{name}", name, one_mask, words)
        for name in ("dice", "image_dice", "hausdorff95_mm")
    ]
    known = data.fit.columns["hc_mm"][rows]
    if one_mask.hc_mm is not None and np.isfinite(known).any():
        always = float(np.nanmean(known))
        one = dataclasses.replace(one_mask, hc_mm=np.full_like(one_mask.hc_mm, always))
        words = f"always the mean circumference of the training images, {always:.0f} mm"
        given.append(("constant_hc_mae_mm", "hc_mae_mm", one, words))
    bootstrap, found = data.bootstrap(), {}
    for name, metric, drawn, words in given:
        one = drawn.measures().get(metric)
        if one is not None and metric in measured:
            estimate = bootstrap.select(one.rows).estimate(one.measure)
            found[name] = Baseline(metric, estimate, words)
    return found


def annotation_error(data: MaskData) -> dict[str, float]:
    """Mean and mean absolute error of ellipses through the annotated outlines, mm.

    What the size of pixels, and the width of an annotated line, cost the best of decoders;
    empty where nothing is known of circumferences.
    """
    if HEAD not in data.structures:
        return {}
    k = data.structures.index(HEAD)
    true = [data.test.masks(batch)[..., k].astype(np.float64) for batch in _batches(data)]
    pairs = zip(true, _batches(data), strict=True)
    hc_mm = np.concatenate([_circumferences(data, masks[None], rows)[0] for masks, rows in pairs])
    difference = hc_mm - data.test.columns["hc_mm"]
    difference = difference[np.isfinite(difference)]
    if not len(difference):
        return {}
    return {"bias_mm": float(difference.mean()), "mae_mm": float(np.abs(difference).mean())}


def predictions(data: MaskData, outlines: dict[str, Outlines]) -> Predictions:
    """The table of the last of `outlines`, and what every run drew, by key."""
    last, columns = list(outlines.values())[-1], data.test.columns
    drawn = last.predicted.mean(0) > 0
    return Predictions(
        example_id=columns["example_id"],
        patient_id=columns["patient_id"],
        label=_named(data, last.true > 0),
        prediction=_named(data, drawn),
        candidates=data.structures,
        extra=last.columns(),
        groups=group_columns(data.test),
        runs={key: one.kept() for key, one in outlines.items()},
    )


def _named(data: MaskData, there: Bool[np.ndarray, "n k"]) -> np.ndarray:
    names = np.array(data.structures)
    return np.array([", ".join(names[row]) for row in there], np.str_)


def _compared(data: MaskData, probability: np.ndarray, rows: np.ndarray, distances: bool):
    """Numbers [runs, b, q] of some test images, in the order of `Outlines.kept`."""
    true = data.test.masks(rows)
    drawn = probability >= _HALF
    both, predicted, _ = segmentation.areas(drawn, np.broadcast_to(true, drawn.shape))
    spacing = data.test.columns["resized_spacing_mm"][rows]
    runs, images, structures = both.shape
    away = np.full(both.shape, np.nan)
    hc_mm = np.full((runs, images), np.nan)
    if distances:
        for run, k in np.ndindex(runs, structures):
            away[run, :, k] = segmentation.hausdorff95(drawn[run, ..., k], true[..., k], spacing)
        if HEAD in data.structures:
            k = data.structures.index(HEAD)
            hc_mm = _circumferences(data, probability[..., k].astype(np.float64), rows)
    return both, predicted, away, hc_mm


def _circumferences(data: MaskData, probability: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of heads, [runs, b], from the probability of each pixel [runs, b, s, s]."""
    spacing = data.test.columns["resized_spacing_mm"][rows]
    content = [segmentation.content(shown) for shown in data.test.pixels(rows)]
    return np.array(
        [
            [
                segmentation.head_circumference_mm(one, float(mm), place)
                for one, mm, place in zip(own, spacing, content, strict=True)
            ]
            for own in probability
        ]
    )


def _batches(data: MaskData) -> list[np.ndarray]:
    return np.array_split(np.arange(len(data.test)), -(-len(data.test) // _IMAGES_AT_ONCE))


def _outlines(data: MaskData, batches) -> Outlines:
    both, predicted, away, hc_mm = (
        np.concatenate(parts, 1) for parts in zip(*batches, strict=True)
    )
    is_head = HEAD in data.structures
    return Outlines(
        data.structures,
        areas_of(data.test),
        both.astype(np.float64),
        predicted.astype(np.float64),
        away,
        hc_mm if is_head else None,
        data.test.columns["hc_mm"].astype(np.float64) if is_head else None,
    )


def _mean_mask(store: TokenStore, rows: np.ndarray) -> np.ndarray:
    """The share of images that have each pixel, float32 [s, s, k]."""
    total = 0.0
    for start in range(0, len(rows), ROWS_AT_ONCE):
        total = total + store.masks(rows[start : start + ROWS_AT_ONCE]).sum(0)
    return (total / len(rows)).astype(np.float32)
