"""The headline: no figure stands without the baseline it has to beat."""

import dataclasses

from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import naming, published
from fetalclip_jax.reports.naming import Metric, number
from fetalclip_jax.reports.page import table, text
from fetalclip_jax.reports.reading import Contents, Evaluated

RAW_PIXELS = "probe.raw_pixels"
_BESIDE_RAW_PIXELS = ("probe.planes", "few_shot.planes")
# A rate alone misleads: one constant age is valid for many fetuses. Without it, no figure.
_NEVER_ALONE = "valid_prediction_rate"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the headline table.

    Attributes:
      label: "model / data".
      task: what was asked.
      metric: what was measured.
      value: the figure.
      interval: its 95 % interval, or None.
      baseline: the figure to beat, or None where it was not recorded.
      baseline_name: what the baseline is.
    """

    label: str
    task: str
    metric: Metric
    value: float
    interval: tuple[float, float] | None
    baseline: float | None
    baseline_name: str

    @property
    def verdict(self) -> tuple[str, str]:
        """Whether the figure beats its baseline, in words and as a style class."""
        if self.baseline is None:
            return "no baseline", "unknown"
        sign = -1 if self.metric.lower_is_better else 1
        if sign * self.value <= sign * self.baseline:
            return "not better", "worse"
        if min(sign * edge for edge in self.interval or (self.value,)) <= sign * self.baseline:
            return "within the interval", "unknown"
        return "better", "better"


def rows(contents: Contents) -> list[Row]:
    """The figures of every result, each beside the hardest of its baselines."""
    found = []
    for one in contents.evaluated:
        raw = contents.beside(one, RAW_PIXELS)
        # The raw pixels are a baseline themselves, wherever there is something to hold against.
        if one.result.study == RAW_PIXELS and contents.beside(one, "probe.planes"):
            continue
        against_raw = raw if one.result.study in _BESIDE_RAW_PIXELS else None
        found += _curve(one, against_raw) if one.result.curve else _metrics(one, against_raw)
    return found


def withheld(contents: Contents) -> list[str]:
    """Sentences about figures that are not shown since nothing stands beside them."""
    return [
        f"Valid prediction rate of {one.label}: withheld, because the result holds no constant "
        "age to hold it against."
        for one in contents.evaluated
        if _is_alone(one.result, _NEVER_ALONE)
    ]


def headline_table(found: list[Row], several: bool) -> str:
    """The rows as an HTML table; `several` adds the column "Model / data"."""
    body = []
    for row in found:
        edges = [row.metric.show(edge) for edge in row.interval or ()]
        verdict, style_class = row.verdict
        cells = [(row.task, "task"), (row.metric.words, "")]
        if several:
            cells.insert(1, (row.label, "label"))
        cells = [f'<td class="{name}">{text(words)}</td>' for words, name in cells]
        cells[0] = f'<th scope="row">{text(row.task)}</th>'
        body.append(
            "".join(cells) + f'<td class="value">{row.metric.show(row.value)}</td>'
            f'<td class="baseline"><span class="number">{row.metric.show(row.baseline)}</span> '
            f'<span class="quiet">{text(row.baseline_name)}</span></td>'
            f'<td class="number">{" to ".join(edges) or "none"}</td>'
            f'<td><span class="verdict {style_class}">{verdict}</span></td>'
        )
    columns = ["Task", "Metric", "Value", "Baseline", "95 % interval", "Verdict"]
    if several:
        columns.insert(1, "Model / data")
    return table(columns, body, "headline")


def published_table(contents: Contents) -> str:
    """Results by the paper's protocol on real images, above what is published; "" for none."""
    here: dict[str, dict[str, list[str]]] = {}
    for one in contents.evaluated:
        study, known = one.result.study, published.BY_STUDY.get(one.result.study)
        estimate = one.result.metrics.get(known.metric) if known else None
        by_paper = one.result.protocol.get("name") == "paper" and not one.simulated
        if estimate is None or not by_paper or _is_alone(one.result, known.metric):
            continue
        images = "" if estimate.n is None else f", {estimate.n:,} images"
        cell = (
            f'<span class="value">{100 * estimate.value:.1f} %</span> '
            f'<span class="quiet">{text(one.data_name)}{images}</span>'
        )
        here.setdefault(one.model_name, {}).setdefault(study, []).append(cell)
    studies = [name for name in published.BY_STUDY if any(name in cells for cells in here.values())]
    if not studies:
        return ""
    body = [
        f'<th scope="row">{text(model)}</th>'
        + "".join(f"<td>{'<br>'.join(cells.get(study, []))}</td>" for study in studies)
        for model, cells in here.items()
    ]
    known = [published.BY_STUDY[study] for study in studies]
    for model in published.MODELS:
        values = [row.values.get(model) for row in known]
        if any(values):
            cells = "".join(f"<td>{f'{100 * v:.2f} %' if v else ''}</td>" for v in values)
            body.append(
                f'<th scope="row">{text(model)} <span class="quiet">published</span></th>{cells}'
            )
    on = [row.data + (f", {row.images:,} images" if row.images else "") for row in known]
    cells = "".join(f'<td class="quiet">{text(words)}</td>' for words in on)
    body.append(f'<th scope="row"><span class="quiet">published on</span></th>{cells}')
    columns = [
        f"{naming.title(study)}, {naming.metric(row.metric).words}"
        for study, row in zip(studies, known, strict=True)
    ]
    return table(["Model", *columns], body, "published")


def _metrics(one: Evaluated, raw: Result | None) -> list[Row]:
    result = one.result
    headline = next(iter(result.metrics), None)
    compared = {baseline.metric for baseline in result.baselines.values()}
    ages_from = str(result.data.get("ages_from") or "")
    return [
        Row(
            one.label,
            naming.title(result.study),
            naming.metric(name, ages_from),
            estimate.value,
            _edges(estimate.low, estimate.high),
            *_hardest(result, name, raw, "linear probe on 16 x 16 raw pixels"),
        )
        for name, estimate in result.metrics.items()
        if (name == headline or name in compared) and not _is_alone(result, name)
    ]


def _curve(one: Evaluated, raw: Result | None) -> list[Row]:
    """The ends of a data-efficiency curve."""
    points = sorted(one.result.curve, key=lambda point: int(point["patients"]))
    ends = points[:1] + points[1:][-1:]
    return [
        Row(
            one.label,
            f"{naming.title(one.result.study)}, {point['patients']} patients",
            naming.metric("macro_f1"),
            float(point["mean"]),
            _edges(number(point.get("low")), number(point.get("high"))),
            *_hardest(one.result, "macro_f1", raw, "raw pixels of all training patients"),
        )
        for point in ends
    ]


def _hardest(
    result: Result, metric: str, raw: Result | None, raw_words: str
) -> tuple[float | None, str]:
    """The baseline that is hardest to beat, and what it is."""
    known = {
        baseline.description: baseline.estimate.value
        for baseline in result.baselines.values()
        if baseline.metric == metric
    }
    if raw is not None and metric in raw.metrics:
        known[raw_words] = raw.metrics[metric].value
    if not known:
        return None, ""
    pick = min if naming.metric(metric).lower_is_better else max
    name = pick(known, key=known.__getitem__)
    return known[name], name


def _is_alone(result: Result, metric: str) -> bool:
    return (
        metric == _NEVER_ALONE
        and metric in result.metrics
        and not any(baseline.metric == metric for baseline in result.baselines.values())
    )


def _edges(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)
