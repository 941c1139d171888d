"""The figure of data-efficiency curves: a panel per data set, all models in it."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from fetalclip_jax.evaluation.curves import Curve
from fetalclip_jax.reports import naming, style

# Colour, shape and dashes: any one of them tells curves apart.
_LOOKS = (
    (style.BLUE, "o", "-"),
    (style.VERMILLION, "s", "--"),
    (style.GREEN, "^", "-."),
    (style.PURPLE, "D", (0, (5, 1, 1, 1, 1, 1))),
    ("#E69F00", "v", (0, (3, 1))),
    ("#56B4E9", "P", ":"),
)
_HALO = (patheffects.withStroke(linewidth=3, foreground="white"),)
# The bands of more curves would lie over one another.
_MOST_BANDS = 3


def is_crowded(panels: Sequence[str]) -> bool:
    """Whether bands are bars instead; `panels` names that of each curve."""
    return max(Counter(panels).values()) > _MOST_BANDS


def figure(
    panels: Mapping[str, Mapping[str, Curve]], references: Mapping[str, float], title: str
) -> bytes:
    """PNG bytes: a score against the number of labelled patients, on a base-2 axis.

    Args:
      panels: data set -> model -> its curve; one or more.
      references: label -> score drawn as horizontal lines, at most two.
      title: heading.
    """
    first = next(iter(next(iter(panels.values())).values()))
    names = list(dict.fromkeys(name for own in panels.values() for name in own))
    looks = {name: _LOOKS[k % len(_LOOKS)] for k, name in enumerate(names)}
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    crowded = is_crowded([panel for panel, own in panels.items() for _ in own])
    with style.figure(7.4 if columns == 1 else 10.4, 4.1 * lines + 0.3) as fig:
        grid = fig.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        keys = {}
        for axes, (panel, own) in zip(grid.ravel(), panels.items(), strict=False):
            _panel(axes, own, looks, crowded)
            for k, (name, value) in enumerate(references.items()):
                colour, dashes = ((style.GREEN, "-."), (style.VERMILLION, "--"))[k]
                axes.axhline(value, color=colour, ls=dashes, lw=1.4, label=f"{name}: {value:.2f}")
            axes.set_title(title if len(panels) == 1 else panel, pad=10)
            handles, labels = axes.get_legend_handles_labels()
            keys |= dict(zip(labels, handles, strict=True))
        for axes in grid[:, 0]:
            axes.set_ylabel(naming.metric(first.metric).words)
        if len(panels) > 1:
            fig.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
        fig.legend(
            keys.values(), keys.keys(), loc="outside lower center", ncols=2 if references else 3
        )
        return style.png(fig)


def _panel(axes: Axes, curves: Mapping[str, Curve], looks, crowded: bool) -> None:
    sizes = sorted({size for curve in curves.values() for size in curve.sizes})
    for k, (name, curve) in enumerate(curves.items()):
        colour, marker, dashes = looks[name]
        label = f"trained on few {curve.unit}" if len(looks) == 1 else name
        aside = 2 ** (0.06 * (k - (len(curves) - 1) / 2)) if crowded else 1.0
        places = np.array(curve.sizes) * aside
        axes.plot(places, curve.values, color=colour, marker=marker, ls=dashes, ms=5, label=label)
        if crowded:
            axes.vlines(places, curve.lows, curve.highs, color=colour, lw=1.3, alpha=0.75)
        else:
            axes.fill_between(places, curve.lows, curve.highs, color=colour, alpha=0.13, lw=0)
            for edge in (curve.lows, curve.highs):
                axes.plot(places, edge, color=colour, lw=0.7, alpha=0.6)
        if len(curves) == 1:
            for x, y in zip(places, curve.values, strict=True):
                options = {"textcoords": "offset points", "ha": "center", "fontsize": 8.4}
                axes.annotate(f"{y:.2f}", (x, y), (0, -15), path_effects=_HALO, **options)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.04)
    unit = next(iter(curves.values())).unit
    axes.set_xlabel(f"labelled {unit} (logarithmic)")
