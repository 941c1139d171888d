"""Which images are taken for what, with pictures: the wrong ones beside right ones of both classes.

<folder>/confusions/<study>/confusions.json   the most frequent pairs of a true and another answer
                            0.png, 1.png      the pictures, in the order of the file
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fetalclip_jax import run, storage
from fetalclip_jax.evaluation import examples
from fetalclip_jax.evaluation.examples import Judged
from fetalclip_jax.evaluation.result import Predictions

_INDEX = "confusions.json"
_PAIRS, _OF_EACH_KIND, _FEWEST = 4, 4, 2


@dataclasses.dataclass(frozen=True)
class Shown:
    """Images of one kind, with what was answered of each.

    Attributes:
      kind: "mistaken", "right" (of the class `label`), or "reference" (of another data set).
      label: their true class.
      of: the data set of a reference, else "".
      images: each with what is known of it; of a reference the prediction is "".
    """

    kind: str
    label: str
    of: str
    images: list[tuple[Judged, UInt8[np.ndarray, "..."]]]


@dataclasses.dataclass(frozen=True)
class Confusion:
    """A true class that is often answered with another.

    Attributes:
      label, prediction: the classes.
      count: images of this pair.
      total: images of the true class.
      shown: the mistaken ones that the model was surest of, then right ones of both classes and,
        where they were asked for, images of both in another data set.
    """

    label: str
    prediction: str
    count: int
    total: int
    shown: tuple[Shown, ...]


def pairs(predictions: Predictions) -> list[tuple[str, str, int]]:
    """(true, predicted, images) of the most frequent wrong answers, up to four of two images."""
    labels, answers = predictions.label.astype(str), predictions.prediction.astype(str)
    wrong = (labels != "") & (labels != answers)
    counts = Counter(zip(labels[wrong].tolist(), answers[wrong].tolist(), strict=True))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(*pair, count) for pair, count in ordered[:_PAIRS] if count >= _FEWEST]


def surest(predictions: Predictions, label: str, prediction: str) -> list[Judged]:
    """Up to four images of a class with this answer, largest margin first; of equal ones by id."""
    chosen = (predictions.label == label) & (predictions.prediction == prediction)
    found = [examples.judged(predictions, row) for row in np.flatnonzero(chosen).tolist()]
    return sorted(found, key=lambda one: (-(one.margin or 0.0), one.example_id))[:_OF_EACH_KIND]


def keep(
    folder: storage.Path,
    study: str,
    predictions: Predictions,
    source,
    reference: tuple[str, Any, str] | None = None,
) -> None:
    """Saves the most frequent confusions of a study, with their images; none where there is none.

    Args:
      folder: where `Result.save` wrote the result.
      study: its name.
      predictions: of the images of `source`, all or some.
      source: what was judged, as for `examples.keep`.
      reference: name, source and column of classes of a data set whose images stand beside.
    """
    places = {str(name): k for k, name in enumerate(source.metadata()["example_id"])}

    def read(rows: Sequence[Judged]) -> list[tuple[Judged, np.ndarray]]:
        return [(row, examples.picture(source[places[row.example_id]])) for row in rows]

    found = []
    for label, prediction, count in pairs(predictions):
        shown = [Shown("mistaken", label, "", read(surest(predictions, label, prediction)))]
        for name in (label, prediction):
            shown.append(Shown("right", name, "", read(surest(predictions, name, name))))
        if reference is not None:
            shown += [_of_reference(*reference, name) for name in (label, prediction)]
        total = int((predictions.label == label).sum())
        kept = tuple(one for one in shown if one.images)
        found.append(Confusion(label, prediction, count, total, kept))
    _save(storage.path(folder) / "confusions" / study, found)


def load(folder: storage.Path, study: str) -> list[Confusion]:
    """What `keep` kept; empty if it kept nothing.

    Raises:
      ValueError: `confusions.json` or a picture is damaged or missing.
    """
    path = storage.path(folder) / "confusions" / study / _INDEX
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["confusions"]
        return [
            Confusion(**one | {"shown": tuple(_read(path, shown) for shown in one["shown"])})
            for one in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used ({error}); evaluate again") from error


def _of_reference(name: str, source, column: str, label: str) -> Shown:
    """Images of a class in another data set, chosen by the hash of their ids."""
    columns = source.metadata()
    values = columns.get(column, np.full(len(source), ""))
    rows = np.flatnonzero(values == label).tolist()
    ids = columns["example_id"].astype(str)
    rows.sort(key=lambda row: hashlib.sha256(ids[row].encode()).digest())
    images = [
        (Judged(ids[row], label, ""), examples.picture(source[row])) for row in rows[:_OF_EACH_KIND]
    ]
    return Shown("reference", label, name, images)


def _save(folder: storage.Path, found: Sequence[Confusion]) -> None:
    # As with examples: the index goes first and comes back last.
    (folder / _INDEX).unlink(missing_ok=True)
    for leftover in folder.glob("*.png"):
        leftover.unlink()
    if not found:
        return
    written, entries = 0, []
    for one in found:
        rows = []
        for shown in one.shown:
            images = []
            for judged, image in shown.images:
                run.write_bytes(folder / f"{written}.png", examples.png(image))
                images.append(dataclasses.asdict(judged) | {"file": f"{written}.png"})
                written += 1
            rows.append(
                {"kind": shown.kind, "label": shown.label, "of": shown.of, "images": images}
            )
        fields = {name: getattr(one, name) for name in ("label", "prediction", "count", "total")}
        entries.append(fields | {"shown": rows})
    run.write_json(folder / _INDEX, {"confusions": entries})


def _read(path: storage.Path, entry: Mapping[str, Any]) -> Shown:
    images = []
    for one in entry["images"]:
        one = dict(one)
        file = path.with_name(storage.path(one.pop("file")).name)
        one["candidates"] = tuple((str(name), float(score)) for name, score in one["candidates"])
        with file.open("rb") as opened, Image.open(opened) as picture:
            images.append((Judged(**one), np.asarray(picture)))
    return Shown(entry["kind"], entry["label"], entry["of"], images)
