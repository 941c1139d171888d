"""Example images with their three best candidates, chosen by rule and not by hand."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.reports import style
from fetalclip_jax.reports.plots import display
from fetalclip_jax.reports.summary import number

COLUMNS = 6
_RECORDS = pathlib.PurePath("records", "test")


@dataclasses.dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Attributes:
      example_id: the id.
      label: the true class.
      prediction: the predicted class.
      candidates: (class, score), best first; empty where the scores were not stored.
      image: uint8 [H, W] or [H, W, 3].
    """

    example_id: str
    label: str
    prediction: str
    candidates: Sequence[tuple[str, float]]
    image: UInt8[np.ndarray, "..."]

    @property
    def correct(self) -> bool:
        """Whether the prediction is the true class."""
        return self.prediction == self.label


def choose(rows: Sequence[Mapping[str, str]], count: int, correct: bool) -> list[Mapping[str, str]]:
    """Up to `count` rows, right or wrong ones, spread over the true classes.

    Classes take turns in alphabetical order. Within a class the hash of the id decides, so the
    choice is the same on every machine and favours neither easy nor striking images.
    """
    queues: dict[str, list[Mapping[str, str]]] = {}
    for row in sorted(rows, key=lambda r: hashlib.sha256(r["example_id"].encode()).digest()):
        if row.get("label") and (row["prediction"] == row["label"]) == correct:
            queues.setdefault(row["label"], []).append(row)
    chosen: list[Mapping[str, str]] = []
    while len(chosen) < count and any(queues.values()):
        for label in sorted(queues):
            if queues[label] and len(chosen) < count:
                chosen.append(queues[label].pop(0))
    return chosen


def cards(rows: Sequence[Mapping[str, str]], workdir: pathlib.Path) -> list[Card]:
    """Cards of the chosen rows: the right predictions first, then the wrong ones.

    Raises:
      ValueError: `workdir` holds no records of the test split, or none of these predictions.
    """
    # Imported here: reading records is the one part of a report that needs the data stack.
    from fetalclip_jax.data.records import RecordDataset

    directory = workdir / _RECORDS
    if not directory.is_dir():
        raise ValueError(f"no records at {_RECORDS}: example images need the prepared test split")
    records = RecordDataset(directory)
    index = {str(name): i for i, name in enumerate(records.metadata()["example_id"])}
    rows = [row for row in rows if row["example_id"] in index]
    if not rows:
        raise ValueError(
            f"the records at {_RECORDS} hold none of the predicted images; they come from "
            "different preparations"
        )
    chosen = choose(rows, COLUMNS, correct=True) + choose(rows, COLUMNS, correct=False)
    return [
        Card(
            example_id=row["example_id"],
            label=row["label"],
            prediction=row["prediction"],
            candidates=top_three(row),
            image=np.asarray(records[index[row["example_id"]]].image),
        )
        for row in chosen
    ]


def top_three(row: Mapping[str, str]) -> list[tuple[str, float]]:
    """The best candidates of a prediction row (`top1`, `score1`, ...), best first."""
    pairs = [(row.get(f"top{k}"), number(row.get(f"score{k}"))) for k in (1, 2, 3)]
    return [(name, score) for name, score in pairs if name and score is not None]


def figure(gallery: Sequence[Card]) -> bytes:
    """The cards as PNG bytes: right predictions in the upper rows, wrong ones below."""
    groups = [
        (title, [c for c in gallery if c.correct == flag])
        for title, flag in (("Right", True), ("Wrong", False))
    ]
    groups = [(title, group) for title, group in groups if group]
    with style.figure(1.72 * COLUMNS, 3.05 * len(groups)) as fig:
        bands = fig.subfigures(len(groups), 1, squeeze=False)[:, 0]
        for band, (title, group) in zip(bands, groups, strict=True):
            band.suptitle(title, x=0.008, ha="left", weight="bold", fontsize=11)
            axes = band.subplots(2, COLUMNS, height_ratios=[1.55, 0.62], squeeze=False)
            for image_axes, bar_axes in axes.T[len(group) :]:
                image_axes.set_axis_off()
                bar_axes.set_axis_off()
            for card, image_axes, bar_axes in zip(group, axes[0], axes[1], strict=False):
                _draw(card, image_axes, bar_axes)
        return style.png(fig)


def _draw(card: Card, image_axes, bar_axes) -> None:
    image_axes.imshow(card.image, cmap="gray", vmin=0, vmax=255, interpolation="lanczos")
    image_axes.set_title(f"true: {display(card.label)}", fontsize=8.6, loc="center", pad=4)
    image_axes.set_axis_off()
    bar_axes.set_axis_off()
    candidates = card.candidates or [(card.prediction, float("nan"))]
    top = max((abs(score) for _, score in candidates), default=1.0) or 1.0
    for place, (name, score) in enumerate(candidates):
        colour = style.PALE
        if place == 0:
            colour = "#b9d7ea" if card.correct else "#f3c9ac"
        mark = ("", " (true)")[name == card.label and not card.correct]
        bar_axes.barh(place, max(score, 0) / top, height=0.86, color=colour)
        weight = "bold" if place == 0 else "normal"
        text = f"{display(name)}{mark}"
        bar_axes.text(0.03, place, text, va="center", fontsize=7.4, weight=weight)
        if np.isfinite(score):
            bar_axes.text(1.24, place, f"{score:.2f}", va="center", ha="right", fontsize=7.2)
    bar_axes.set_xlim(0, 1.25)
    bar_axes.set_ylim(2.6, -0.6)
