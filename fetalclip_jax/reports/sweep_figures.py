"""Figures of a sweep. Each function returns PNG bytes."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator

from fetalclip_jax.reports import style

_HALO = (patheffects.withStroke(linewidth=2.5, foreground="white"),)
_MOST_BANDS = 6
_PHONE, _LONGEST_LINE = 4.0, 56
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting in a heat map.

    Attributes:
      mean: over its finished points; None where there is none.
      half_width: of the interval over seeds; None where there is none.
      count: finished points.
      missing: what became of the others, such as "1 failed"; "" where all are finished.
    """

    mean: float | None
    half_width: float | None
    count: int
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A heat map.

    Attributes:
      row_field, column_field: what varies; "" for rows of one line.
      rows, columns: the values.
      cells: [row][column]; None where the sweep has no such point.
    """

    row_field: str
    column_field: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell | None]]


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve with its band.

    Attributes:
      x: ascending.
      means, lows, highs: at each x, NaN where there is no band.
    """

    x: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def heat_maps(
    grids: Mapping[str, Grid], score: str, *, lower_is_better: bool, least: float = 0.0
) -> bytes:
    """Means of settings, darker where better; what is missing is hatched.

    Args:
      grids: title -> heat map; all share one scale.
      score: in words.
      least: the difference of means that all colours together stand for at least.
    """
    low, high = colour_range(grids, least)
    edge = 0.25 * (high - low) or 0.05
    shades = Normalize(low - edge, high + edge)
    colours = ScalarMappable(shades, "Blues_r" if lower_is_better else "Blues")
    count = min(len(grids), 3)
    lines = -(-len(grids) // count)
    wide = max(len(grid.columns) for grid in grids.values())
    tall = max(len(grid.rows) for grid in grids.values())
    width, height = (1.15 * wide + 1.2) * count, (0.72 * tall + 1.0) * lines
    with style.figure(max(width, 5.2), max(height, 2.2) + 0.35) as fig:
        places = fig.subplots(lines, count, squeeze=False).ravel()
        for axes in places[len(grids) :]:
            axes.set_axis_off()
        hatched = False
        for axes, (title, grid) in zip(places, grids.items(), strict=False):
            hatched |= _heat_map(axes, grid, colours)
            axes.set_title(title, fontsize=9.4)
        bar = fig.colorbar(colours, ax=list(places), shrink=0.85, pad=0.02, aspect=25)
        bar.outline.set_visible(False)
        if low < high:
            bar.ax.set_ylim(low, high)
        fig.suptitle(f"{score}: mean over seeds", x=0.01, ha="left", weight="bold", fontsize=10.5)
        if hatched:
            patch = Patch(facecolor="white", edgecolor=style.GREY, hatch="////", lw=0.6)
            fig.legend([patch], ["no finished point"], loc="outside lower left")
        return style.png(fig)


def colour_range(grids: Mapping[str, Grid], least: float) -> tuple[float, float]:
    """The scores that colours stand for: those of the cells, and around them as far as `least`.

    Colours of a narrower range would show differences between settings that chance makes.
    """
    means = [
        cell.mean
        for grid in grids.values()
        for row in grid.cells
        for cell in row
        if cell is not None and cell.mean is not None
    ]
    if not means:
        return 0.0, 1.0
    wider = max(0.0, least - (max(means) - min(means))) / 2
    return min(means) - wider, max(means) + wider


def _heat_map(axes: Axes, grid: Grid, colours: ScalarMappable) -> bool:
    """Draws one; whether any cell is hatched."""
    axes.grid(False)
    hatched = False
    for i, row in enumerate(grid.cells):
        for j, cell in enumerate(row):
            spot = (j - 0.5, i - 0.5)
            if cell is None:
                continue
            if cell.mean is None:
                hatched = True
                axes.add_patch(
                    Rectangle(spot, 1, 1, fc="white", ec=style.GREY, hatch="////", lw=0.6)
                )
                axes.text(
                    j, i, cell.missing, ha="center", va="center", fontsize=8.4, path_effects=_HALO
                )
                continue
            colour = colours.to_rgba(cell.mean)
            axes.add_patch(Rectangle(spot, 1, 1, fc=colour, ec="white", lw=2))
            ink = "white" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.55 else style.INK
            axes.text(
                *(j, i - 0.05, f"{cell.mean:.3f}"),
                **{"ha": "center", "va": "bottom", "color": ink, "fontsize": 10, "weight": "bold"},
            )
            below = "" if cell.half_width is None else f"± {cell.half_width:.3f}, "
            below += f"n = {cell.count}"
            if cell.missing:
                below += f"\n{cell.missing}"
            axes.text(j, i + 0.05, below, ha="center", va="top", color=ink, fontsize=7.6)
    axes.set_xlim(-0.5, len(grid.columns) - 0.5)
    axes.set_ylim(len(grid.rows) - 0.5, -0.5)
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(grid.column_field)
    axes.set_ylabel(grid.row_field)
    return hatched


def seeds(
    settings: Mapping[str, tuple[Sequence[float], float, float | None, float | None]], score: str
) -> bytes:
    """Every seed of every setting, and the interval over seeds.

    Args:
      settings: name -> (values, mean, low, high), from above.
      score: in words.
    """
    # As wide as the page of a telephone: names stand above their line, not beside it.
    names = [textwrap.fill(name, _LONGEST_LINE) for name in settings]
    lines = max((name.count("\n") for name in names), default=0) + 1
    with style.figure(_PHONE, (0.36 + 0.14 * lines) * len(settings) + 1.2) as fig:
        axes = fig.add_subplot()
        for k, (name, (values, mean, low, high)) in enumerate(
            zip(names, settings.values(), strict=True)
        ):
            axes.annotate(
                *(name, (0, k)),
                xycoords=("axes fraction", "data"),
                **{"xytext": (0, 8), "textcoords": "offset points", "fontsize": 8.6},
                path_effects=_HALO,
            )
            if low is not None:
                axes.plot([low, high], [k, k], color=style.BLUE, lw=2.2, alpha=0.55)
            axes.plot([mean], [k], "|", color=style.BLUE, ms=11, mew=2.2)
            axes.plot(values, [k] * len(values), "o", color=style.VERMILLION, ms=4.6, alpha=0.85)
        handles = [
            axes.plot([], [], "o", color=style.VERMILLION, ms=4.6, label="a seed")[0],
            axes.plot([], [], "|", color=style.BLUE, ms=12, mew=2.2, ls="", label="mean")[0],
            axes.plot([], [], color=style.BLUE, lw=2.2, alpha=0.55, label="95 % over seeds")[0],
        ]
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(settings) - 0.6, -0.9)
        axes.set_xlabel(score)
        fig.legend(handles=handles, loc="outside lower center", ncols=3)
        return style.png(fig)


def curves(
    panels: Mapping[str, Mapping[str, Line]], axes_names: Sequence[str], score: str, title: str
) -> bytes:
    """Scores along two axes of data, a panel each, with bands over seeds.

    Args:
      panels: title -> label of a line -> line.
      axes_names: of the x axis of each panel.
      score: in words.
      title: heading.
    """
    with style.figure(10.4, 4.6) as fig:
        grid = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, lines), words in zip(grid, panels.items(), axes_names, strict=True):
            for k, (label, line) in enumerate(lines.items()):
                look = style.series(k) | {"ls": _DASHES[k % len(_DASHES)]}
                axes.plot(line.x, line.means, label=label, ms=5, **look)
                if len(lines) <= _MOST_BANDS:
                    axes.fill_between(line.x, line.lows, line.highs, color=look["color"], alpha=0.1)
            axes.set_xscale("log", base=2)
            ticks = sorted({x for line in lines.values() for x in line.x})
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(f"{words} (logarithmic)")
            axes.set_title(name, fontsize=9.6)
            axes.legend(fontsize=8.2)
        grid[0].set_ylabel(score)
        fig.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
        return style.png(fig)
