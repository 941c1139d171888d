"""The forest plot: a difference and its interval in every row, a panel for every pair of models."""

import dataclasses
from collections.abc import Mapping, Sequence

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
_ROW = 0.46
_WIDTH = 10.4


@dataclasses.dataclass(frozen=True)
class Row:
    """One difference.

    Attributes:
      value: the first model minus the second.
      low, high: its interval; None where there is none.
      verdict: a key of the legend, "better" and so on.
      words: the figures, written beside the row.
      basis: the images it stands for, written below them.
    """

    value: float
    low: float | None
    high: float | None
    verdict: str
    words: str
    basis: str


def forest(
    panels: Mapping[str, Mapping[str, Row]], names: Sequence[str], margin: float, axis: str
) -> bytes:
    """PNG bytes of differences with their intervals.

    Args:
      panels: title of a pair -> name of a row -> its difference; a name may be missing.
      names: of all rows, from above.
      margin: half the width of the band of equivalence.
      axis: what is measured and which side is whose.
    """
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    height = lines * (0.85 + _ROW * len(names)) + 0.75
    with style.figure(_WIDTH if columns > 1 else 8.6, height) as fig:
        grid = fig.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, rows) in zip(grid.ravel(), panels.items(), strict=False):
            _panel(axes, rows, names, margin)
            axes.set_title(title)
        grid[0, 0].set_ylim(len(names) - 0.4, -0.6)
        fig.supxlabel(axis, fontsize=9.5)
        found = {row.verdict for rows in panels.values() for row in rows.values()}
        handles = [
            Line2D([], [], color=colour, marker=marker, lw=1.6, label=label)
            for verdict, (colour, marker, label) in _LOOKS.items()
            if verdict in found
        ]
        handles.append(Patch(color=_BAND, label=f"no more than {margin:g} apart"))
        fig.legend(handles=handles, loc="outside upper left", ncols=5)
        return style.png(fig)


def _panel(axes: Axes, rows: Mapping[str, Row], names: Sequence[str], margin: float) -> None:
    axes.axvspan(-margin, margin, color=_BAND, lw=0)
    axes.axvline(0, color=style.INK, lw=1)
    spot = {"transform": axes.get_yaxis_transform(), "clip_on": False, "ha": "left"}
    for place, name in enumerate(names):
        row = rows.get(name)
        if row is None:
            axes.text(
                1.03, place, "not compared", va="center", color=style.GREY, fontsize=8, **spot
            )
            continue
        colour, marker, _ = _LOOKS[row.verdict]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, lw=2)
        axes.plot([row.value], [place], color=colour, marker=marker, ms=6.5, ls="")
        axes.text(1.03, place - 0.04, row.words, va="bottom", fontsize=8, **spot)
        axes.text(1.03, place + 0.08, row.basis, va="top", fontsize=7, color=style.GREY, **spot)
    # Each pair on its own scale: an untrained model would flatten all others.
    edges = [e for row in rows.values() for e in (row.value, row.low, row.high) if e is not None]
    low, high = min(*edges, -1.5 * margin), max(*edges, 1.5 * margin)
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
