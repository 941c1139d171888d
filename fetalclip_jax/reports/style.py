"""One look for every figure: white card, quiet axes, colours that survive colour blindness."""

import contextlib
import io
from collections.abc import Iterator

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's palette, safe for the common forms of colour blindness.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4499"
INK = "#1f2933"
GREY = "#6b7785"
PALE = "#e4e8ed"

_SERIES = (BLUE, VERMILLION, GREEN, PURPLE, INK)
_MARKERS = "os^Dv"

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.8,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "figure.facecolor": "white",
    # Names and ids come from data: a dollar sign in them is not mathematics.
    "text.parse_math": False,
}
_DPI = 140


def series(place: int) -> dict[str, str]:
    """Colour and marker of one of several series; both tell it from the others, up to 25."""
    turn, colour = divmod(place, len(_SERIES))
    return {"color": _SERIES[colour], "marker": _MARKERS[(colour + turn) % len(_MARKERS)]}


@contextlib.contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A new figure of `width` x `height` inches in the house style.

    Figures are made without pyplot: no global state, no display and nothing left open.
    """
    with matplotlib.rc_context(_RC):
        yield Figure(figsize=(width, height), layout="constrained")


def png(fig: Figure) -> bytes:
    """The figure as PNG bytes, the same bytes for the same figure."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
    # A page holds all its pictures: 256 colours, chosen for each, halve it and nobody sees it.
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(
            256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
    few.save(packed, format="PNG", optimize=True)
    return packed.getvalue()
