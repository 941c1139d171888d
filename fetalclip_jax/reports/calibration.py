"""The section of calibration and abstention: whether probabilities can be acted upon."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from fetalclip_jax.evaluation.calibration import Calibration, Reliability, Sets
from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.statistics.reliability import is_hottest
from fetalclip_jax.evaluation.units import counted, judged_unit
from fetalclip_jax.reports import naming, page, style
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reading import Evaluated

Found = tuple[Evaluated, Calibration]

_LEAST_COVERAGE = 0.05  # of fewer images a share of errors jumps from one end to the other


def section(report, found: Sequence[Found]) -> Iterator[str]:
    """A figure for each study and data set, and the tables.

    Args:
      report: a `sections.Report`.
    """
    several = len({one.data_name for one, _ in found}) > 1
    figures: dict[tuple[str, str], list[Found]] = {}
    for one, calibration in found:
        key = (one.result.study, one.data_name)
        figures.setdefault(key, []).append((one, calibration))
    for (study, data), shown in figures.items():
        name = f"calibration_{slug(study)}" + (f"_{slug(data)}" if several else "")
        title = naming.title(study)
        alt, caption = f"Calibration and abstention: {title}", f"{title}, {data}. {_caption(shown)}"
        of = [one for one, _ in shown]
        yield report.picture(name, figure(shown), alt, caption, of=of)
    if found:
        yield _probabilities(found)
        yield _abstention(found)
        yield _sets(found)
        file = "reliability_calibration.csv"
        yield page.details("Coverage by class and by subgroup", _coverages(found), file)
        file = "reliability.json"
        yield page.details("Bins of the reliability diagrams", _bins(found), file)


def figure(found: Sequence[Found]) -> bytes:
    """Reliability before and after the temperature, and risk against coverage, as PNG."""
    with style.figure(10.4, 3.5 + 0.4 * (len(found) > 1) * -(-len(found) // 2)) as fig:
        before, after, risk = fig.subplots(1, 3)
        for k, (one, calibration) in enumerate(found):
            look = style.series(k) | {"label": one.label}
            _reliability(before, calibration.before, look)
            _reliability(after, calibration.after, look)
            _risk(risk, calibration, look)
        for axes, title in ((before, "As the model says"), (after, "At the temperature")):
            axes.plot([0, 1], [0, 1], color=style.GREY, ls="--", lw=1.1, zorder=1)
            axes.set_title(title)
            axes.set_xlabel("mean probability of the answers")
            axes.set_ylabel("share of right answers")
            axes.set_xlim(0, 1.02)
            axes.set_ylim(0, 1.02)
        risk.set_title("Abstention")
        risk.set_xlabel("coverage: share of images answered")
        risk.set_ylabel("errors among the answers")
        risk.set_xlim(0, 1.02)
        risk.set_ylim(bottom=0)
        for axes in (before, after, risk):
            axes.set_box_aspect(1)
        for axis in (risk.xaxis, risk.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        if len(found) > 1:
            keys, labels = before.get_legend_handles_labels()
            fig.legend(keys, labels, loc="outside lower center", ncols=2)
        return style.png(fig)


def _reliability(axes: Axes, one: Reliability, look: dict) -> None:
    confidence, accuracy, low, high = (
        np.array([np.nan if b[key] is None else b[key] for b in one.bins], float)
        for key in ("confidence", "accuracy", "low", "high")
    )
    axes.vlines(confidence, low, high, color=look["color"], lw=1.3, alpha=0.7)
    axes.plot(confidence, accuracy, ms=5, lw=1.1, **look)


def _risk(axes: Axes, calibration: Calibration, look: dict) -> None:
    coverage, risk = np.array(calibration.abstention.curve).T
    enough = coverage >= _LEAST_COVERAGE
    axes.plot(coverage[enough], risk[enough], color=look["color"], lw=1.5)
    shown = calibration.abstention.error_at
    values = np.array([e.value for e in shown.values()])
    edges = np.array(
        [[np.nan if x is None else x for x in (e.low, e.high)] for e in shown.values()]
    )
    axes.vlines(list(shown), *edges.T, color=look["color"], lw=1.3, alpha=0.7)
    axes.plot(
        list(shown),
        values,
        color=look["color"],
        marker=look["marker"],
        ms=5,
        ls="none",
        clip_on=False,
    )


def _caption(found: Sequence[Found]) -> str:
    counts = dict.fromkeys(
        f"{counted(c.images, judged_unit(one.result))} of {counted(c.patients, 'patients')}"
        for one, c in found
    )
    bins = dict.fromkeys(str(len(c.before.bins)) for _, c in found)
    fitted = dict.fromkeys(c.fitted_on for _, c in found)
    words = (
        f"{' or '.join(counts)}. Left and middle: answers in {' or '.join(bins)} bins of about as "
        "many images, by the probability of the answer; on the dashed line a probability is the "
        "share of right answers that it announces. Right: errors among the answers when the least "
        "sure images get none, by what the model says. Vertical lines are 95 % intervals. The "
        f"temperature was fitted on {' or on '.join(fitted)}."
    )
    if any(one.simulated for one, _ in found):
        words += " Simulated images say nothing about patients."
    notes = dict.fromkeys(note for _, c in found for note in c.notes)
    return words + "".join(f" {note[0].upper()}{note[1:]}." for note in notes)


def _probabilities(found: Sequence[Found]) -> str:
    rows = []
    for one, c in found:
        fitted = _fitted(c.temperatures)
        for words, r in (("as the model says", c.before), (f"temperature {fitted}", c.after)):
            rows.append(
                (
                    *(naming.title(one.result.study), one.label, words),
                    *(f"{r.expected_error:.3f}", f"{r.expected_by_chance:.3f}"),
                    *(_shown(r.rms_error), _shown(r.brier), _shown(r.log_loss)),
                    *(f"{c.images:,}", f"{c.patients:,}"),
                )
            )
    columns = (
        *("Task", "Model / data", "Probabilities", "ECE", "ECE by chance"),
        *("RMS error", "Brier score", "Log loss", "Images", "Patients"),
    )
    said = (
        "ECE is the expected calibration error of the answers in bins of equal mass. A finite "
        "sample shows one even where every probability is true: that is the ECE by chance, and "
        "only what exceeds it is miscalibration (Roelofs et al. 2022). The RMS error, the root of "
        "the mean squared one, has this bias taken off (Kumar, Liang and Ma 2019) and its 95 % "
        "interval in brackets, of which 91 % or more hold the truth in simulation; the upper end "
        "bounds the ECE too. Brier score (0 to 2) and log loss judge the probabilities of all "
        "classes; 93 to 97 % of their intervals hold the truth, 90 % where hardly any answer is "
        "wrong."
    )
    return _titled("Calibration", columns, rows, said)


def _fitted(temperatures: Sequence[float]) -> str:
    """ "1.04", "2.41 to 2.60" over folds; a search that ended at its bound found none."""
    ends = dict.fromkeys(
        "undecided" if is_hottest(one) else f"{one:.2f}"
        for one in (min(temperatures), max(temperatures))
    )
    return " to ".join(ends)


def _abstention(found: Sequence[Found]) -> str:
    rows = []
    for one, c in found:
        a = c.abstention
        given = f"no {judged_unit(one.result).removesuffix('s')} is answered"
        if a.error is not None:
            count = round(a.coverage.value * a.coverage.n)
            judged = counted(count, judged_unit(one.result))
            given = f"{judged}, {_percent(a.coverage)}, {_percent(a.error)} of them wrong"
        rows.append(
            (
                *(naming.title(one.result.study), one.label, _shown(a.area)),
                *(_percent(e) for e in a.error_at.values()),
                given,
            )
        )
    coverages = found[0][1].abstention.error_at
    asked = f"{100 * found[0][1].abstention.asked:.0f} %"
    columns = (
        *("Task", "Model / data", "Area under risk"),
        *(f"Errors at {100 * coverage:.0f} %" for coverage in coverages),
        f"For {asked} errors",
    )
    said = (
        "Risk is the share of errors among the answers, at a coverage of so many percent of the "
        "images, the surest ones; its area is the mean over all coverages. "
        f"The last column chooses the probability from which on no more than {asked} of the "
        "answers are wrong on other patients, and says what that gives here. In simulation 94 to "
        "95 % of the intervals of the area hold the truth, and as few as 83 % where hardly any "
        "answer is wrong."
    )
    return _titled("Abstention", columns, rows, said)


def _sets(found: Sequence[Found]) -> str:
    rows = []
    for one, c in found:
        for s in c.sets:
            worst = min(s.of_class, key=lambda name: s.of_class[name].value)
            rows.append(
                (
                    *(naming.title(one.result.study), one.label, f"{100 * s.level:.0f} %"),
                    _percent(s.coverage) + _judged(s),
                    *(_shown(s.size, 2), _percent(s.single), _percent(s.empty)),
                    f"{display(worst)} {_percent(s.of_class[worst])}",
                )
            )
    columns = (
        *("Task", "Model / data", "Promised", "Measured coverage", "Answers in a set"),
        *("One answer", "No answer", "Least covered class"),
    )
    said = (
        "A conformal set holds every class whose probability reaches a threshold (Sadinle, Lei and "
        "Wasserman 2019), chosen on other patients so that the true class is inside at the "
        "promised rate for an image of a new patient. Patients must be exchangeable, of the same "
        "kind as those chosen on; images of one patient are not, so each patient counts once (Lee, "
        "Barber and Willett 2023). Nothing is promised of a single class or subgroup. Coverage "
        "below the promise says that the judged patients are not like those chosen on."
    )
    return _titled("Conformal sets", columns, rows, said)


def _judged(s: Sets) -> str:
    """What a reader must not overlook in a measured coverage."""
    if s.trivial:
        return ", trivial: too few patients"
    if s.coverage.high is not None and s.coverage.high < s.level:
        return ", below the promise"
    return ""


def _coverages(found: Sequence[Found]) -> str:
    rows = []
    for one, c in found:
        for s in c.sets:
            parts = {"class": s.of_class, **s.of_group}
            rows += [
                (
                    *(naming.title(one.result.study), one.label, f"{100 * s.level:.0f} %"),
                    *(display(column), display(name), _percent(e), f"{e.n:,}"),
                )
                for column, estimates in parts.items()
                for name, e in estimates.items()
            ]
    columns = ("Task", "Model / data", "Promised", "By", "Group", "Measured coverage", "Images")
    return page.plain_table(columns, rows)


def _bins(found: Sequence[Found]) -> str:
    rows = []
    for one, c in found:
        for words, r in (("as the model says", c.before), ("at the temperature", c.after)):
            for b in r.bins:
                accuracy = Estimate(b["accuracy"], b["low"], b["high"])
                rows.append(
                    (
                        *(naming.title(one.result.study), one.label, words),
                        *(f"{b['confidence']:.3f}", _shown(accuracy)),
                        *(f"{b['images']:,}", f"{b['patients']:,}"),
                    )
                )
    columns = (
        *("Task", "Model / data", "Probabilities", "Mean probability", "Share right"),
        *("Images", "Patients"),
    )
    return page.plain_table(columns, rows)


def _titled(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    return page.folded_table(title, columns, rows) + page.paragraph(said, "quiet")


def _shown(estimate: Estimate, digits: int = 3) -> str:
    """ "0.019 (0.000 to 0.052)"."""
    words = f"{estimate.value:.{digits}f}"
    if estimate.low is None:
        return words
    return f"{words} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def _percent(estimate: Estimate) -> str:
    words = f"{100 * estimate.value:.1f} %"
    if estimate.low is None:
        return words
    return f"{words} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
