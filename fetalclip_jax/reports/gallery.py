"""The figure of example images, each with its three best candidates."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.evaluation.examples import Judged
from fetalclip_jax.reports import style
from fetalclip_jax.reports.naming import display

_WIDEST_GROUP = 32


def figure(examples: Sequence[tuple[Judged, UInt8[np.ndarray, "..."]]], columns: int = 6) -> bytes:
    """PNG bytes: rightly classified images in the upper row, wrongly classified ones below.

    Args:
      examples: what was predicted, and the image as uint8 [H, W] or [H, W, 3]; of each kind the
        first `columns` are drawn.
      columns: images in a row.
    """
    groups = [
        (title, [e for e in examples if e[0].correct == flag][:columns])
        for title, flag in (("Right", True), ("Wrong", False))
    ]
    return _rows([(title, group) for title, group in groups if group], columns)


def mistakes(
    examples: Sequence[tuple[Judged, UInt8[np.ndarray, "..."]]], columns: int = 6
) -> bytes:
    """PNG bytes: wrong answers in one row, in the order they are given.

    Args:
      examples: what was predicted, and the image as uint8 [H, W] or [H, W, 3]; the first `columns`
        are drawn.
      columns: images in the row.
    """
    return _rows([("Wrong, and surest of it", list(examples[:columns]))], columns)


def _rows(groups, columns: int) -> bytes:
    with style.figure(1.72 * columns, 3.05 * len(groups)) as fig:
        bands = fig.subfigures(len(groups), 1, squeeze=False)[:, 0]
        for band, (title, group) in zip(bands, groups, strict=True):
            band.suptitle(title, x=0.008, ha="left", weight="bold", fontsize=11)
            axes = band.subplots(2, columns, height_ratios=[1.55, 0.62], squeeze=False)
            for image_axes, bar_axes in axes.T[len(group) :]:
                image_axes.set_axis_off()
                bar_axes.set_axis_off()
            for (judged, image), image_axes, bar_axes in zip(group, *axes, strict=False):
                _draw(judged, image, image_axes, bar_axes)
        return style.png(fig)


def _draw(judged: Judged, image: np.ndarray, image_axes, bar_axes) -> None:
    image_axes.imshow(square(image), cmap="gray", vmin=0, vmax=255, interpolation="lanczos")
    title = f"true: {display(judged.label)}"
    if judged.surest:
        title += f"\nmargin {judged.margin:.2f}"
    image_axes.set_title(title, fontsize=8.6, loc="center", pad=4)
    if judged.surest and judged.groups:
        of = ", ".join(judged.groups.values())
        spot = {"transform": image_axes.transAxes, "ha": "center", "va": "top", "fontsize": 6.8}
        image_axes.text(0.5, -0.03, textwrap.shorten(of, _WIDEST_GROUP), color=style.GREY, **spot)
    image_axes.set_axis_off()
    bar_axes.set_axis_off()
    candidates = judged.candidates or [(judged.prediction, float("nan"))]
    top = max((abs(score) for _, score in candidates), default=1.0) or 1.0
    for place, (name, score) in enumerate(candidates):
        colour = style.PALE
        if place == 0:
            colour = "#b9d7ea" if judged.correct else "#f3c9ac"
        mark = ("", " (true)")[name == judged.label and not judged.correct]
        bar_axes.barh(place, max(score, 0) / top, height=0.86, color=colour)
        weight = "bold" if place == 0 else "normal"
        text = f"{display(name)}{mark}"
        bar_axes.text(0.03, place, text, va="center", fontsize=7.4, weight=weight)
        if np.isfinite(score):
            bar_axes.text(1.24, place, f"{score:.2f}", va="center", ha="right", fontsize=7.2)
    bar_axes.set_xlim(0, 1.25)
    bar_axes.set_ylim(2.6, -0.6)


def square(image: np.ndarray) -> np.ndarray:
    """The image in the middle of a black square, as the model sees it."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, *image.shape[2:]), np.uint8)
    square[top : top + height, left : left + width] = image
    return square
