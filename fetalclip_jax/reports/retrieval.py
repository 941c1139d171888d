"""The section of retrieval: recalls both ways beside those of guessing."""

from collections.abc import Iterator

from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.reports import naming
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.page import paragraph
from fetalclip_jax.reports.reading import Evaluated

_WAYS = {"image_to_text": "captions of an image", "text_to_image": "images of a caption"}
_NOTE = (
    "Recall at k is the share of queries with a right answer among the first k. Captions that mean "
    "the same are all right, and ties count against the model. Recalls of data sets of other sizes "
    "cannot be compared."
)


def parts(report: Report) -> Iterator[str]:
    """A table of each result of the study "retrieval"."""
    found = [one for one in report.contents.evaluated if one.result.study == "retrieval"]
    if found:
        yield paragraph(_NOTE, "quiet note")
    for one in found:
        yield _table(report, one)


def _table(report: Report, one: Evaluated) -> str:
    result = one.result
    names = [name.removeprefix("image_to_text_") for name in result.metrics
             if name.startswith("image_to_text_")]  # fmt: skip
    rows = []
    for way, words in _WAYS.items():
        rows.append([words, *(_shown(result, f"{way}_{name}") for name in names)])
        guesses: dict[str, list[str]] = {}
        for name in names:
            for baseline in result.baselines.values():
                if baseline.metric == f"{way}_{name}":
                    shown = naming.metric(baseline.metric).show(baseline.estimate.value)
                    guesses.setdefault(baseline.description, []).append(shown)
        rows += [[f"guess: {description}", *values] for description, values in guesses.items()]
    details = result.details
    title = one.label if report.contents.several else naming.title(result.study)
    title += (
        f": {details.get('captions', 0):,} captions with {details.get('meanings', 0):,} meanings"
    )
    columns = ("Looked for", *(naming.display(name) for name in names))
    return report.table(title, columns, rows, of=[one])


def _shown(result: Result, name: str) -> str:
    metric, estimate = naming.metric(name), result.metrics[name]
    return metric.show(estimate.value) + _interval(metric, estimate)


def _interval(metric: naming.Metric, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    edges = (metric.show(edge).removesuffix(" %") for edge in (estimate.low, estimate.high))
    return f" ({' to '.join(edges)})"
