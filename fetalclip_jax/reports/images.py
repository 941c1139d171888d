"""Sections of single images: the surest mistakes, and examples that a hash picks."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from fetalclip_jax.evaluation import examples
from fetalclip_jax.evaluation.examples import Judged
from fetalclip_jax.evaluation.units import judged_unit
from fetalclip_jax.reports import gallery, headline, naming, page
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reading import Evaluated

# More pictures than this open on demand, task by task: nobody scrolls through fifty galleries.
_MOST_OPEN = 6
_SUREST = (
    "The wrong answers with the largest margins. The margin is the score of the predicted class "
    "less that of the next best one. They show how a model fails, not how often."
)
_PICKED = (
    "Predictions with their three best candidates. A hash of the image id picks the images, with "
    "the classes taking turns. Wrong predictions get as much room as right ones, whatever their "
    "true share."
)


@dataclasses.dataclass
class _Shown:
    """What one study shows.

    Attributes:
      pictures: HTML, one of each result.
      rows: of the table below them; "model / data" comes first.
    """

    pictures: list[str] = dataclasses.field(default_factory=list)
    rows: list[tuple[str, ...]] = dataclasses.field(default_factory=list)


def mistakes(report: Report) -> Iterator[str]:
    """The wrong answers that each model was surest of, in the order of the page."""
    shown: dict[str, _Shown] = collections.defaultdict(_Shown)
    without = []
    for one in pictured(report):
        found = _load(report, one)
        if surest := [pair for pair in found if pair[0].surest]:
            block = shown[one.result.study]
            block.pictures.append(_mistakes(report, one, surest))
            block.rows += [(one.label, *_judged(row), *_known(row)) for row, _ in surest]
        elif any(not row.correct for row, _ in found):
            without.append(f"{naming.title(one.result.study)} of {one.label}")
    if without:
        report.missing.append(
            "Worst confident mistakes: these examples were stored by a version that did not keep "
            f"them; evaluate again to see them: {'; '.join(without)}."
        )
    columns = ("Image", "True", "Predicted", "Margin", "Patient", "Group")
    yield from _blocks(report, shown, _SUREST, columns)


def by_hash(report: Report) -> Iterator[str]:
    """Right and wrong answers, neither easy nor striking ones, in the order of the page."""
    shown: dict[str, _Shown] = collections.defaultdict(_Shown)
    for one in pictured(report):
        if found := [pair for pair in _load(report, one, say=True) if not pair[0].surest]:
            block = shown[one.result.study]
            block.pictures.append(_by_hash(report, one, found))
            block.rows += [(one.label, *_judged(row), _candidates(row)) for row, _ in found]
        elif one.result.study == "zero_shot.planes":
            report.missing.append(f"Example images of {one.label}: none were stored.")
    columns = ("Image", "True", "Predicted", "Three best candidates")
    yield from _blocks(report, shown, _PICKED, columns)


def _blocks(
    report: Report, shown: Mapping[str, _Shown], note: str, columns: Sequence[str]
) -> Iterator[str]:
    """Pictures and a table of each study; opened on demand where they are many."""
    if not shown:
        return
    yield page.paragraph(note, "quiet note")
    many = sum(len(block.pictures) for block in shown.values()) > _MOST_OPEN
    for study, block in shown.items():
        title = naming.title(study)
        if report.contents.several:
            table = page.plain_table(("Model / data", *columns), block.rows)
        else:
            table = page.plain_table(columns, [row[1:] for row in block.rows])
        if many:
            content = page.side_by_side("", block.pictures) + table
            yield page.details(f"{title}: {len(block.pictures)} of them", content)
        else:
            yield report.side_by_side(title, block.pictures)
            yield page.details(f"{title}: these images as a table", table)


def pictured(report: Report) -> list[Evaluated]:
    """A baseline, and a study of how much, not of which, show no single images."""
    return [
        one
        for one in report.contents.evaluated
        if one.result.study != headline.RAW_PIXELS and not one.result.curve
    ]


def _load(report: Report, one: Evaluated, say: bool = False) -> list:
    try:
        return examples.load(one.folder, one.result.study)
    except ValueError as error:
        if say:
            report.missing.append(f"Example images: {error}.")
        return []


def _columns(report: Report) -> int:
    """Images in a row: fewer where the galleries of two models share one of the page."""
    return 4 if report.contents.several else 6


def _mistakes(report: Report, one: Evaluated, found: Sequence) -> str:
    title, wrong = naming.title(one.result.study), _wrong(one)
    caption = f"{title}: the surest" + ("." if wrong is None else f" of {wrong:,} wrong answers.")
    return report.picture(
        report.figure_name(f"mistakes_{slug(one.result.study)}", one.label),
        gallery.mistakes(found, _columns(report)),
        f"Worst confident mistakes: {title}",
        report.whose(one.label) + caption + _scores(one),
        of=[one],
        intervals=False,
    )


def _by_hash(report: Report, one: Evaluated, found: Sequence) -> str:
    title = naming.title(one.result.study)
    return report.picture(
        report.figure_name(f"examples_{slug(one.result.study)}", one.label),
        gallery.figure(found, _columns(report)),
        f"Example images: {title}",
        f"{report.whose(one.label)}{title}.{_scores(one)}",
        of=[one],
        intervals=False,
    )


def _judged(row: Judged) -> tuple[str, str, str]:
    return row.example_id, display(row.label), display(row.prediction)


def _known(row: Judged) -> tuple[str, str, str]:
    """Margin, patient and groups."""
    margin = "" if row.margin is None else f"{row.margin:.3f}"
    groups = ", ".join(f"{display(name)} {value}" for name, value in row.groups.items())
    return margin, row.patient_id or "not known", groups


def _wrong(one: Evaluated) -> int | None:
    """How many answers are wrong."""
    found = one.result.predictions
    if found is None:
        return None
    label, prediction = (values.astype(str) for values in (found.label, found.prediction))
    return int(((label != "") & (label != prediction)).sum())


def _scores(one: Evaluated) -> str:
    details = one.result.details
    words = f" Scores: {details['scores']}." if details.get("scores") else ""
    if judged_unit(one.result) == "clips":
        words += " Each picture is four frames of a clip, read line by line."
    return words


def _candidates(row: Judged) -> str:
    return ", ".join(f"{display(name)} {score:.3f}" for name, score in row.candidates)
