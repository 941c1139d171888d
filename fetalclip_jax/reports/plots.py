"""Figures of classification and training. Each function returns PNG bytes."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fetalclip_jax.reports import style
from fetalclip_jax.reports.naming import display, number

_PANELS = (
    ("logit_scale", "Logit scale"),
    ("learning_rate", "Learning rate"),
    ("images_per_second", "Images per second"),
    ("duplicate_caption_share", "Repeated captions"),
)
_WRAP_WIDTH = 13
_TITLE_WIDTH = 28
# Numbers stay legible where a line crosses them.
_HALO = (patheffects.withStroke(linewidth=3, foreground="white"),)


def training_curves(metrics: Sequence[Mapping[str, Any]], chance_loss: float | None) -> bytes:
    """Loss, validation loss, logit scale, learning rate and speed against the step.

    Args:
      metrics: one mapping for each logged step, ascending in `step`.
      chance_loss: the loss of features that tell nothing apart; None leaves the line out.
    """
    panels = [(key, title) for key, title in _PANELS if len(_series(metrics, key)[0])]
    with style.figure(9.8, 5.6 if panels else 3.4) as fig:
        # Two bands of their own, so that the tick labels of one do not narrow the other.
        bands = fig.subfigures(1 + bool(panels), 1, height_ratios=[1.5, 1][: 1 + bool(panels)])
        bands = np.atleast_1d(bands)
        _loss_panel(bands[0].subplots(), metrics, chance_loss)
        if panels:
            row = bands[1].subplots(1, len(panels), squeeze=False)[0]
            for axes, (key, title) in zip(row, panels, strict=True):
                _small_panel(axes, key, title, *_series(metrics, key))
        return style.png(fig)


def _small_panel(axes: Axes, key: str, title: str, steps: np.ndarray, values: np.ndarray) -> None:
    axes.plot(steps, values, color=style.BLUE, lw=1.3)
    axes.set_title(title, fontsize=9.4)
    _format_steps(axes, bins=3)
    axes.set_ylim(0, 1.12 * values.max() or 1)  # a series of zeros lies on a whole axis
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if key == "learning_rate":
        axes.yaxis.set_major_formatter(FuncFormatter(_short_exponent))
    if key == "duplicate_caption_share":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))


def _short_exponent(value: float, _) -> str:
    return "0" if value == 0 else f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")


def _loss_panel(axes: Axes, metrics: Sequence[Mapping[str, Any]], chance_loss: float | None):
    steps, loss = _series(metrics, "loss")
    if len(steps) > 40:
        axes.plot(steps, loss, color=style.BLUE, alpha=0.25, lw=0.8)
        axes.plot(steps, _smooth(loss), color=style.BLUE, label="training (smoothed)")
    else:
        axes.plot(steps, loss, color=style.BLUE, label="training")
    val_steps, val_loss = _series(metrics, "val_loss")
    if len(val_steps):
        axes.plot(
            val_steps, val_loss, color=style.VERMILLION, marker="o", ms=3.5, label="validation"
        )
    if chance_loss is not None:
        label = f"no learning: ln(batch) = {chance_loss:.2f}"
        axes.axhline(chance_loss, color=style.GREY, ls="--", lw=1.2, label=label)
    axes.set_ylim(bottom=0)
    axes.set_title("Contrastive loss")
    axes.set_xlabel("training step")
    _format_steps(axes, bins=8)
    axes.legend(ncols=3, loc="upper right", bbox_to_anchor=(1.0, 1.13), borderaxespad=0)


def confusion_matrix(
    confusion: Float[np.ndarray, "true predicted"] | Sequence[Sequence[float | int]],
    labels: Sequence[str],
    classes: Sequence[str],
    title: str,
    narrow: bool = False,
) -> bytes:
    """Row-normalised confusion with counts; true classes without any image get no row.

    Args:
      confusion: counts [true, predicted], whole or means over runs.
      labels: names of the rows.
      classes: names of the columns.
      title: heading, of one line or more.
      narrow: small cells below slanted names, so that two matrices share a row of the page.

    Raises:
      ValueError: the matrix does not match the names.
    """
    counts = np.asarray(confusion, np.float64)
    if counts.shape != (len(labels), len(classes)):
        raise ValueError(
            f"{title}: confusion has the shape {counts.shape} for {len(labels)} labels and "
            f"{len(classes)} classes"
        )
    support = counts.sum(1)
    rows = np.flatnonzero(support)
    shares = counts[rows] / support[rows, None]
    slanted = narrow and len(classes) > 4
    cell = 0.78 if len(classes) > 4 else 1.0
    width, height = 2.6 + cell * len(classes), 1.5 + 0.72 * cell * len(rows)
    if slanted:
        width, height = 2.2 + 0.56 * len(classes), 1.9 + 0.56 * len(rows)
    with style.figure(max(width, 5.2), max(height, 2.6)) as fig:
        axes = fig.add_subplot()
        axes.grid(False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        for i, row in enumerate(rows):
            for j in np.flatnonzero(counts[row]):
                colour = "white" if shares[i, j] > 0.6 else style.INK
                share = f"{100 * shares[i, j]:.0f} %"
                weight = "bold" if labels[row] == classes[j] else "normal"
                spot = {"ha": "center", "color": colour, "transform": axes.transData}
                axes.text(j, i - 0.03, share, va="bottom", fontsize=9, weight=weight, **spot)
                axes.text(j, i + 0.06, _count(counts[row, j]), va="top", fontsize=7.4, **spot)
        columns = [display(c) if slanted else _wrap(display(c)) for c in classes]
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        axes.set_xticks(range(len(classes)), columns, fontsize=8.4, **slant)
        names = [f"{display(labels[row])}\nn = {_count(support[row])}" for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8.4)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=2)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true", labelpad=8)
        lines = [textwrap.fill(line, _TITLE_WIDTH) for line in title.splitlines()]
        axes.set_title("\n".join(lines), pad=10)
        return style.png(fig)


def f1_bars(panels: Sequence[Mapping[str, Any]]) -> bytes:
    """F1 of each class, one panel for each task.

    Args:
      panels: mappings with `title`, `series` (label -> class name -> F1, at most two of them) and
        `chance` (macro F1 of guessing, or None).
    """
    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    longest = max(len(next(iter(p["series"].values()))) for p in panels)
    with style.figure(max(9.8 / 3 * columns, 5.2), (0.33 * longest + 1.0) * rows + 0.4) as fig:
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        keys = {}
        for axes, panel in zip(grid, panels, strict=False):
            _f1_panel(axes, panel, longest)
            handles, labels = axes.get_legend_handles_labels()
            keys |= dict(zip(labels, handles, strict=True))
        fig.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=3)
        return style.png(fig)


def _f1_panel(axes: Axes, panel: Mapping[str, Any], longest: int) -> None:
    names = list(next(iter(panel["series"].values())))
    thickness = 0.78 / len(panel["series"])
    for k, (label, scores) in enumerate(panel["series"].items()):
        values = [number(scores.get(name)) for name in names]
        places = np.arange(len(names)) + (k - (len(panel["series"]) - 1) / 2) * thickness
        colour = (style.BLUE, style.VERMILLION)[k]
        axes.barh(places, [v or 0 for v in values], thickness * 0.88, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            text = "no image" if value is None else f"{value:.2f}"
            spot = {"va": "center", "fontsize": 7.8, "path_effects": _HALO}
            axes.text((value or 0) + 0.015, place, text, **spot)
    if panel.get("chance") is not None:
        axes.axvline(panel["chance"], color=style.INK, ls="--", lw=1.1, label="chance, macro F1")
    axes.set_yticks(range(len(names)), [display(n) for n in names])
    # Bars are equally thick in all panels: a short list leaves room below itself.
    axes.set_ylim(longest - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.16)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_title(textwrap.fill(panel["title"], _TITLE_WIDTH))


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.005 else f"{value:,.1f}"


def _wrap(name: str) -> str:
    words, lines = name.replace("-", "- ").split(), [""]
    for word in words:
        joined = f"{lines[-1]} {word}".replace("- ", "-").strip()
        if len(joined) <= _WRAP_WIDTH - 3 or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return "\n".join(lines)


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(m["step"], v) for m in metrics if (v := number(m.get(key))) is not None]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps, float), np.array(values, float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average, bias-corrected, over about a fortieth of the curve."""
    keep = 1 - 1 / max(len(values) / 40, 2)
    total, weight, smoothed = 0.0, 0.0, []
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return np.array(smoothed)


def _format_steps(axes: Axes, bins: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(bins, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.margins(x=0.015)
