"""The section of data checks: near-duplicates and doubtful labels, as lists with pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax.reports import naming, page
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import display
from fetalclip_jax.reports.reading import Evaluated

_AT_ONCE = 20  # rows of a list that are shown without being asked for
_DUPLICATES = (
    "Pairs that look alike to the model and pixel by pixel. Across splits they are leaks; frames "
    "of one scan in one split are no harm."
)
_LABELS = (
    "Labels that other patients' images contradict, by confident learning. A flag is a reason to "
    "look again, not a finding. How well errors are found is measured on labels that were changed "
    "on purpose."
)


def parts(report: Report) -> Iterator[str]:
    """Lists of every check, near-duplicates first."""
    for prefix, note, columns, row in (
        ("near_duplicates", _DUPLICATES, _PAIR_COLUMNS, _pair),
        ("mislabels.", _LABELS, _LABEL_COLUMNS, _label),
    ):
        found = [one for one in report.contents.evaluated if one.result.study.startswith(prefix)]
        if found:
            yield page.paragraph(note, "quiet note")
        for one in found:
            yield from _list(report, one, columns, row)


def _list(
    report: Report,
    one: Evaluated,
    columns: Sequence[str],
    row: Callable[[Mapping[str, Any]], Sequence[str]],
) -> Iterator[str]:
    details, title = one.result.details, naming.title(one.result.study)
    yield page.paragraph(f"{report.whose(one.label)}{title}: {_said(details)}", "title")
    try:
        yield from report.shown(one)
    except ValueError as error:
        report.missing.append(f"{title} of {one.label}: {error}.")
    listed = details.get("list") or ()
    if not listed:
        return
    rows = [(str(number), *row(entry)) for number, entry in enumerate(listed, 1)]
    table = page.plain_table(columns, rows)
    if len(rows) <= _AT_ONCE:
        yield table
    else:
        yield page.details(f"{title}: the first {len(rows)} as a table", table)


def _said(details: Mapping[str, Any]) -> str:
    """What was found, in numbers."""
    if "pairs" in details:
        if not details["pairs"]:
            return f"none among {details['count']:,} images."
        pairs = "1 pair" if details["pairs"] == 1 else f"{details['pairs']:,} pairs"
        across = details["pairs_across_patients"]
        patients = "no patient is known" if across is None else f"{across:,} across patients"
        return (
            f"{pairs} among {details['count']:,} images, "
            f"{details['pairs_across_splits']:,} across splits, {patients}."
        )
    planted = f"; {details['planted']:,} labels were changed on purpose" * bool(details["planted"])
    return f"{details['flagged']:,} of {details['count']:,} labels are flagged{planted}."


_PAIR_COLUMNS = (
    *("No.", "First", "Second", "Cosine", "Correlation", "Splits", "Same patient", "Labels"),
)


def _pair(entry: Mapping[str, Any]) -> Sequence[str]:
    same = {True: "yes", False: "no", None: "not known"}[entry["same_patient"]]
    differ = ", ".join(display(name) for name in entry["labels_differ"])
    labels = f"differ: {differ}" if differ else "agree"
    numbers = f"{entry['cosine']:.3f}", f"{entry['correlation']:.3f}"
    return entry["first"], entry["second"], *numbers, entry["splits"], same, labels


_LABEL_COLUMNS = ("No.", "Image", "Label", "Suggested", "Patient", "Split")


def _label(entry: Mapping[str, Any]) -> Sequence[str]:
    said, suggested = (
        f"{display(entry[name])} ({entry[f'probability_of_{name}']:.3f})"
        for name in ("label", "suggested")
    )
    return entry["example_id"], said, suggested, entry["patient_id"] or "not known", entry["split"]
