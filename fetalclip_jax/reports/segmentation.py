"""The section of segmentation: a table of structures, outlines over images, circumferences."""

from collections.abc import Iterator, Sequence

import numpy as np

from fetalclip_jax.evaluation.curves import of_size
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import naming, page
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reading import Evaluated
from fetalclip_jax.reports.regression import agreement_figure

_FAMILIES = ("segmentation.", "few_shot_segmentation.")
_OF_STRUCTURES = ("dice", "image_dice", "hausdorff95_mm")
_CIRCUMFERENCE = ("hc_mae_mm", "hc_bias_mm", "hc_lower_limit_mm", "hc_upper_limit_mm")


def parts(report: Report) -> Iterator[str]:
    """A table, pictures and the agreement of circumferences of every study, as HTML."""
    found = [one for one in report.contents.evaluated if one.result.study.startswith(_FAMILIES)]
    for study, ones in report.by_study(found):
        title = naming.title(study)
        yield report.table(title, _COLUMNS, list(_rows(ones, report.contents.several)), of=ones)
        for one in ones:
            if one.result.details.get("notes"):
                notes = " ".join(f"{_sentence(note)}." for note in one.result.details["notes"])
                yield _quiet(report.whose(one.label) + notes)
        yield _quiet(_how(ones[0].result))
        pictures = [picture for one in ones for picture in report.shown(one)]
        yield report.side_by_side(f"Outlines: {title}", pictures)
        agreements = [_agreement(report, one) for one in ones if _has_circumferences(one.result)]
        yield report.side_by_side(f"Circumferences: {title}", agreements)


_COLUMNS = ("Structure", "Pooled Dice", "Dice of the image", "Hausdorff distance (95 %)", "Images")


def _rows(ones: Sequence[Evaluated], several: bool) -> Iterator[tuple[str, ...]]:
    """The mean of each result, then its structures."""
    for one in ones:
        structures = one.result.details.get("structures") or []
        after = ""
        if one.result.curve:
            sizes = [int(point["patients"]) for point in one.result.curve]
            after = f" after {of_size(one.result, max(sizes))}"
        whose = f"{one.label}, " if several else ""
        named = [("mean of all" if len(structures) > 1 else display("".join(structures)), "")]
        named += [(display(name), f"_{name}") for name in structures] * (len(structures) > 1)
        for words, ending in named:
            shown = [_shown(one.result, f"{name}{ending}") for name in _OF_STRUCTURES]
            yield f"{whose}{words}{after}", *shown, f"{one.result.metrics['dice'].n:,}"


def _shown(result: Result, name: str) -> str:
    estimate = result.metrics.get(name)
    if estimate is None:
        return "none"
    # The unit once, behind the interval.
    shown = naming.metric(name)
    digits = 2 if shown.unit else 3
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is not None:
        text += f" ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
    return f"{text} {shown.unit}".strip()


def _how(result: Result) -> str:
    words = (
        "Pooled Dice is of the pixels of all test images together, as in the paper; that of the "
        "image is the mean over images, without those in which a structure is neither annotated "
        "nor predicted. The Hausdorff distance is the 95th percentile of the distances between "
        "the boundaries, where both are there. "
    )
    if pixels := result.details.get("pixels"):
        words += f"All of it is measured at the model's size, {pixels} x {pixels} pixels."
    return words


def _has_circumferences(result: Result) -> bool:
    return result.predictions is not None and _CIRCUMFERENCE[0] in result.metrics


def _agreement(report: Report, one: Evaluated) -> str:
    result = one.result
    columns = [result.predictions.extra[name] for name in ("hc_mm", "hc_mm_of_ellipse")]
    true, found = (column.astype(np.float64) for column in columns)
    known = np.isfinite(true) & np.isfinite(found)
    said = [
        f"{naming.metric(name).words} {_shown(result, name)}"
        for name in _CIRCUMFERENCE
        if name in result.metrics
    ]
    caption = (
        f"Circumference of the ellipse through the predicted outline (mean over the runs) against "
        f"that which was measured, {known.sum():,} of {len(known):,} heads: {'; '.join(said)}."
    )
    return report.picture(
        report.figure_name(slug(f"{result.study}_circumference"), one.label),
        agreement_figure(
            true[known], found[known], "head circumference (mm)", naming.title(result.study)
        ),
        "Head circumferences of predicted outlines against measured ones",
        report.whose(one.label) + caption,
        of=[one],
    )


def _quiet(words: str) -> str:
    return page.paragraph(words, "quiet")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".")
