"""The forest plot of a pair of models: a difference and its interval in every row.

So narrow that a phone hardly shrinks it: names and figures stand above the lines, not beside them.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fetalclip_jax.reports import style

# Shape and colour both tell a verdict.
_LOOKS = {
    "better": (style.BLUE, ">", "first better"),
    "worse": (style.VERMILLION, "<", "first worse"),
    "equivalent": (style.GREEN, "s", "equivalent"),
    "undecided": (style.GREY, "o", "undecided"),
}
_BAND = "#dcebe5"
_HALO = (patheffects.withStroke(linewidth=2.5, foreground="white"),)
# In inches; what is written above a line, from the top of its row.
_WIDTH = 4.4
_TITLE = 44  # letters in a line
_NAME, _WORDS, _BASIS, _LINE, _GAP = 0.18, 0.16, 0.15, 0.2, 0.12


@dataclasses.dataclass(frozen=True)
class Row:
    """One difference.

    Attributes:
      value: the first model minus the second.
      low, high: its interval; None where there is none.
      verdict: a key of the legend, "better" and so on.
      words: the figures, written below its name.
      basis: the images it stands for, written below the figures.
    """

    value: float
    low: float | None
    high: float | None
    verdict: str
    words: str
    basis: str


def forest(
    rows: Mapping[str, Row], names: Sequence[str], margin: float, title: str, axis: str
) -> bytes:
    """PNG bytes of differences with their intervals.

    Args:
      rows: name of a row -> its difference; a name may be missing.
      names: of all rows, from above.
      margin: half the width of the band of equivalence.
      title: of the pair.
      axis: what is measured and which side is whose.
    """
    above = _NAME * max(name.count("\n") + 1 for name in names)
    height = above + _WORDS + _BASIS + _LINE + _GAP
    with style.figure(_WIDTH, 1.4 + height * len(names)) as fig:
        axes = fig.subplots()
        axes.axvspan(-margin, margin, color=_BAND, lw=0)
        axes.axvline(0, color=style.INK, lw=1)
        for place, name in enumerate(names):
            _row(axes, place * height, above, name, rows.get(name))
        edges = [e for r in rows.values() for e in (r.value, r.low, r.high) if e is not None]
        low, high = min(*edges, -1.5 * margin), max(*edges, 1.5 * margin)
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(len(names) * height, -0.05)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(textwrap.fill(title, _TITLE))
        axes.set_xlabel(axis, fontsize=8.5)
        found = {row.verdict for row in rows.values()}
        handles = [
            Line2D([], [], color=colour, marker=marker, lw=1.6, label=label)
            for verdict, (colour, marker, label) in _LOOKS.items()
            if verdict in found
        ]
        handles.append(Patch(color=_BAND, label=f"no more than {margin:g} apart"))
        fig.legend(handles=handles, loc="outside lower left", ncols=2)
        return style.png(fig)


def _row(axes: Axes, top: float, above: float, name: str, row: Row | None) -> None:
    spot = {"transform": axes.get_yaxis_transform(), "path_effects": _HALO, "va": "top"}
    axes.text(0, top, name, fontsize=8.8, weight="bold", **spot)
    words = top + above
    if row is None:
        axes.text(0, words, "not compared", fontsize=8.2, color=style.GREY, **spot)
        return
    axes.text(0, words, row.words, fontsize=8.4, **spot)
    axes.text(0, words + _WORDS, row.basis, fontsize=7.6, color=style.GREY, **spot)
    line = words + _WORDS + _BASIS + _LINE / 2
    colour, marker, _ = _LOOKS[row.verdict]
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [line, line], color=colour, lw=2)
    axes.plot([row.value], [line], color=colour, marker=marker, ms=6.5, ls="")
