"""The sections of activation maps and of the map of features."""

from collections.abc import Iterator, Sequence

from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.reports import naming
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.page import paragraph
from fetalclip_jax.reports.reading import Evaluated

_MAPS = (
    "Where the image tower sees what the prompts of a plane say: the share of an activation map "
    "that lies inside the outline, beside chance (a map that is even over the content of the "
    "image) and a spot in its middle, for structures are centred. A map is no proof of what an "
    "answer rests on."
)
_EMBEDDINGS = (
    "Features in two dimensions show what a model puts together; the figure is the share of "
    "neighbours of other patients, in all dimensions, that have the same value, or their distance "
    "from it."
)


# Baselines of a study "explanation.*", in the order of the table.
_AGAINST = ("chance", "centre")


def maps(report: Report) -> Iterator[str]:
    """The figures of each study "explanation.*", and its activation maps."""
    found = _of(report, "explanation")
    if found:
        yield paragraph(_MAPS, "quiet note")
    for study, results in report.by_study(found):
        yield _table(report, study, results)
        yield _pictures(report, "", results)


def embeddings(report: Report) -> Iterator[str]:
    """The map of each result of a study "embedding_map.*"."""
    found = _of(report, "embedding_map")
    if found:
        yield paragraph(_EMBEDDINGS, "quiet note")
    for study, results in report.by_study(found):
        yield _pictures(report, naming.title(study), results)


def _of(report: Report, family: str) -> list[Evaluated]:
    return [one for one in report.contents.evaluated if one.result.study.startswith(f"{family}.")]


def _pictures(report: Report, title: str, results: Sequence[Evaluated]) -> str:
    pictures = [picture for one in results for picture in report.shown(one)]
    return report.side_by_side(title, pictures)


def _table(report: Report, study: str, results: Sequence[Evaluated]) -> str:
    """What of each map is inside, beside what needs no model."""
    rows = []
    for one in results:
        for name, estimate in one.result.metrics.items():
            metric = naming.metric(name)
            against = (one.result.baselines.get(f"{kind}_{name}") for kind in _AGAINST)
            rows.append(
                [
                    *(one.label, metric.words, _shown(metric, estimate)),
                    *("" if x is None else metric.show(x.estimate.value) for x in against),
                ]
            )
    columns = ("Model / data", "Share", "Value", "Chance", "Spot in the middle")
    return report.table(naming.title(study), columns, rows, of=results)


def _shown(metric: naming.Metric, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return metric.show(estimate.value)
    low, high = (metric.show(edge).removesuffix(" %") for edge in (estimate.low, estimate.high))
    return f"{metric.show(estimate.value)} ({low} to {high})"
