"""Two results of one study side by side: whether they may be compared, and on which images."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fetalclip_jax.evaluation.result import Predictions, Result

# Settings that leave the question as it is: those of the bootstrap, the sizes of a curve and the
# draws behind each (which are compared themselves), how many candidates a top-k looks at.
_MAY_DIFFER = (
    *("name", "resamples", "seed", "redraws", "progress"),
    *("sizes", "support_sets", "top_k"),
)
# Further truths that studies keep beside the label.
_TRUTHS = ("brain_label", "hc_mm", "ga_days")


@dataclasses.dataclass(frozen=True)
class Aligned:
    """Two results whose predictions are those of the same images in the same order.

    Attributes:
      first, second: the results, with predictions of the shared images alone.
      names: of the two models.
      only: how many images only the first, and only the second, has predictions of.
      groups: [n] what a bootstrap draws: patients, or images.
      notes: what a reader of a comparison must know, in sentences.
    """

    first: Result
    second: Result
    names: tuple[str, str]
    only: tuple[int, int]
    groups: np.ndarray
    notes: tuple[str, ...] = ()


def align(first: Result, second: Result, names: tuple[str, str] | None = None) -> Aligned:
    """Matches the predictions of two models by `example_id`.

    Args:
      first, second: results of the same study, data set, split and protocol.
      names: of the models in messages; None takes those the results give.

    Raises:
      ValueError: they are of another study, data set, split, protocol or other candidates, have no
        predictions or no image in common, name an image twice, or disagree on what is true.
    """
    names = names or (_name(first.model), _name(second.model))
    notes = list(_check(first, second, names))
    pair = []
    for result, name in zip((first, second), names, strict=True):
        if result.predictions is None:
            raise ValueError(
                f"{name}: {result.study} has no predictions beside its JSON (.npz) to be "
                "matched; evaluate again"
            )
        pair.append(result.predictions)
    rows = _rows(pair, names, first.study)
    count = len(rows[0])
    only = tuple(len(one.example_id) - count for one in pair)
    if any(only):
        alone = " and ".join(f"{n:,} of {name}" for n, name in zip(only, names, strict=True) if n)
        notes.append(f"{count:,} images are judged by both; {alone} alone are left out")
    pair = [select(one, own) for one, own in zip(pair, rows, strict=True)]
    _check_truths(pair, names, first.study)
    pair, more = _same_runs(pair, names, (first, second))
    return Aligned(
        first=dataclasses.replace(first, predictions=pair[0]),
        second=dataclasses.replace(second, predictions=pair[1]),
        names=names,
        only=only,
        groups=resampled(pair[0], first.protocol),
        notes=(*notes, *more),
    )


def resampled(predictions: Predictions, protocol: Mapping[str, Any]) -> np.ndarray:
    """What a bootstrap draws of these predictions by their protocol: patients, or images."""
    if protocol.get("resample_by", "patient") == "image":
        return predictions.example_id
    return predictions.patients()


def select(predictions: Predictions, rows: np.ndarray) -> Predictions:
    """Those of some of the images, in the order of `rows`."""
    if len(rows) == len(predictions.example_id) and (rows == np.arange(len(rows))).all():
        return predictions
    own = {name: getattr(predictions, name)[rows] for name in ("example_id", "patient_id")}
    own |= {name: getattr(predictions, name)[rows] for name in ("label", "prediction")}
    for name in ("extra", "groups"):
        own[name] = {key: value[rows] for key, value in getattr(predictions, name).items()}
    for name in ("runs", "ranks"):
        own[name] = {key: value[:, rows] for key, value in getattr(predictions, name).items()}
    scores = None if predictions.scores is None else predictions.scores[rows]
    return dataclasses.replace(predictions, scores=scores, **own)


def _check(first: Result, second: Result, names: tuple[str, str]) -> Iterator[str]:
    """Notes on what differs harmlessly; raises for what does not."""
    whose = f"{names[0]} and {names[1]}"

    def same(what: str, one: Any, other: Any, fix: str) -> None:
        if one != other:
            raise ValueError(
                f"{whose} cannot be compared in {first.study}: {what} {_plain(one)} and "
                f"{_plain(other)}; {fix}"
            )

    if first.study != second.study:
        raise ValueError(
            f"{whose} cannot be compared: the results are of the studies {first.study} and "
            f"{second.study}; give results of one study"
        )
    for key, what in (("name", "data sets"), ("kind", "kinds of data set"), ("simulated", "")):
        one, other = first.data.get(key), second.data.get(key)
        same(what or "simulated images:", one, other, "evaluate both on the same data set")
    stores = first.data.get("stores", {}), second.data.get("stores", {})
    for need in sorted(stores[0].keys() & stores[1].keys()):
        one, other = (store[need].get("split") for store in stores)
        same(f"splits of the {need} images", one, other, "evaluate both on the same split")
    one, other = (result.protocol.get("resample_by") for result in (first, second))
    same("their intervals redraw, resample_by:", one, other, "evaluate both by one --resample-by")
    yield from _check_protocols(first, second, same)
    counts = [store["fit"].get("images") for store in stores if "fit" in store]
    if len(set(counts)) > 1:
        yield f"{whose} had {counts[0]:,} and {counts[1]:,} images to learn from"
    if first.predictions is not None and second.predictions is not None:
        one, other = (sorted(one.predictions.candidates) for one in (first, second))
        same("candidates", one, other, "evaluate both with the same classes")


def _check_protocols(first: Result, second: Result, same) -> Iterator[str]:
    one, other = first.protocol, second.protocol
    fix = "evaluate both by the same protocol and settings"
    # What a protocol's name says was changed is compared setting by setting.
    base = [str(given.get("name", "")).partition(", changed:")[0] for given in (one, other)]
    same("protocols", *base, fix)
    for key in sorted(one.keys() & other.keys() - set(_MAY_DIFFER)):
        if key == "batch_size" and "epochs" not in one:
            continue  # prompts per call of the text tower
        if key == "splits" and one[key] and other[key]:
            if one[key] != other[key]:
                yield f"lists of patients were read from {one[key]} and {other[key]}"
            continue
        same(f"settings {key}", one[key], other[key], fix)
    alone = sorted((one.keys() ^ other.keys()) - set(_MAY_DIFFER))
    if alone and one and other:
        yield f"only one of the two records the settings {', '.join(alone)}"


def _rows(pair: list[Predictions], names, study: str) -> list[np.ndarray]:
    """Rows of the shared images in each, in the order of the first."""
    for one, name in zip(pair, names, strict=True):
        ids, times = np.unique(one.example_id, return_counts=True)
        if len(ids) < len(one.example_id):
            raise ValueError(
                f"{name}: the predictions of {study} name example_id {str(ids[times > 1][0])!r} "
                f"{times.max()} times; each image may occur once"
            )
    shared, first, second = np.intersect1d(
        *(one.example_id for one in pair), assume_unique=True, return_indices=True
    )
    if not len(shared):
        ids = [str(one.example_id[0]) if len(one.example_id) else "none" for one in pair]
        raise ValueError(
            f"{names[0]} and {names[1]} cannot be compared in {study}: none of their "
            f"{len(pair[0].example_id):,} and {len(pair[1].example_id):,} example ids, such as "
            f"{ids[0]!r} and {ids[1]!r}, is the same; evaluate both on the same images"
        )
    order = np.argsort(first)
    return [first[order], second[order]]


def _check_truths(pair: list[Predictions], names, study: str) -> None:
    columns = {"label": [one.label for one in pair]}
    columns["patient_id"] = [one.patient_id for one in pair]
    for name in _TRUTHS:
        if all(name in one.extra for one in pair):
            columns[name] = [one.extra[name] for one in pair]
    for what, (one, other) in columns.items():
        differ = np.flatnonzero(one.astype(np.str_) != other.astype(np.str_))
        if one.dtype.kind == other.dtype.kind == "f":
            differ = np.flatnonzero(~np.isclose(one, other, equal_nan=True))
        if len(differ):
            row = differ[0]
            raise ValueError(
                f"{names[0]} and {names[1]} cannot be compared in {study}: {what} differs for "
                f"{len(differ):,} of {len(one):,} images, first {str(pair[0].example_id[row])!r}, "
                f"{str(one[row])!r} and {str(other[row])!r}; evaluate both on the same labels"
            )


def _same_runs(pair: list[Predictions], names, results) -> tuple[list[Predictions], list[str]]:
    """Runs of both under the same keys; of a curve, the sizes that both have."""
    keys = [one.runs.keys() for one in pair]
    shared = keys[0] & keys[1]
    if not shared and not all(keys):
        return _without_runs(pair, names, results)
    if keys[0] == keys[1]:
        return pair, []
    if not shared:
        sizes = [", ".join(sorted(one, key=int)) for one in keys]
        raise ValueError(
            f"{names[0]} and {names[1]} cannot be compared in {results[0].study}: no size is the "
            f"same, {sizes[0]} and {sizes[1]} patients; evaluate both at the same sizes"
        )
    alone = [
        f"{', '.join(sorted(own - shared, key=int))} patients of {name}"
        for own, name in zip(keys, names, strict=True)
        if own - shared
    ]
    words = f"sizes that only one of them has are left out: {'; '.join(alone)}"
    return [_keep_runs(one, shared) for one in pair], [words]


def _without_runs(pair, names, results) -> tuple[list[Predictions], list[str]]:
    """The runs' mean scores, which is all that older results keep."""
    old = next(name for one, name in zip(pair, names, strict=True) if not one.runs)
    if results[0].curve:
        last = [max(int(point["patients"]) for point in one.curve) for one in results]
        if last[0] != last[1]:
            raise ValueError(
                f"{names[0]} and {names[1]} cannot be compared in {results[0].study}: {old} keeps "
                f"the answers of its largest size alone, and these are {last[0]} and {last[1]} "
                f"patients; evaluate {old} again"
            )
    several = any(one.runs or result.curve for one, result in zip(pair, results, strict=True))
    if not several and all(int(one.details.get("runs") or 1) == 1 for one in results):
        return pair, []  # of a single run nothing is lacking
    words = (
        f"the answers of every run of {old} are not kept: the runs' mean scores are compared; "
        "evaluate again for the runs themselves"
    )
    return [dataclasses.replace(one, runs={}, ranks={}) for one in pair], [words]


def _keep_runs(predictions: Predictions, keys) -> Predictions:
    kept = {
        name: {key: value for key, value in getattr(predictions, name).items() if key in keys}
        for name in ("runs", "ranks")
    }
    return dataclasses.replace(predictions, **kept)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return repr(value) if isinstance(value, str) else str(value)


def _name(identity: Mapping[str, Any]) -> str:
    return str(identity.get("name") or "a model without a name")
