"""Example images of a study, chosen by rule and not by hand, kept beside its result.

Some right and some wrong answers picked by a hash, and the wrong ones the model was surest of.

<folder>/examples/<study>/examples.json   what was predicted of each picture
                          0.png, 1.png    the pictures, in the same order
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fetalclip_jax import run, storage
from fetalclip_jax.data.clip_views import sampled
from fetalclip_jax.data.example import Example
from fetalclip_jax.evaluation.result import Predictions

_INDEX = "examples.json"
_CANDIDATES = 3
_OF_EACH_KIND = 6
_LONGER_SIDE = 320


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a study says of one image.

    Attributes:
      example_id: the image's id.
      label: the true class.
      prediction: the predicted class.
      candidates: the three best (class, score), best first; empty where a study has no scores.
      margin: score of the prediction less that of the best other class; None without scores.
      surest: chosen for its margin, not by the hash of its id.
      patient_id: "" where it is not known.
      groups: what results may be split by: machine, operator.
    """

    example_id: str
    label: str
    prediction: str
    candidates: tuple[tuple[str, float], ...] = ()
    margin: float | None = None
    surest: bool = False
    patient_id: str = ""
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """Whether the prediction is the true class."""
        return self.prediction == self.label


def choose(predictions: Predictions, count: int, correct: bool) -> list[Judged]:
    """Up to `count` images that were classified rightly, or wrongly, spread over the true classes.

    Classes take turns in alphabetical order. Within a class the hash of the id decides, so the
    choice is the same on every machine and favours neither easy nor striking images. Images
    without a label are passed over.
    """
    ids, labels, right = _judged(predictions)
    queues: dict[str, list[int]] = {}
    for row in sorted(range(len(ids)), key=lambda r: hashlib.sha256(ids[r].encode()).digest()):
        if labels[row] and right[row] == correct:
            queues.setdefault(str(labels[row]), []).append(row)
    rows: list[int] = []
    while len(rows) < count and any(queues.values()):
        for label in sorted(queues):
            if queues[label] and len(rows) < count:
                rows.append(queues[label].pop(0))
    return [judged(predictions, row) for row in rows]


def surest_mistakes(predictions: Predictions, count: int) -> list[Judged]:
    """Up to `count` wrong answers, those with the largest margin first; of equal ones by id.

    The margin is what the predicted class scores above the best other one: the same rule serves
    probabilities and cosines. Empty for a study without scores.
    """
    if predictions.scores is None:
        return []
    ids, labels, right = _judged(predictions)
    wrong = np.flatnonzero((labels != "") & ~right).tolist()
    margins = {row: _margin(predictions, row) for row in wrong}
    first = sorted(margins, key=lambda row: (-margins[row], ids[row]))[:count]
    return [dataclasses.replace(judged(predictions, row), surest=True) for row in first]


def pick(predictions: Predictions) -> list[Judged]:
    """What is kept of a study: six right and six wrong answers, and the six surest mistakes."""
    chosen = [row for flag in (True, False) for row in choose(predictions, _OF_EACH_KIND, flag)]
    return chosen + surest_mistakes(predictions, _OF_EACH_KIND)


def keep(folder: storage.Path, study: str, predictions: Predictions, source) -> storage.Path:
    """Saves what `pick` picks of a study, with its images.

    Args:
      folder: where `Result.save` wrote the result.
      study: its name.
      predictions: of the images of `source`, all or some.
      source: what was judged: `metadata()["example_id"]`, `[i] -> Example`, `facts`. Pictures
        larger than 320 pixels are saved smaller, clips as four frames.

    Raises:
      ValueError: the source does not hold a chosen image.
    """
    rows = pick(predictions)
    places = {str(name): k for k, name in enumerate(source.metadata()["example_id"])}
    absent = [row.example_id for row in rows if row.example_id not in places]
    if absent:
        raise ValueError(f"{study}: the data set no longer holds {absent[0]!r}; evaluate again")
    found = [source[places[row.example_id]] for row in rows]
    rows = [
        dataclasses.replace(row, groups=_groups(source.facts.group_columns, one.extra))
        for row, one in zip(rows, found, strict=True)
    ]
    return save(folder, study, rows, [picture(one) for one in found])


def save(
    folder: storage.Path,
    study: str,
    rows: Sequence[Judged],
    images: Sequence[UInt8[np.ndarray, "..."]],
) -> storage.Path:
    """Writes the pictures of a study; returns the path of its `examples.json`.

    Args:
      folder: where `Result.save` wrote the result.
      study: its name.
      rows: the chosen ones.
      images: uint8 [H, W] or [H, W, 3], one of each row.

    Raises:
      ValueError: another number of images than of rows.
    """
    if len(rows) != len(images):
        raise ValueError(f"{study}: {len(images)} images for {len(rows)} examples")
    folder = storage.path(folder) / "examples" / study
    # The index goes first and comes back last: killed in between, no picture has another's name.
    (folder / _INDEX).unlink(missing_ok=True)
    for leftover in folder.glob("*.png"):
        if leftover.stem.isdigit() and int(leftover.stem) >= len(rows):
            leftover.unlink()
    entries = []
    for place, (row, image) in enumerate(zip(rows, images, strict=True)):
        name = f"{place}.png"
        run.write_bytes(folder / name, png(image))
        entries.append({**dataclasses.asdict(row), "file": name})
    run.write_json(folder / _INDEX, {"study": study, "examples": entries})
    return folder / _INDEX


def load(folder: storage.Path, study: str) -> list[tuple[Judged, UInt8[np.ndarray, "..."]]]:
    """What `save` wrote: each example and its image; empty if it wrote nothing.

    Folders of earlier versions hold no surest mistakes.

    Raises:
      ValueError: `examples.json` or a picture is damaged or missing.
    """
    path = storage.path(folder) / "examples" / study / _INDEX
    if not path.exists():
        return []
    try:
        found = []
        for entry in json.loads(path.read_text(encoding="utf-8"))["examples"]:
            file = path.with_name(pathlib.PurePath(entry.pop("file")).name)
            pairs = tuple((str(name), float(score)) for name, score in entry.pop("candidates"))
            with file.open("rb") as opened, Image.open(opened) as image:
                found.append((Judged(**entry, candidates=pairs), np.asarray(image)))
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used ({error}); evaluate again") from error


def _judged(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, true classes, and whether the answer is right."""
    ids, labels, answers = (
        np.asarray(a).astype(str)
        for a in (predictions.example_id, predictions.label, predictions.prediction)
    )
    return ids, labels, labels == answers


def judged(predictions: Predictions, row: int) -> Judged:
    """What a study says of the image of a row."""
    return Judged(
        str(predictions.example_id[row]),
        str(predictions.label[row]),
        str(predictions.prediction[row]),
        _best(predictions, row),
        None if predictions.scores is None else _margin(predictions, row),
        patient_id=str(predictions.patient_id[row]),
    )


def _margin(predictions: Predictions, row: int) -> float:
    """Of a single candidate there is nothing to be surer of: 0."""
    chosen = np.array(predictions.candidates) == str(predictions.prediction[row])
    scores = predictions.scores[row]
    return (
        float(scores[chosen].max() - scores[~chosen].max())
        if 0 < chosen.sum() < len(chosen)
        else 0.0
    )


def _groups(columns: Sequence[str], extra: Mapping[str, str]) -> dict[str, str]:
    return {name: str(extra[name]) for name in columns if extra.get(name)}


def _best(predictions: Predictions, row: int) -> tuple[tuple[str, float], ...]:
    if predictions.scores is None:
        return ()
    scores = predictions.scores[row]
    order = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    return tuple((str(predictions.candidates[k]), float(scores[k])) for k in order)


def picture(example: Example) -> np.ndarray:
    """The image; of a clip four frames, read line by line."""
    if example.frames is None:
        return _shrunk(example.image)
    frames = [
        _shrunk(example.frames[k], _LONGER_SIDE // 2) for k in sampled(len(example.frames), 4)
    ]
    if any(frame.ndim == 3 for frame in frames):
        frames = [np.asarray(Image.fromarray(frame).convert("RGB")) for frame in frames]
    return np.concatenate([np.concatenate(frames[:2], 1), np.concatenate(frames[2:], 1)])


def _shrunk(image: np.ndarray, side: int = _LONGER_SIDE) -> np.ndarray:
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def png(image: np.ndarray) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
