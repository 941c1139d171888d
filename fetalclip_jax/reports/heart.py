"""The section of heart defects: how well clips are ranked, and what thresholds reach."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.statistics import ranking
from fetalclip_jax.evaluation.statistics.bootstrap import bootstrap_weights
from fetalclip_jax.evaluation.statistics.ranking import Ranking
from fetalclip_jax.reports import naming, page, provenance, style
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reading import Evaluated

# Shares of normal clips that are called abnormal, at which a band is drawn.
_FALSE_ALARMS = np.concatenate([[0.005, 0.01], np.arange(1, 40) / 40])
_RESAMPLES = 300
# Words stay legible where a line crosses them.
_HALO = (patheffects.withStroke(linewidth=3, foreground="white"),)
_ROC = (
    "Sensitivity over the share of normal clips that are called abnormal, the mean over the runs; "
    "the band holds 95 % of the bootstrap at each place. The area under the curve is the "
    "chance that an abnormal clip scores higher than a normal one. Marks are thresholds that were "
    "chosen {chosen} for the specificity beside them."
)
_SIMULATED = " The clips are simulated: nothing here says what is found in patients."


@dataclasses.dataclass(frozen=True)
class Curve:
    """A receiver operating characteristic and its band.

    Attributes:
      false_alarms: 1 - specificity.
      sensitivity, low, high: there.
    """

    false_alarms: Float[np.ndarray, "k"]
    sensitivity: Float[np.ndarray, "k"]
    low: Float[np.ndarray, "k"]
    high: Float[np.ndarray, "k"]


def parts(report: Report) -> Iterator[str]:
    """HTML of whatever the results of heart defects hold."""
    found = [one for one in report.contents.evaluated if "operating_points" in one.result.details]
    drawn = []
    for one in found:
        if one.result.predictions is None:
            report.missing.append(
                f"ROC of {naming.title(one.result.study)} of {one.label}: no predictions beside "
                f"{one.folder / one.result.study}.json."
            )
        else:
            drawn.append(one)
    for study, ones in report.by_study(drawn):
        pictures = [_picture(report, one) for one in ones]
        yield report.side_by_side(naming.title(study), pictures)
    for study, ones in report.by_study(found):
        tables = [block for one in ones for block in _tables(report, one)]
        yield page.side_by_side(naming.title(study) if len(found) > 1 else "", tables)


def curve(result: Result) -> Curve:
    """The ROC of a result with its predictions, the mean over its runs."""
    auroc = studies.measures(result)["auroc"].measure
    owners = result.predictions.patients()
    if result.protocol.get("resample_by") == "image":
        owners = np.arange(len(owners))
    _, groups = np.unique(owners, return_inverse=True)
    weights = bootstrap_weights(
        np.arange(groups.max() + 1), resamples=_RESAMPLES, seed=int(result.protocol.get("seed", 0))
    )
    drawn = np.concatenate(list(weights))
    places = [_at(auroc, float(share), drawn, groups) for share in _FALSE_ALARMS]
    return Curve(_FALSE_ALARMS, *np.array(places).T)


def _at(auroc: Ranking, false_alarms: float, drawn: np.ndarray, groups: np.ndarray):
    there = dataclasses.replace(auroc, statistic=ranking.sensitivity_at(1 - false_alarms))
    low, high = np.percentile(there.weighted(drawn, groups), (2.5, 97.5))
    return there.value, low, high


def _picture(report: Report, one: Evaluated) -> str:
    result = one.result
    chosen = f"on {result.details['thresholds_from']}"
    caption = _ROC.format(chosen=chosen) + _SIMULATED * one.simulated
    title = naming.title(result.study)
    heading = f"{title}\n{one.label}" if report.contents.several else title
    return report.picture(
        report.figure_name(f"roc_{slug(result.study)}", one.label),
        figure(result, heading),
        f"ROC and precision over recall: {title}",
        report.whose(one.label) + caption,
        of=[one],
    )


def figure(result: Result, title: str) -> bytes:
    """PNG bytes: the ROC with its band, and precision over sensitivity."""
    with style.figure(7.5, 4.1) as fig:
        left, right = fig.subplots(1, 2)
        fig.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=10.5)
        found = curve(result)
        _draw_roc(left, found, result)
        _draw_precision(right, result)
        return style.png(fig)


def _draw_roc(axes: Axes, found: Curve, result: Result) -> None:
    x = np.concatenate([[0], found.false_alarms, [1]])
    low, high, middle = (
        np.concatenate([[start], values, [1]])
        for start, values in ((0, found.low), (found.high[0], found.high), (0, found.sensitivity))
    )
    axes.fill_between(x, low, high, color=style.BLUE, alpha=0.15, lw=0)
    auroc = result.metrics["auroc"].value
    axes.plot(x, middle, color=style.BLUE, label=f"model, area {auroc:.3f}")
    raw = result.baselines.get("raw_pixels_auroc")
    if raw and result.details.get("raw_pixels_roc"):
        points = np.array(result.details["raw_pixels_roc"])
        label = f"raw pixels, area {raw.estimate.value:.3f}"
        axes.plot(*points.T, color=style.VERMILLION, lw=1.3, ls=(0, (4, 2)), label=label)
    axes.plot([0, 1], [0, 1], color=style.GREY, lw=1, ls=":", label="a guess, area 0.5")
    for point in result.details["operating_points"]:
        spot = 1 - point["specificity"]["value"], point["sensitivity"]["value"]
        axes.plot(*spot, "o", color=style.INK, ms=5)
        axes.annotate(f"{100 * point['asked']:.0f} %", spot, xytext=(7, -3), fontsize=7.8,
                      textcoords="offset points", path_effects=_HALO)  # fmt: skip
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    _legend(axes)


def _draw_precision(axes: Axes, result: Result) -> None:
    predictions = result.predictions
    labels = predictions.label == "abnormal"
    share = labels.mean()
    scores = predictions.scores[:, predictions.candidates.index("abnormal")]
    weights = ranking.by_score(scores, labels, np.ones((1, len(labels))))
    negatives, positives = (one[0, ::-1].cumsum() for one in weights)
    precision, recall = positives / (positives + negatives), positives / positives[-1]
    area = result.metrics["auprc"].value
    axes.step(recall, precision, where="pre", color=style.BLUE, lw=1.5,
              label=f"model, area {area:.3f}")  # fmt: skip
    axes.axhline(share, color=style.GREY, lw=1, ls=":", label=f"a guess, area {share:.3f}")
    axes.set(xlabel="sensitivity", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1, fontsize=8.2)


def _tables(report: Report, one: Evaluated) -> Iterator[str]:
    details, whose = one.result.details, report.whose(one.label)
    chosen = details["thresholds_from"]
    yield report.table(
        f"{whose}Thresholds chosen on {chosen}",
        ("Specificity asked for", "Specificity reached", "Sensitivity"),
        [
            (f"{100 * x['asked']:.0f} %", _shown(x["specificity"]), _shown(x["sensitivity"]))
            for x in details["operating_points"]
        ],
        of=[one],
    )
    asked = 100 * details["operating_points"][0]["asked"]
    rows = [
        (display(name), _shown(found), found["n"]) for name, found in details["findings"].items()
    ]
    title = f"{whose}Sensitivity to each finding, specificity asked for {asked:.0f} %"
    yield report.table(title, ("Finding", "Sensitivity", "Clips"), rows, of=[one])
    rows = [
        (naming.metric(name).words, *_difference(found))
        for name, found in details["against_raw_pixels"].items()
    ]
    title = f"{whose}Compared with the same head on 16 x 16 raw pixels"
    columns = ("Metric", "Difference", "95 % interval")
    yield (
        page.paragraph(title, "title")
        + page.plain_table(columns, rows)
        + page.paragraph(
            f"Paired on the same clips. {_short(details)}{provenance.stands_for(one)}", "basis"
        )
    )


def _short(details: Mapping[str, Any]) -> str:
    """What must be said of the frames, and of the runs."""
    words = "".join(f"{count:,} {what}. " for what, count in details.get("lacking", {}).items())
    if details.get("resamples_drawn_again"):
        words += (
            f"{details['resamples_drawn_again']} resamples held one class alone and were drawn "
            "again. "
        )
    if details.get("auroc_deviation_over_runs") is not None:
        words += (
            f"Standard deviation of the AUROC over {details['runs']} runs: "
            f"{details['auroc_deviation_over_runs']:.3f}. "
        )
    return words


def _shown(estimate: Mapping[str, Any]) -> str:
    words = f"{100 * estimate['value']:.1f} %"
    if estimate["low"] is None:
        return words
    return f"{words} ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def _difference(estimate: Mapping[str, Any]) -> tuple[str, str]:
    if estimate["low"] is None:
        return f"{estimate['value']:+.3f}", "none"
    return f"{estimate['value']:+.3f}", f"{estimate['low']:+.3f} to {estimate['high']:+.3f}"
