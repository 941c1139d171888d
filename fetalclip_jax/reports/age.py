"""The figure of gestational age over the WHO growth chart."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.reports import style
from fetalclip_jax.reports.naming import number

_CHART_WEEKS = (13.0, 41.0)


@dataclasses.dataclass(frozen=True)
class AgePredictions:
    """Predicted ages of the evaluated images.

    Attributes:
      predicted_days: whole days.
      true_days: nan where unknown.
      hc_mm: the true head circumference.
    """

    predicted_days: Int[np.ndarray, "n"]
    true_days: Float[np.ndarray, "n"]
    hc_mm: Float[np.ndarray, "n"]

    @property
    def valid(self) -> Bool[np.ndarray, "n"]:
        """Whether the true circumference lies in the WHO band at the predicted age."""
        return who_chart.is_valid(self.predicted_days, self.hc_mm)


def age_predictions(predictions: Predictions) -> AgePredictions:
    """The images with a prediction and a true circumference; the true age may be missing."""
    unknown = np.full(len(predictions.example_id), np.nan)
    columns = (
        predictions.prediction,
        predictions.extra.get("ga_days", unknown),
        predictions.extra.get("hc_mm", unknown),
    )
    # Columns may be text, where a missing number is "".
    numbers = [[number(value) for value in column.tolist()] for column in columns]
    predicted, true, hc = np.array(numbers, np.float64).reshape(3, -1)  # None becomes nan
    known = np.isfinite(predicted) & np.isfinite(hc)
    days = np.rint(predicted[known]).astype(np.int64)
    return AgePredictions(days, true[known], hc[known])


def age_chart(ages: AgePredictions, constant_days: float | None, true_age_label: str) -> bytes:
    """Head circumference over predicted age on the WHO band, and predicted against true age.

    Args:
      ages: at least one prediction.
      constant_days: the constant age used as baseline, in days, or None.
      true_age_label: where the true ages come from.
    """
    known = np.isfinite(ages.true_days)
    panels = 1 + bool(known.any())
    with style.figure(5.1 * panels + 0.4, 5.2) as fig:
        axes = fig.subplots(1, panels, squeeze=False)[0]
        if known.any():
            _age_panel(axes[0], ages, true_age_label)
        _chart_panel(axes[-1], ages, constant_days)
        return style.png(fig)


def _chart_panel(axes: Axes, ages: AgePredictions, constant_days: float | None) -> None:
    weeks = np.linspace(*_CHART_WEEKS, 200)
    low, median, high = (who_chart.hc_mm(weeks, p) for p in (2.5, 50.0, 97.5))
    axes.fill_between(weeks, low, high, color="#c9d6e2", lw=0, label="WHO 2.5 to 97.5 %")
    axes.plot(weeks, median, color=style.INK, lw=1.2, label="WHO median")
    _points(axes, ages.predicted_days, ages.hc_mm, ages.valid)
    if constant_days is not None:
        label = f"best constant: {constant_days / 7:.1f} weeks"
        axes.axvline(constant_days / 7, color=style.PURPLE, ls=":", lw=1.6, label=label)
    axes.set(xlabel="predicted age (weeks)", ylabel="true head circumference (mm)")
    axes.set_ylim(60, 370)
    _week_axis(axes.xaxis, axes.set_xlim)
    _finish(axes, "Predicted age on the WHO growth chart")


def _age_panel(axes: Axes, ages: AgePredictions, true_age_label: str) -> None:
    weeks = np.linspace(*_CHART_WEEKS, 200)
    # The chart read sideways: ages at which a fetus of median size would count as valid.
    size = who_chart.hc_mm(weeks)
    days = np.linspace(8, 46, 2000)
    earliest = np.interp(size, who_chart.hc_mm(days, 97.5), days)
    # The 2.5 % curve flattens at term; beyond its top no age is too late.
    latest = np.interp(size, who_chart.hc_mm(days[days <= 42], 2.5), days[days <= 42])
    label = "WHO band, median fetus"
    axes.fill_between(weeks, earliest, latest, color="#c9d6e2", lw=0, label=label)
    axes.plot(weeks, weeks, color=style.INK, lw=1.2, label="exact")
    _points(axes, ages.true_days, ages.predicted_days / 7, ages.valid)
    axes.set(xlabel=f"{true_age_label} (weeks)", ylabel="predicted age (weeks)")
    _week_axis(axes.xaxis, axes.set_xlim)
    _week_axis(axes.yaxis, axes.set_ylim)
    _finish(axes, "Predicted against true age")


def _points(axes: Axes, days: np.ndarray, y: np.ndarray, valid: np.ndarray) -> None:
    size = 22 if len(days) < 400 else 11
    share = f"{valid.sum():,} of {valid.size:,}"
    common = {"s": size, "alpha": 0.7, "lw": 0.4}
    axes.scatter(
        days[valid] / 7, y[valid], color=style.BLUE, label=f"valid: {share}", ec="white", **common
    )
    if not valid.all():
        options = {**common, "lw": 1.1, "alpha": 0.8}
        axes.scatter(
            days[~valid] / 7, y[~valid], color=style.VERMILLION, marker="x", label="not valid",
            **options,
        )  # fmt: skip


def _week_axis(axis, set_limits) -> None:
    set_limits(*_CHART_WEEKS)
    axis.set_major_locator(MultipleLocator(4))


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, pad=10)
    # Below the axes: a poor model leaves no corner of them empty.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8.2)
