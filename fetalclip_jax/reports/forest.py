"""The forest plot: a difference and its interval in every row, a panel for every pair of models."""

import dataclasses
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fetalclip_jax.reports import style

# Shape and colour both tell a verdict.
_LOOKS = {
    "better": (style.BLUE, ">"),
    "worse": (style.VERMILLION, "<"),
    "equivalent": (style.GREEN, "s"),
    "undecided": (style.GREY, "o"),
}
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
    height = lines * (0.75 + _ROW * len(names)) + 0.75
    edges = [
        abs(edge)
        for rows in panels.values()
        for row in rows.values()
        for edge in (row.value, row.low, row.high)
        if edge is not None
    ]
    reach = 1.08 * max([*edges, 2 * margin])
    with style.figure(_WIDTH if columns > 1 else 8.6, height) as fig:
        grid = fig.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, rows) in zip(grid.ravel(), panels.items(), strict=False):
            _panel(axes, rows, names, margin)
            axes.set_title(title)
        grid[0, 0].set_xlim(-reach, reach)
        grid[0, 0].set_ylim(len(names) - 0.4, -0.6)
        fig.supxlabel(axis, fontsize=9.5)
        found = {row.verdict for rows in panels.values() for row in rows.values()}
        handles = [
            Line2D([], [], color=colour, marker=marker, lw=1.6, label=f"first is {verdict}")
            for verdict, (colour, marker) in _LOOKS.items()
            if verdict in found
        ]
        for handle in handles:
            handle.set_label(handle.get_label().replace("is undecided", "or second: undecided"))
        band = axes.axvspan(0, 0, color="#dcebe5", label=f"equivalent: within {margin:g}")
        fig.legend(handles=[*handles, band], loc="outside upper left", ncols=5)
        return style.png(fig)


def _panel(axes: Axes, rows: Mapping[str, Row], names: Sequence[str], margin: float) -> None:
    axes.axvspan(-margin, margin, color="#dcebe5", lw=0)
    axes.axvline(0, color=style.INK, lw=1)
    spot = {"transform": axes.get_yaxis_transform(), "clip_on": False, "ha": "left"}
    for place, name in enumerate(names):
        row = rows.get(name)
        if row is None:
            axes.text(
                1.03, place, "not compared", va="center", color=style.GREY, fontsize=8, **spot
            )
            continue
        colour, marker = _LOOKS[row.verdict]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, lw=2)
        axes.plot([row.value], [place], color=colour, marker=marker, ms=6.5, ls="")
        axes.text(1.03, place - 0.04, row.words, va="bottom", fontsize=8, **spot)
        axes.text(1.03, place + 0.08, row.basis, va="top", fontsize=7, color=style.GREY, **spot)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
