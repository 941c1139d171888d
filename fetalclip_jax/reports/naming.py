"""How studies, metrics and classes are called on the page."""

import dataclasses
import math
import re
from typing import Any

from fetalclip_jax.evaluation import merits

# In the order of the page. Further studies are named after their parts.
STUDIES = {
    "zero_shot.planes": "Zero-shot planes",
    "zero_shot.brain": "Zero-shot brain planes",
    "zero_shot.merged": "Zero-shot, planes merged",
    "age": "Zero-shot age",
    "probe.planes": "Linear probe, six planes",
    "probe.brain": "Linear probe, brain planes",
    "probe.raw_pixels": "Linear probe on 16 x 16 raw pixels",
    "few_shot.planes": "Few-shot planes",
    "few_shot.brain": "Few-shot brain planes",
    "chd.concatenated": "Heart defects, frames one after another",
    "chd.mean": "Heart defects, mean over frames",
    "nearest_centroid.planes": "Nearest centroid, six planes",
    "nearest_centroid.brain": "Nearest centroid, brain planes",
    "knn.planes": "Nearest neighbours, six planes",
    "knn.brain": "Nearest neighbours, brain planes",
    "regression.ga_days": "Supervised age",
    "regression.hc_mm": "Supervised head circumference",
    "retrieval": "Retrieval of captions and images",
    "near_duplicates": "Near-duplicates",
    "mislabels.planes": "Doubtful labels, six planes",
    "mislabels.brain": "Doubtful labels, brain planes",
    "segmentation.head": "Segmentation of heads",
    "segmentation.abdomen": "Segmentation of the abdomen",
    "segmentation.four_chamber": "Segmentation of the four-chamber view",
    "few_shot_segmentation.head": "Few-shot segmentation of heads",
    "few_shot_segmentation.abdomen": "Few-shot segmentation of the abdomen",
    "few_shot_segmentation.four_chamber": "Few-shot segmentation of the four-chamber view",
    "explanation.head": "Explanation, head",
    "explanation.abdomen": "Explanation, abdomen",
    "explanation.heart": "Explanation, heart",
    "embedding_map.planes": "Map of features, planes",
    "embedding_map.ga_days": "Map of features, age",
}
_GROUPS = {
    "zero_shot": "Zero-shot",
    "probe": "Linear probe,",
    "few_shot": "Few-shot",
    "nearest_centroid": "Nearest centroid,",
    "knn": "Nearest neighbours,",
    "regression": "Supervised",
    "mislabels": "Doubtful labels,",
    "segmentation": "Segmentation:",
    "few_shot_segmentation": "Few-shot segmentation:",
    "explanation": "Explanation,",
    "embedding_map": "Map of features,",
}
IMPLIED_AGES = "head circumference"


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
      words: its name.
      percent: shown in percent rather than as a fraction.
      lower_is_better: an error, where a baseline is beaten from below.
      unit: appended to its figures.
      digits: behind the point, of a figure without a unit.
      finding: what is true of the data, and no merit of a model: there is nothing to beat.
    """

    words: str
    percent: bool = False
    lower_is_better: bool = False
    unit: str = ""
    digits: int = 3
    finding: bool = False

    def show(self, value: float | None) -> str:
        """`value` in the unit of this metric."""
        if value is None:
            return "not recorded"
        if self.percent:
            return f"{100 * value:.1f} %"
        return f"{value:.1f} {self.unit}" if self.unit else f"{value:.{self.digits}f}"


_ERRORS = {
    "mae": "mean absolute error",
    "bias": "mean error",
    "lower_limit": "lower limit of agreement",
    "upper_limit": "upper limit of agreement",
}
# Of masks; the name of a structure may follow.
_OVERLAPS = {
    "dice": Metric("pooled Dice"),
    "image_dice": Metric("Dice of the image"),
    "hausdorff95_mm": Metric("Hausdorff distance (95 %)", lower_is_better=True, unit="mm"),
}
_SHARE = {"percent": True, "lower_is_better": True}
_METRICS = {
    "macro_f1": Metric("macro F1"),
    "auroc": Metric("AUROC"),
    "auprc": Metric("area under precision and recall"),
    "valid_prediction_rate": Metric("valid prediction rate", percent=True),
    "median_implied_hc_error_percent": Metric(
        "median error of the implied circumference", lower_is_better=True, unit="%"
    ),
    "mean_implied_hc_error_percent": Metric(
        "mean error of the implied circumference", lower_is_better=True, unit="%"
    ),
    "percent_error": Metric("mean error in percent", lower_is_better=True, unit="%"),
    "r2": Metric("R2"),
    "near_duplicate_share": Metric("images with a near-duplicate", **_SHARE),
    "near_duplicate_share_across_splits": Metric("with one in another split", **_SHARE),
    "near_duplicate_share_across_patients": Metric("with one of another patient", **_SHARE),
    "label_noise": Metric("labels estimated to be wrong", **_SHARE),
    "hires_cam_mass": Metric("HiResCAM inside the outline", percent=True),
    "score_cam_mass": Metric("Score-CAM inside the outline", percent=True),
    "grad_cam_mass": Metric("Grad-CAM inside the outline", percent=True),
    "neighbour_agreement": Metric("neighbours that agree", percent=True),
    "planted_f1": Metric("F1 of finding planted errors"),
    "planted_recall": Metric("planted errors that are found", percent=True),
    "planted_precision": Metric("planted errors among what is flagged", percent=True),
}


def metric(name: str, ages_from: str = "") -> Metric:
    """How the metric `name` is shown of data whose ages come from `ages_from`."""
    return dataclasses.replace(_metric(name, ages_from), finding=merits.is_finding(name))


def _metric(name: str, ages_from: str) -> Metric:
    if name == "mae_days" and ages_from == IMPLIED_AGES:
        words = "mean distance to the age implied by the circumference"
        return Metric(words, lower_is_better=True, unit="days")
    if found := re.fullmatch(r"sensitivity_at_(\d+)_specificity", name):
        return Metric(f"sensitivity at {found[1]} % specificity", percent=True)
    for start, shown in _OVERLAPS.items():
        if name == start or name.startswith(f"{start}_"):
            structure = display(name[len(start) :]).strip()
            words = f"{shown.words}, {structure}" if structure else shown.words
            return dataclasses.replace(shown, words=words)
    if name.startswith("hc_") and name.endswith("_mm"):
        of_hc = metric(name.removeprefix("hc_"))
        return dataclasses.replace(of_hc, words=f"{of_hc.words} of the circumference")
    kind, _, ending = name.rpartition("_")
    if kind in _ERRORS:
        return Metric(_ERRORS[kind], lower_is_better=kind == "mae", unit=ending)
    if name in _ERRORS:
        return Metric(_ERRORS[name], lower_is_better=name == "mae", digits=1)
    if "_recall_at_" in name:
        return Metric(name.replace("_", " "), percent=True)
    if name.endswith("_hits"):
        return Metric(f"maximum of {metric(name[:-5] + '_mass').words}", percent=True)
    if name.startswith("neighbour_error_"):
        unit = name.removeprefix("neighbour_error_")
        return Metric("distance to the mean of neighbours", lower_is_better=True, unit=unit)
    if name.endswith("_median_rank"):
        return Metric(name.replace("_", " "), lower_is_better=True, digits=1)
    words = name.replace("_f1", " F1").replace("_", " ")
    return _METRICS.get(name) or Metric(words, lower_is_better="error" in name or "loss" in name)


def title(study: str) -> str:
    """What a study is called: "Zero-shot view" for "zero_shot.view"."""
    if study in STUDIES:
        return STUDIES[study]
    group, _, column = study.partition(".")
    return f"{_GROUPS.get(group, display(group).capitalize())} {display(column)}".strip()


def order(study: str) -> tuple[int, str]:
    """Where a study stands on the page; unknown ones beside their group, or at the end."""
    known = list(STUDIES)
    if study in known:
        return known.index(study), ""
    group = [k for k, name in enumerate(known) if name.partition(".")[0] == study.partition(".")[0]]
    return max(group, default=len(known)), study


def display(name: str) -> str:
    """A class name, or a reason, as a reader writes it; an id that it quotes stays as it is."""
    return re.sub(r"'[^']*'|_", lambda found: " " if found[0] == "_" else found[0], name)


def slug(name: str) -> str:
    """`name` as part of a file's name: nothing in it leads out of a folder."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_") or "unnamed"


def number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
