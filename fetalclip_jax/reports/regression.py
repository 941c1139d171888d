"""The section of supervised regression: predictions beside the truth, and their differences."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics import agreement
from fetalclip_jax.reports import naming, style
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reading import Evaluated

_FAMILY = "regression."
_COLUMNS = {"ga_days": "age (days)", "hc_mm": "head circumference (mm)"}


def parts(report: Report) -> Iterator[str]:
    """Figures of every regression whose predictions lie beside it."""
    found = [one for one in report.contents.evaluated if one.result.study.startswith(_FAMILY)]
    for study, ones in report.by_study(found):
        pictures = []
        for one in ones:
            if one.result.predictions is None:
                where = f"{naming.title(study)} of {one.label}"
                report.missing.append(f"{where}: no predictions beside {one.folder}.")
            else:
                pictures.append(_picture(report, one))
        yield report.side_by_side(naming.title(study), pictures)


def _picture(report: Report, one: Evaluated) -> str:
    result = one.result
    title, column = naming.title(result.study), result.study.removeprefix(_FAMILY)
    png = agreement_figure(
        result.predictions.label.astype(np.float64),
        result.predictions.prediction.astype(np.float64),
        _COLUMNS.get(column) or display(column),
        # The picture is used without its caption too.
        f"{title}\n{one.label}" if report.contents.several else title,
    )
    return report.picture(
        report.figure_name(slug(result.study), one.label),
        png,
        f"{title}: predictions against the truth, and differences against means",
        report.whose(one.label) + _caption(title, result),
        of=[one],
    )


def _caption(title: str, result: Result) -> str:
    said = []
    for name in result.metrics:
        metric = naming.metric(name, str(result.data.get("ages_from") or ""))
        said.append(f"{metric.words} {metric.show(result.metrics[name].value)}")
    words = f"{title}: {'; '.join(said)}. Dashed lines are the mean difference and the limits of "
    words += "agreement, 1.96 standard deviations to either side."
    if result.details.get("spacing", "none") != "none":
        words += " The regression sees the pixel spacing beside the features."
    return words


def agreement_figure(
    true: Float[np.ndarray, "n"], found: Float[np.ndarray, "n"], what: str, title: str
) -> bytes:
    """Predictions over the truth, and their differences over their means, as PNG.

    Args:
      true, found: one or more values.
      what: they are, with their unit.
      title: of the study, and whose where there are several.
    """
    with style.figure(10.2, 4.4) as fig:
        first, second = fig.subplots(1, 2)
        low, high = min(true.min(), found.min()), max(true.max(), found.max())
        first.plot([low, high], [low, high], color=style.INK, lw=1.2, label="exact")
        _points(first, true, found)
        first.set(xlabel=f"true {what}", ylabel=f"predicted {what}")
        first.set_title(title)
        first.legend(loc="upper left")
        _bland_altman(second, true, found, what)
        return style.png(fig)


def _bland_altman(axes: Axes, true: np.ndarray, found: np.ndarray, what: str) -> None:
    measured = agreement.measures(true, found)
    _points(axes, (true + found) / 2, found - true)
    axes.axhline(0, color=style.GREY, lw=0.8)
    for name in ("lower_limit", "bias", "upper_limit"):
        value = measured[name].value
        axes.axhline(value, color=style.VERMILLION, ls="--", lw=1.2)
        axes.annotate(
            f"{value:+.1f}", (1.01, value), xycoords=("axes fraction", "data"), va="center",
            color=style.VERMILLION, fontsize=8.6, annotation_clip=False,
        )  # fmt: skip
    axes.set(xlabel=f"mean of both, {what}", ylabel="predicted - true")
    axes.set_title("Differences (Bland and Altman)")


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    size = 20 if len(x) < 400 else 10
    axes.scatter(x, y, s=size, alpha=0.6, lw=0.3, color=style.BLUE, ec="white")
