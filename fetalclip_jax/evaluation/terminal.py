"""A result as text for the terminal."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax.evaluation.curves import of_size
from fetalclip_jax.evaluation.result import Estimate, Result
from fetalclip_jax.evaluation.units import judged_unit

_WIDEST_NAME = 18


def lines(result: Result) -> str:
    """Headline, what it has to beat, other metrics, the curve, the confusion matrix."""
    parts = [_headline(result)]
    others = list(result.metrics.items())[1:]
    parts += [f"  {_words(name)} {shown(estimate)}" for name, estimate in others]
    for baseline in result.baselines.values():
        parts.append(
            f"  to compare with: {baseline.description}, {_words(baseline.metric)} "
            f"{shown(baseline.estimate)}"
        )
    if judged_by := result.details.get("judged_by"):
        parts.append(f"  judged by: {judged_by}")
    for point in result.curve:
        estimate = Estimate(point["mean"], point["low"], point["high"])
        parts.append(f"  {of_size(result, int(point['patients'])):>13}: {shown(estimate)}")
    if "confusion" in result.details:
        details = result.details
        parts += _matrix(details["labels"], details["classes"], details["confusion"])
    what = judged_unit(result)
    for reason, count in _counts(result.details.get("left_out")):
        parts.append(f"  not judged: {count} {what}, {_words(reason)}")
    for reason, count in _counts(result.details.get("lacking")):
        parts.append(f"  lacking: {_words(reason)}: {count}")
    parts += [f"  note: {note}" for note in result.details.get("notes") or ()]
    return "\n".join(parts)


def shown(estimate: Estimate) -> str:
    """ "0.955 [0.944, 0.966]"; without an interval where there is none."""
    digits = 3 if abs(estimate.value) < 10 else 1
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is None:
        return text
    return f"{text} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _headline(result: Result) -> str:
    where = f"{_judged(result.model)} on {result.data['name']}, " if result.data else ""
    if not result.metrics:
        return f"{where}{result.study}"
    name, estimate = next(iter(result.metrics.items()))
    text = f"{where}{result.study}: {_words(name)} {shown(estimate)}"
    if estimate.n:
        text += f"; {estimate.n} {judged_unit(result)}"
    patients = result.details.get("patients")
    if patients:
        text += f" of {patients} patients"
    return text


def _judged(model: Mapping[str, Any]) -> str:
    views = model.get("test_time_views", 1)
    return f"{model['name']} ({views} views of each image)" if views > 1 else model["name"]


def _matrix(labels: Sequence[str], classes: Sequence[str], counts) -> list[str]:
    """Rows are true classes, columns predicted ones."""
    names = [str(name)[:_WIDEST_NAME] for name in classes]
    first = max(len(str(label)[:_WIDEST_NAME]) for label in labels)
    widths = [max(len(name), 5) for name in names]
    head = " ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
    rows = [f"  {'true'.ljust(first)} {head}   (columns: predicted)"]
    for label, row in zip(labels, counts, strict=True):
        cells = " ".join(f"{x:g}".rjust(width) for x, width in zip(row, widths, strict=True))
        rows.append(f"  {str(label)[:_WIDEST_NAME].ljust(first)} {cells}")
    return rows


def _counts(found, of: str = "") -> Iterator[tuple[str, int]]:
    """(reason, count) of all that is not zero; parts of a study count by themselves."""
    for reason, count in (found or {}).items():
        if isinstance(count, Mapping):
            yield from _counts(count, f"{of}{reason}: ")
        elif count:
            yield f"{of}{reason}", count


def _words(name: str) -> str:
    # Ids that a reason quotes stay as they are.
    parts = re.split(r"('[^']*')", str(name))
    parts[::2] = [
        part.replace("_", " ").replace("f1", "F1").replace("hc mm", "hc_mm") for part in parts[::2]
    ]
    return "".join(parts)
