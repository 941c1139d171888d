"""Published results of the studies that can be run here, to stand beside one's own.

FetalCLIP, UniMed-CLIP, BiomedCLIP, CLIP: arXiv 2502.14807 (npj Digital Medicine, 2026).
MobileFetalCLIP: arXiv 2603.05421.
"""

import dataclasses
from collections.abc import Mapping

from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.reports import naming, provenance
from fetalclip_jax.reports.headline import is_alone
from fetalclip_jax.reports.reading import Contents, Evaluated

SOURCE = "arXiv 2502.14807; MobileFetalCLIP: arXiv 2603.05421"
MODELS = ("FetalCLIP", "MobileFetalCLIP", "UniMed-CLIP", "BiomedCLIP", "CLIP ViT-L/14")


@dataclasses.dataclass(frozen=True)
class Published:
    """What the papers report of one study.

    Attributes:
      metric: as the study calls it.
      data: what it was measured on.
      images: how many of them.
      values: model -> fraction.
    """

    metric: str
    data: str
    images: int | None
    values: Mapping[str, float]


def _row(metric: str, data: str, images: int | None, *percent: float | None) -> Published:
    known = zip(MODELS, percent, strict=True)
    values = {model: round(value / 100, 4) for model, value in known if value is not None}
    return Published(metric, data, images, values)


_PLANES = "FETAL_PLANES_DB"
_HEARTS = "private four-chamber clips"
BY_STUDY = {
    "zero_shot.planes": _row("macro_f1", _PLANES, 8187, 97.27, None, 67.95, 60.34, 30.77),
    "zero_shot.brain": _row("macro_f1", _PLANES, 2949, 70.15, 78.4, 18.75, 23.62, 20.61),
    # FetalCLIP: (5 x 97.27 + 3 x 70.15) / 8; the others' averages were not published.
    "zero_shot.merged": _row("macro_f1", _PLANES, None, 87.1, 88.6, None, None, None),
    "age": _row("valid_prediction_rate", "HC18 training set", 999, 83.42, 88.6, 8.97, 24.45, 11.43),
    "probe.planes": _row("macro_f1", _PLANES, None, 94.73, 93.0, 85.96, 85.64, 86.74),
    "probe.brain": _row("macro_f1", _PLANES, None, 82.01, 79.9, 60.67, 58.20, 63.42),
    "chd.concatenated": _row("auroc", _HEARTS, None, 78.72, 76.9, 71.80, 64.32, 67.88),
}


def beside(result: Result) -> str:
    """Published figures of a result's study in one line; "" unless it is by the paper's protocol.

    Figures of simulated images stand beside none: they say nothing about patients.
    """
    if not _comparable(result):
        return ""
    known = BY_STUDY[result.study]
    values = ", ".join(f"{model} {value:.3f}" for model, value in known.values.items())
    on = known.data + (f", {known.images:,} images" if known.images else "")
    by = ", by one view of each image" if provenance.views_in_words(result) else ""
    return f"published ({SOURCE}), {result.study} {known.metric} on {on}{by}: {values}"


def table(contents: Contents) -> list[tuple[str, ...]]:
    """Results by the paper's protocol on real images above what is published, as plain text.

    The first row names the columns, the last one what was published on; [] for no such result.
    """
    here: dict[str, dict[str, list[str]]] = {}
    for one in filter(lambda one: _comparable(one.result), contents.evaluated):
        studies = here.setdefault(one.model_name, {})
        studies.setdefault(one.result.study, []).append(_measured(one))
    studies = [name for name in BY_STUDY if any(name in cells for cells in here.values())]
    if not studies:
        return []
    known = [BY_STUDY[study] for study in studies]
    metrics = [naming.metric(row.metric).words for row in known]
    titles = map(naming.title, studies)
    rows = [("Model", *(f"{a}, {b}" for a, b in zip(titles, metrics, strict=True)))]
    for model, cells in here.items():
        rows.append((model, *("; ".join(cells.get(study, [])) for study in studies)))
    for model in MODELS:
        values = [row.values.get(model) for row in known]
        if any(values):
            shown = (f"{100 * v:.2f} %" if v else "" for v in values)
            rows.append((f"{model}, published", *shown))
    on = (row.data + (f", {row.images:,} images" if row.images else "") for row in known)
    rows.append(("published on", *on))
    return rows


def _comparable(result: Result) -> bool:
    """Whether a result may stand beside published ones."""
    known = BY_STUDY.get(result.study)
    by_paper = result.protocol.get("name") == "paper" and not result.data.get("simulated")
    return (
        by_paper
        and known is not None
        and known.metric in result.metrics
        and not is_alone(result, known.metric)
    )


def _measured(one: Evaluated) -> str:
    """ "49.9 % (47.0 to 52.8), clinic, 120 images of 20 patients"."""
    estimate = one.result.metrics[BY_STUDY[one.result.study].metric]
    words = f"{100 * estimate.value:.1f} %"
    if estimate.low is not None and estimate.high is not None:
        words += f" ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
    images, patients = provenance.counts(one)
    counted = "" if images is None else f", {images:,} images"
    if images is not None and patients is not None:
        counted += f" of {patients:,} patients"
    views = provenance.views_in_words(one.result)
    return f"{words}, {one.data_name}{counted}" + (f", {views}" if views else "")
