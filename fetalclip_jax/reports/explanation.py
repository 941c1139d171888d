"""The sections of activation maps and of the map of features."""

from collections.abc import Iterator

from fetalclip_jax.reports import naming
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.page import paragraph

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


def maps(report: Report) -> Iterator[str]:
    """The activation maps of each result of a study "explanation.*"."""
    yield from _shown(report, "explanation", _MAPS)


def embeddings(report: Report) -> Iterator[str]:
    """The map of each result of a study "embedding_map.*"."""
    yield from _shown(report, "embedding_map", _EMBEDDINGS)


def _shown(report: Report, family: str, note: str) -> Iterator[str]:
    found = [one for one in report.contents.evaluated if one.result.study.startswith(f"{family}.")]
    if found:
        yield paragraph(note, "quiet note")
    for study, results in report.by_study(found):
        pictures = [picture for one in results for picture in report.shown(one)]
        yield report.side_by_side(naming.title(study), pictures)
