"""Example images of a study, chosen by rule and not by hand, kept beside its result.

<folder>/examples/<study>/examples.json   what was predicted of each picture
                          0.png, 1.png    the pictures, in the same order
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fetalclip_jax import run
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
    """

    example_id: str
    label: str
    prediction: str
    candidates: tuple[tuple[str, float], ...] = ()

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
    labels, answers = (
        np.asarray(a).astype(str) for a in (predictions.label, predictions.prediction)
    )
    ids = np.asarray(predictions.example_id).astype(str)
    queues: dict[str, list[int]] = {}
    for row in sorted(range(len(ids)), key=lambda r: hashlib.sha256(ids[r].encode()).digest()):
        if labels[row] and (labels[row] == answers[row]) == correct:
            queues.setdefault(str(labels[row]), []).append(row)
    rows: list[int] = []
    while len(rows) < count and any(queues.values()):
        for label in sorted(queues):
            if queues[label] and len(rows) < count:
                rows.append(queues[label].pop(0))
    return [
        Judged(str(ids[row]), str(labels[row]), str(answers[row]), _best(predictions, row))
        for row in rows
    ]


def keep(folder: pathlib.Path, study: str, predictions: Predictions, source) -> pathlib.Path:
    """Chooses six images classified rightly and six wrongly, reads them again and saves them.

    Args:
      folder: where `Result.save` wrote the result.
      study: its name.
      predictions: of the images of `source`, all or some.
      source: what was judged: `metadata()["example_id"]`, `[i] -> Example`. Pictures larger than
        320 pixels are saved smaller.

    Raises:
      ValueError: the source does not hold a chosen image.
    """
    rows = [row for flag in (True, False) for row in choose(predictions, _OF_EACH_KIND, flag)]
    places = {str(name): k for k, name in enumerate(source.metadata()["example_id"])}
    absent = [row.example_id for row in rows if row.example_id not in places]
    if absent:
        raise ValueError(f"{study}: the data set no longer holds {absent[0]!r}; evaluate again")
    images = [_shrunk(source[places[row.example_id]].image) for row in rows]
    return save(folder, study, rows, images)


def save(
    folder: pathlib.Path,
    study: str,
    rows: Sequence[Judged],
    images: Sequence[UInt8[np.ndarray, "..."]],
) -> pathlib.Path:
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
    folder = pathlib.Path(folder) / "examples" / study
    # The index goes first and comes back last: killed in between, no picture has another's name.
    (folder / _INDEX).unlink(missing_ok=True)
    for leftover in folder.glob("*.png"):
        if leftover.stem.isdigit() and int(leftover.stem) >= len(rows):
            leftover.unlink()
    entries = []
    for place, (row, image) in enumerate(zip(rows, images, strict=True)):
        name = f"{place}.png"
        run.write_bytes(folder / name, _png(image))
        entries.append({**dataclasses.asdict(row), "file": name})
    run.write_json(folder / _INDEX, {"study": study, "examples": entries})
    return folder / _INDEX


def load(folder: pathlib.Path, study: str) -> list[tuple[Judged, UInt8[np.ndarray, "..."]]]:
    """What `save` wrote: each example and its image; empty if it wrote nothing.

    Raises:
      ValueError: `examples.json` or a picture is damaged or missing.
    """
    path = pathlib.Path(folder) / "examples" / study / _INDEX
    if not path.exists():
        return []
    try:
        found = []
        for entry in json.loads(path.read_text(encoding="utf-8"))["examples"]:
            pairs = tuple((str(name), float(score)) for name, score in entry["candidates"])
            row = Judged(entry["example_id"], entry["label"], entry["prediction"], pairs)
            with Image.open(path.with_name(pathlib.PurePath(entry["file"]).name)) as picture:
                found.append((row, np.asarray(picture)))
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used ({error}); evaluate again") from error


def _best(predictions: Predictions, row: int) -> tuple[tuple[str, float], ...]:
    if predictions.scores is None:
        return ()
    scores = predictions.scores[row]
    order = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    return tuple((str(predictions.candidates[k]), float(scores[k])) for k in order)


def _shrunk(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGER_SIDE, _LONGER_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
