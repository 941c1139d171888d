"""Where a result's intervals hold the truth less often than they say.

The figures are those of `benchmarks/coverage.py` (benchmarks/RESULTS.md has its table).
"""

import numpy as np

from fetalclip_jax.evaluation.result import Predictions, Result

_FEW = 20  # patients, in all or of one class
_FEW_SETS = 5
# Of rates whose classes weigh the same, whatever their number of images.
_BY_CLASS = ("macro_f1", "balanced_")


def caveats(result: Result) -> list[str]:
    """Sentences, a list that is empty where simulated intervals cover 93 to 97 %."""
    if result.predictions is None or not any(e.low is not None for e in result.metrics.values()):
        return []
    return [
        *_of_images(result),
        *_of_classes(result),
        *_of_few(result),
        *_of_support_sets(result),
    ]


def _of_images(result: Result) -> list[str]:
    found = result.predictions
    patients, images = len(np.unique(found.patients())), len(found.example_id)
    if result.protocol.get("resample_by") != "image" or patients == images:
        return []
    return [
        f"intervals redraw single images, {images:,} of {patients:,} patients: where images of a "
        "patient are alike, as few as 76 % of such intervals hold the truth; resample_by='patient' "
        "heeds it"
    ]


def _of_classes(result: Result) -> list[str]:
    if not any(mark in name for name in result.metrics for mark in _BY_CLASS):
        return []
    few = [f"{name} ({count})" for name, count in _patients_of(result.predictions) if count < _FEW]
    if not few:
        return []
    return [
        f"classes of fewer than {_FEW} patients, {', '.join(few)}: 85 to 92 % of the intervals of "
        "balanced accuracies hold the truth, and of those of macro F1 too (80 % or more) where "
        "nearly every answer is right"
    ]


def _of_few(result: Result) -> list[str]:
    patients = len(np.unique(result.predictions.patients()))
    errors = [name for name in result.metrics if "error" in name or name.startswith("mae")]
    if patients >= _FEW or not errors:
        return []
    return [
        f"{patients} patients: about 90 % of the intervals of mean errors hold the truth where "
        f"there are fewer than {_FEW}"
    ]


def _of_support_sets(result: Result) -> list[str]:
    few = [p for p in result.curve if 1 < int(p.get("support_sets", _FEW_SETS)) < _FEW_SETS]
    if not few:
        return []
    sizes = ", ".join(str(point["patients"]) for point in few)
    return [
        f"fewer than {_FEW_SETS} support sets ({sizes} patients): 88 to 93 % of such intervals "
        "hold the truth"
    ]


def _patients_of(found: Predictions) -> list[tuple[str, int]]:
    patients = found.patients()
    return [
        (str(name), len(np.unique(patients[found.label == name])))
        for name in np.unique(found.label).tolist()
    ]
