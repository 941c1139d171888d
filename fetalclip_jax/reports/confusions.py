"""What is taken for what: wrong answers beside right ones of both classes, pair by pair."""

from collections.abc import Iterator

import numpy as np

from fetalclip_jax.evaluation import confusions
from fetalclip_jax.evaluation.confusions import Confusion, Shown
from fetalclip_jax.evaluation.examples import Judged
from fetalclip_jax.reports import gallery, images, naming, page, style
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display, slug
from fetalclip_jax.reports.reading import Evaluated

_COLUMNS = 4
_NOTE = (
    "The most frequent pairs of a true class and another answer. Of each pair, the wrong answers "
    "with the largest margins stand above the right answers with the largest margins, of both "
    "classes. They show what is mistaken; the confusion matrix says how often."
)


def section(report: Report) -> Iterator[str]:
    """A figure of every pair that is kept, opened on demand study by study."""
    said = False
    for one in images.pictured(report):
        try:
            found = confusions.load(one.folder, one.result.study)
        except ValueError as error:
            report.missing.append(f"What is mistaken for what: {error}.")
            continue
        if not found:
            continue
        if not said:
            yield page.paragraph(_NOTE, "quiet note")
            said = True
        title = f"{report.whose(one.label)}{naming.title(one.result.study)}"
        words = ", ".join(f"{display(x.label)} for {display(x.prediction)}" for x in found)
        blocks = [_picture(report, one, place, pair) for place, pair in enumerate(found)]
        yield page.details(f"{title}: {words}", page.side_by_side("", blocks))


def _picture(report: Report, one: Evaluated, place: int, pair: Confusion) -> str:
    study = one.result.study
    caption = (
        f"{naming.title(study)}. {pair.count} of {pair.total} images of {display(pair.label)} are "
        f"taken for {display(pair.prediction)}. Below each image its score, the margin over the "
        "next candidate, and the patient."
    )
    if others := dict.fromkeys(shown.of for shown in pair.shown if shown.of):
        caption += f" Images of {', '.join(others)} are not judged here; a hash picks them."
    return report.picture(
        report.figure_name(f"confusion_{slug(study)}_{place}", one.label),
        figure(pair),
        f"{display(pair.label)} taken for {display(pair.prediction)}",
        report.whose(one.label) + caption,
        of=[one],
        intervals=False,
    )


def figure(pair: Confusion) -> bytes:
    """PNG bytes: a row of images of each kind."""
    with style.figure(1.3 * _COLUMNS, 1.85 * len(pair.shown)) as fig:
        bands = fig.subfigures(len(pair.shown), 1, squeeze=False)[:, 0]
        for band, shown in zip(bands, pair.shown, strict=True):
            band.suptitle(_title(pair, shown), x=0.008, ha="left", weight="bold", fontsize=10)
            axes = band.subplots(1, _COLUMNS)
            for one in axes:
                one.set_axis_off()
            for (judged, image), one in zip(shown.images, axes, strict=False):
                square = gallery.square(image)
                one.imshow(square, cmap="gray", vmin=0, vmax=255, interpolation="lanczos")
                spot = {"transform": one.transAxes, "ha": "center", "va": "top"}
                one.text(0.5, -0.03, _below(judged), fontsize=7, color=style.GREY, **spot)
        return style.png(fig)


def _title(pair: Confusion, shown: Shown) -> str:
    if shown.kind == "mistaken":
        return f"{display(pair.label)}, taken for {display(pair.prediction)}"
    if shown.kind == "right":
        return f"{display(shown.label)}, recognised"
    return f"{display(shown.label)}, of {shown.of}"


def _below(judged: Judged) -> str:
    if not judged.prediction:
        return ""
    scores = dict(judged.candidates)
    score = scores.get(judged.prediction, np.nan)
    margin = "" if judged.margin is None else f", margin {judged.margin:.2f}"
    return f"{score:.2f}{margin}\n{judged.patient_id or 'patient not known'}"
