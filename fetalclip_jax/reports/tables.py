"""The headline table: no figure stands without the baseline it has to beat."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

from fetalclip_jax.reports.run import Run
from fetalclip_jax.reports.summary import few_shot_curve, number

_COLUMNS = (
    "Task",
    "Metric",
    "Value",
    "Baseline",
    "95 % interval",
    "Verdict",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the headline table.

    Attributes:
      task: what was asked.
      metric: what was measured.
      value: the figure.
      interval: its 95 % interval, or None.
      baseline: the figure to beat, or None where it was not recorded.
      baseline_name: what the baseline is.
      percent: shown in percent rather than as a fraction.
      lower_is_better: errors, where the baseline is beaten from below.
      unit: appended to the figures.
    """

    task: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    baseline: float | None
    baseline_name: str
    percent: bool = False
    lower_is_better: bool = False
    unit: str = ""

    @property
    def verdict(self) -> tuple[str, str]:
        """Whether the figure beats its baseline, in words and as a style class."""
        if self.baseline is None:
            return "no baseline", "unknown"
        sign = -1 if self.lower_is_better else 1
        if sign * self.value <= sign * self.baseline:
            return "not better", "worse"
        if min(sign * edge for edge in self.interval or (self.value,)) <= sign * self.baseline:
            return "within the interval", "unknown"
        return "better", "better"

    def show(self, value: float) -> str:
        """`value` in the unit of this row."""
        if self.percent:
            return f"{100 * value:.1f} %"
        return f"{value:.1f} {self.unit}" if self.unit else f"{value:.3f}"


def headline_rows(run: Run) -> list[Row]:
    """The figures of a run, each beside its baseline."""
    rows = [
        *_zero_shot(run.result("zero_shot_planes"), "Zero-shot planes"),
        *_zero_shot(run.result("zero_shot_brain"), "Zero-shot brain planes"),
        *_age(run.result("age"), run.data_source == "hc18"),
        *_probes(run),
        *_few_shot(run),
    ]
    return rows


def headline_table(rows: Sequence[Row]) -> str:
    """The rows as an HTML table."""
    body = []
    for row in rows:
        interval = "not recorded"
        if row.interval is not None:
            interval = " to ".join(row.show(edge) for edge in row.interval)
        baseline = "not recorded" if row.baseline is None else row.show(row.baseline)
        verdict, style_class = row.verdict
        body.append(
            f'<tr><th scope="row">{html.escape(row.task)}</th><td>{html.escape(row.metric)}</td>'
            f'<td class="value">{row.show(row.value)}</td>'
            f'<td class="baseline"><span class="number">{baseline}</span> '
            f'<span class="quiet">{html.escape(row.baseline_name)}</span></td>'
            f'<td class="number">{interval}</td>'
            f'<td><span class="verdict {style_class}">{verdict}</span></td></tr>'
        )
    cells = "".join(f'<th scope="col">{words}</th>' for words in _COLUMNS)
    return (
        '<div class="scroll"><table class="headline"><thead><tr>'
        f"{cells}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def programs_table(run: Run) -> str:
    """Seconds and peak memory of every program that recorded them, as HTML; "" if none did."""
    body = []
    for name, result in run.results.items():
        seconds, peak = number(result.get("seconds")), number(result.get("peak_rss_gib"))
        if seconds is None and peak is None:
            continue
        cells = (
            "" if seconds is None else f"{seconds:,.1f}",
            "" if peak is None else f"{peak:.2f}",
        )
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{html.escape(name)}</th>{numbers}</tr>')
    if not body:
        return ""
    return (
        '<div class="scroll"><table><thead><tr><th>Program</th><th>Seconds</th>'
        f"<th>Peak memory (GiB)</th></tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _zero_shot(result: Mapping[str, Any], task: str) -> list[Row]:
    value = number(result.get("macro_f1"))
    if value is None:
        return []
    named = {
        "chance": number(result.get("chance_macro_f1")),
        "always the most frequent class": number(result.get("majority_macro_f1")),
    }
    known = {name: v for name, v in named.items() if v is not None}
    # The harder of the two to beat is the one that counts.
    best = max(known, key=known.__getitem__, default="chance")
    return [Row(task, "macro F1", value, _interval(result, "macro_f1"), known.get(best), best)]


def _age(result: Mapping[str, Any], age_from_size: bool) -> list[Row]:
    rows = []
    rate, constant = (number(result.get(k)) for k in ("valid_prediction_rate", "constant_baseline"))
    interval = _interval(result, "valid_prediction_rate")
    # A rate alone misleads: one constant age is valid for many fetuses. Without it, no figure.
    if rate is not None and constant is not None:
        days = number(result.get("constant_baseline_days"))
        at = "" if days is None else f" ({_weeks(days)})"
        task, metric = "Zero-shot age", "valid prediction rate"
        name = f"best constant age for these images{at}"
        rows.append(Row(task, metric, rate, interval, constant, name, percent=True))
    mae = number(result.get("mae_days"))
    if mae is not None:
        baseline = number(result.get("mae_constant_days"))
        rows.append(
            Row(
                "Zero-shot age",
                "mean absolute error",
                mae,
                _interval(result, "mae_days"),
                baseline,
                "best constant age for these images",
                lower_is_better=True,
                unit="days",
            )
        )
    return rows


def _probes(run: Run) -> list[Row]:
    rows = []
    raw = number(run.result("probe_raw_pixels").get("macro_f1"))
    for name, task, baseline in (
        ("probe_planes", "Linear probe, six planes", raw),
        ("probe_brain", "Linear probe, brain planes", None),
    ):
        result = run.result(name)
        value = number(result.get("macro_f1"))
        if value is None:
            continue
        baseline_name = "linear probe on 16 x 16 raw pixels"
        if baseline is None:
            baseline = number(result.get("majority_macro_f1"))
            baseline_name = "always the most frequent class"
        interval = _interval(result, "macro_f1")
        rows.append(Row(task, "macro F1", value, interval, baseline, baseline_name))
    return rows


def _few_shot(run: Run) -> list[Row]:
    curve = few_shot_curve(run.result("few_shot_planes"))
    raw = number(run.result("probe_raw_pixels").get("macro_f1"))
    ends = dict.fromkeys((next(iter(curve)), list(curve)[-1])) if curve else ()
    name = "raw pixels of all training patients"
    rows = []
    for patients in ends:
        point = curve[patients]
        edges = {"mean_interval": [point.get("low"), point.get("high")]}
        task = f"Few-shot planes, {patients} patients"
        mean = float(point["mean"])
        rows.append(Row(task, "macro F1", mean, _interval(edges, "mean"), raw, name))
    return rows


def _interval(result: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    edges = result.get(f"{key}_interval")
    if not isinstance(edges, list | tuple) or len(edges) != 2:
        return None
    low, high = (number(edge) for edge in edges)
    return None if low is None or high is None else (low, high)


def _weeks(days: float) -> str:
    return f"{int(days) // 7} weeks {int(days) % 7} days"
