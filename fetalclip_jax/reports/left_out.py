"""What no figure of a report speaks of, and why."""

from collections.abc import Iterator, Mapping
from typing import Any

from fetalclip_jax.reports import naming, page
from fetalclip_jax.reports.naming import number
from fetalclip_jax.reports.reading import Contents, Evaluated

# Details in which studies say what they could not use, and how such reasons begin.
_DETAILS = {"left_out": "images not judged: ", "lacking": "", "unlisted": "", "notes": ""}
_SHOWN = 20


def section(contents: Contents) -> str:
    """Reasons, counts and tasks, and bad examples, as HTML; "" if nothing was left out."""
    # The same line of many studies on the same data is written once.
    lines: dict[tuple[str, str, str], list[str]] = {}
    for one in contents.evaluated:
        title = naming.title(one.result.study)
        for where, reason, count in of(one):
            titles = lines.setdefault((where, reason, count), [])
            titles += [title] * (title not in titles)
    parts = []
    if lines:
        rows = [(where, why, count, ", ".join(of)) for (where, why, count), of in lines.items()]
        columns = ("Data", "Reason", "Count", "Tasks")
        parts.append(page.plain_table(columns, rows))
    parts += _bad_examples(contents)
    return "".join(parts)


def of(one: Evaluated) -> list[tuple[str, str, str]]:
    """(data or "model / data", reason, count in words) of all that one result leaves out."""
    found = [(one.data_name, *line) for line in _unread(one.result.data)]
    for key, words in _DETAILS.items():
        reasons = _reasons(one.result.details.get(key))
        found += [(one.label, words + reason, count) for reason, count in reasons]
    return found


def _bad_examples(contents: Contents) -> Iterator[str]:
    for run in contents.runs:
        for split, bad in run.bad_examples.items():
            plural = "s" if len(bad) > 1 else ""
            path = run.workdir / "records" / split / "bad_examples.csv"
            title = f"{len(bad):,} example{plural} of the records {split!r} left out ({path})"
            rows = bad[:_SHOWN]
            if len(bad) > len(rows):
                rows = [*rows, ("...", f"{len(bad) - len(rows):,} more")]
            yield page.details(title, page.plain_table(("Example", "Reason"), rows))


def _unread(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(reason, count) of what a data set says of itself and of images that could not be read."""
    for note in data.get("notes", ()):
        yield str(note), ""
    examples: dict[str, list[str]] = {}
    for example_id, reason in data.get("left_out", {}).items():
        examples.setdefault(str(reason), []).append(str(example_id))
    by_count = sorted(examples.items(), key=lambda pair: -len(pair[1]))
    for reason, names in by_count[:_SHOWN]:
        others = ", ..." if len(names) > 1 else ""
        yield f"{reason} ({names[0]}{others})", f"{len(names):,}"
    rest = sum(len(names) for _, names in by_count[_SHOWN:])
    if rest:
        yield "other reasons: see results.json", f"{rest:,}"


def _reasons(value: Any) -> Iterator[tuple[str, str]]:
    """(reason, count) of a mapping of counts, a list of sentences or one sentence."""
    if isinstance(value, Mapping):
        for reason, inner in value.items():
            count = number(inner)
            if count is not None and not isinstance(inner, str):
                if count:
                    yield naming.display(str(reason)), f"{count:,.0f}"
            else:
                for words, many in _reasons(inner):
                    yield f"{naming.display(str(reason))}: {words}", many
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _reasons(item)
    elif value:
        yield str(value), ""
