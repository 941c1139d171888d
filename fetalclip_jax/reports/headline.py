"""The headline: no figure stands without the baseline it has to beat."""

import dataclasses
from collections.abc import Sequence

from fetalclip_jax.evaluation.curves import metric_of, of_size
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import naming, page, provenance
from fetalclip_jax.reports.naming import Metric, number
from fetalclip_jax.reports.page import text
from fetalclip_jax.reports.reading import Contents, Evaluated

# More rows than this stand closer together.
_MOST_AT_EASE = 30
RAW_PIXELS = "probe.raw_pixels"
_BESIDE_RAW_PIXELS = ("probe.planes", "few_shot.planes")
# A rate alone misleads: one constant age is valid for many fetuses. Without it, no figure.
_NEVER_ALONE = "valid_prediction_rate"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the headline table.

    Attributes:
      of: the result it is of.
      metric: what was measured.
      point: which point of a curve, such as "16 patients"; "" for a metric of the whole.
      value: the figure.
      interval: its 95 % interval, or None.
      baseline: the figure to beat, or None where it was not recorded.
      baseline_name: what the baseline is.
    """

    of: Evaluated
    metric: Metric
    point: str
    value: float
    interval: tuple[float, float] | None
    baseline: float | None
    baseline_name: str

    @property
    def what(self) -> str:
        """What was measured: "macro F1, 16 patients"."""
        return f"{self.metric.words}, {self.point}" if self.point else self.metric.words

    @property
    def verdict(self) -> tuple[str, str]:
        """Whether the figure beats its baseline, in words and as a style class."""
        if self.metric.finding:
            return "a finding", "unknown"
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
        if is_alone(one.result, _NEVER_ALONE)
    ]


def headline_table(found: Sequence[Row], several: bool) -> str:
    """The rows as an HTML table, a block for each task that says what its figures stand for.

    `several` adds the column "Model / data".
    """
    columns = ["Metric", "Value", "95 % interval", "Baseline", "Verdict"]
    if several:
        columns.insert(0, "Model / data")
    blocks: dict[str, list[Row]] = {}
    for row in found:
        blocks.setdefault(row.of.result.study, []).append(row)
    groups = []
    for study, rows in blocks.items():
        basis = provenance.stands_for(*{id(row.of): row.of for row in rows}.values())
        heading = f'{text(naming.title(study))} <span class="basis">{text(basis)}</span>'
        groups.append((heading, [_cells(row, columns, several) for row in _by_metric(rows)]))
    dense = " dense" * (len(found) > _MOST_AT_EASE)
    return page.grouped_table(columns, groups, f"headline stacked{dense}")


def _by_metric(rows: Sequence[Row]) -> list[Row]:
    """Figures that are to be compared stand below one another: by metric, then by data."""
    metrics = list(dict.fromkeys(row.what for row in rows))
    data = list(dict.fromkeys(row.of.data_name for row in rows))
    return sorted(rows, key=lambda r: (metrics.index(r.what), data.index(r.of.data_name)))


def _cells(row: Row, columns: Sequence[str], several: bool) -> str:
    """A row's cells; each says its column, for narrow pages that stack them."""
    edges = [row.metric.show(edge) for edge in row.interval or ()]
    verdict, style_class = row.verdict
    cells = [
        ("", text(row.what)),
        ("value", row.metric.show(row.value)),
        ("number", " to ".join(edges) or "none"),
        (
            "baseline",
            f'<span class="number">{row.metric.show(row.baseline)}</span> '
            f'<span class="quiet">{text(row.baseline_name)}</span>',
        ),
        ("", f'<span class="verdict {style_class}">{verdict}</span>'),
    ]
    if several:
        cells.insert(0, ("label", text(row.of.label)))
    first, *others = zip(columns, cells, strict=True)
    return f'<th scope="row">{first[1][1]}</th>' + "".join(
        f'<td class="{style}" data-label="{text(column)}">{words}</td>'
        for column, (style, words) in others
    )


def _metrics(one: Evaluated, raw: Result | None) -> list[Row]:
    result = one.result
    headline = next(iter(result.metrics), None)
    compared = {baseline.metric for baseline in result.baselines.values()}
    ages_from = str(result.data.get("ages_from") or "")
    return [
        Row(
            one,
            naming.metric(name, ages_from),
            "",
            estimate.value,
            _edges(estimate.low, estimate.high),
            *_hardest(result, name, raw, "linear probe on 16 x 16 raw pixels"),
        )
        for name, estimate in result.metrics.items()
        if (name == headline or name in compared) and not is_alone(result, name)
    ]


def _curve(one: Evaluated, raw: Result | None) -> list[Row]:
    """The ends of a data-efficiency curve."""
    points = sorted(one.result.curve, key=lambda point: int(point["patients"]))
    ends = points[:1] + points[1:][-1:]
    metric = metric_of(one.result)
    return [
        Row(
            one,
            naming.metric(metric),
            of_size(one.result, int(point["patients"])),
            float(point["mean"]),
            _edges(number(point.get("low")), number(point.get("high"))),
            *_hardest(one.result, metric, raw, "raw pixels of all training patients"),
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


def is_alone(result: Result, metric: str) -> bool:
    """Whether a metric that misleads alone has no baseline beside it."""
    return (
        metric == _NEVER_ALONE
        and metric in result.metrics
        and not any(baseline.metric == metric for baseline in result.baselines.values())
    )


def _edges(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)
