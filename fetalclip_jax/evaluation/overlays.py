"""Outlines over images: what is true, and what was drawn."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fetalclip_jax.evaluation.pictures import Picture

# Told apart on grey, and by most colour-blind readers; after Okabe and Ito.
_COLOURS = (
    *("#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#00b386", "#ff6f3c"),
    *("#9ad0ff", "#ffffff", "#c3e88d"),
)
# Those too light for the white of a legend.
_TOO_LIGHT = {"#ffffff": "#999999", "#f0e442": "#c9bb00", "#9ad0ff": "#5a9fd6"}
_DOTS_PER_INCH = 110


def chosen(
    image_dice: Float[np.ndarray, "m n k"],
) -> tuple[Int[np.ndarray, "_"], Float[np.ndarray, "_"]]:
    """Rows of the best, the median and the worst image, and their Dice.

    The Dice of an image is the mean over runs and structures that have one; an image without any is
    not shown.
    """
    known = np.isfinite(image_dice)
    count = known.sum((0, 2))
    dice = np.where(known, image_dice, 0).sum((0, 2)) / np.maximum(count, 1)
    judged = np.flatnonzero(count)
    order = judged[np.argsort(-dice[judged], kind="stable")]
    places = dict.fromkeys((0, len(order) // 2, len(order) - 1))
    rows = order[list(places)]
    return rows, dice[rows]


def picture(
    pixels: UInt8[np.ndarray, "n s s 3"],
    true: Bool[np.ndarray, "n s s k"],
    drawn: Bool[np.ndarray, "n s s k"],
    structures: Sequence[str],
    dice: Float[np.ndarray, "n"],
    names: Sequence[str],
) -> Picture:
    """Images side by side with the true outlines dotted and the drawn ones solid."""
    ranks = ("best", "median", "worst") if len(pixels) == 3 else [""] * len(pixels)
    legend_rows = math.ceil((len(structures) + 2) / 6)
    figure = Figure((3.4 * len(pixels), 3.75 + 0.24 * legend_rows), dpi=_DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    bottom = (0.1 + 0.24 * legend_rows) / figure.get_figheight()
    figure.subplots_adjust(0.01, bottom, 0.99, 0.92, wspace=0.03)
    for i, axes in enumerate(figure.subplots(1, len(pixels), squeeze=False)[0]):
        axes.imshow(pixels[i], interpolation="bilinear")
        for k, colour in zip(range(len(structures)), _colours(len(structures)), strict=True):
            for mask, style, width in ((true, ":", 2.0), (drawn, "-", 1.2)):
                if mask[i, ..., k].any():
                    # At the border of the image too.
                    framed = np.pad(mask[i, ..., k].astype(float), 1)
                    where = np.arange(-1, len(framed) - 1)
                    axes.contour(
                        *(where, where, framed),
                        levels=[0.5], colors=[colour], linestyles=[style], linewidths=[width],
                    )  # fmt: skip
        axes.set(xticks=[], yticks=[], xlim=(-0.5, len(pixels[i]) - 0.5))
        axes.set_ylim(len(pixels[i]) - 0.5, -0.5)
        axes.set_title(f"{ranks[i]}: Dice {dice[i]:.3f}".lstrip(": "), fontsize=11)
    handles = [
        Line2D([], [], color=colour, lw=2.5, label=name.replace("_", " "))
        for name, colour in zip(structures, _colours(len(structures)), strict=True)
    ]
    handles += [
        Line2D([], [], color="black", ls=":", lw=2, label="annotated"),
        Line2D([], [], color="black", ls="-", lw=1.4, label="predicted"),
    ]
    legend = figure.legend(
        handles=handles, ncols=min(len(handles), 6), loc="lower center", fontsize=9, frameon=False
    )
    for line in legend.get_lines():
        if line.get_color() in _TOO_LIGHT:
            line.set_color(_TOO_LIGHT[line.get_color()])
    canvas.draw()
    shown = [
        f"{rank} {name} (Dice {value:.3f})".strip()
        for rank, name, value in zip(ranks, names, dice, strict=True)
    ]
    return Picture(
        "outlines",
        np.asarray(canvas.buffer_rgba())[..., :3].copy(),
        f"Dotted: annotated outlines; solid: those that most runs draw. Chosen by the Dice of the "
        f"test images: {', '.join(shown)}.",
        f"{len(pixels)} ultrasound images with outlines of {', '.join(structures)}",
    )


def _colours(count: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(count)]
