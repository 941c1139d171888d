"""Activation maps drawn over their images."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

NAMES = {"grad_cam": "Grad-CAM", "hires_cam": "HiResCAM", "score_cam": "Score-CAM"}
_DOTS_PER_INCH = 110
_OUTLINE = "#00e5ff"  # on no place of the colour map
_COLOURS = "inferno"  # its brightness rises evenly, so it reads in print and to the colour-blind
_SHARE_OF_COLOUR = 0.6


def blended(
    pixels: UInt8[np.ndarray, "s s 3"], heat: Float[np.ndarray, "s s"]
) -> UInt8[np.ndarray, "s s 3"]:
    """A map in colours over its image; a map that is 0 everywhere leaves the image alone."""
    largest = heat.max()
    if largest <= 0:
        return pixels
    share = (_SHARE_OF_COLOUR * heat / largest)[..., None]
    colour = 255 * colormaps[_COLOURS](heat / largest)[..., :3]
    # The image shows through where the map is low.
    return np.rint((1 - share) * pixels + share * colour).astype(np.uint8)


def sheet(
    pixels: UInt8[np.ndarray, "n s s 3"],
    heat: Mapping[str, Float[np.ndarray, "n s s"]],
    titles: Sequence[str],
    masks: Bool[np.ndarray, "n s s"] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A row for each image: the image, then the map of each method over it.

    Args:
      pixels: images of the model's size.
      heat: maps by method, none negative.
      titles: written over each image.
      masks: outlined in every panel.
      notes: written over each map, by method.
    """
    columns = 1 + len(heat)
    figure = Figure((2.5 * columns + 0.7, 2.75 * len(pixels)), dpi=_DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(pixels), columns, squeeze=False)
    height = 2.75 * len(pixels)
    right = 1 - 0.75 / (2.5 * columns + 0.7)
    figure.subplots_adjust(0.01, 0.05 / height, right, 1 - 0.26 / height, 0.03, 0.12)
    for i, row in enumerate(grid):
        panels = {"": pixels[i]} | {name: blended(pixels[i], one[i]) for name, one in heat.items()}
        for axes, (name, panel) in zip(row, panels.items(), strict=True):
            axes.imshow(panel, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if masks is not None and masks[i].any():
                _outline(axes, masks[i])
            note = (notes or {}).get(name, [""] * len(pixels))[i]
            words = f"{NAMES[name]} {note}".rstrip() if name else titles[i]
            axes.set_title(words, fontsize=9, pad=3, parse_math=False)
    place = figure.add_axes((right + 0.012, 0.05, 0.016, 0.9 - 0.26 / height))
    bar = figure.colorbar(ScalarMappable(cmap=_COLOURS), cax=place, ticks=[0, 1])
    bar.ax.set_yticklabels(["0", "most"], fontsize=9)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _outline(axes, mask: Bool[np.ndarray, "s s"]) -> None:
    framed = np.pad(mask.astype(float), 1)  # at the border of the image too
    where = np.arange(-1, len(framed) - 1)
    axes.contour(where, where, framed, levels=[0.5], colors=[_OUTLINE], linewidths=[1.2])
    axes.set(xlim=(-0.5, len(mask) - 0.5), ylim=(len(mask) - 0.5, -0.5))
