"""Where the figures come from: protocols, what was left out, cost, configuration, software."""

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from fetalclip_jax.evaluation.study import TRANSFORMS
from fetalclip_jax.reports import naming, page
from fetalclip_jax.reports.naming import number
from fetalclip_jax.reports.reading import Contents, Evaluated

_PACKAGES = ("fetalclip_jax", "jax", "jaxlib", "flax", "optax", "grain", "numpy")
_IN_WORDS = ("name", "resample_by", "resamples", "seed")
# Details in which studies say what they could not use, and how such reasons begin.
_LEFT_OUT = {"left_out": "images not judged: ", "lacking": "", "unlisted": "", "notes": ""}
_SHOWN_BAD_EXAMPLES = 20
_PHASES = {
    "step": "training steps",
    "compile": "compiling",
    "start": "imports, records, restoring",
    "data_wait": "devices waiting for data",
    "evaluate": "judging",
    "save": "saving, as far as training waited",
    "lost": "work that was lost with a killed process",
}
_TRANSFORM = TRANSFORMS[0]  # what models are made for; only others are worth a word


def left_out(contents: Contents) -> str:
    """What no figure speaks of, and why; "" if nothing was left out."""
    # The same line of many studies on the same data is written once.
    lines: dict[tuple[str, str, str], list[str]] = {}
    for one in contents.evaluated:
        title = naming.title(one.result.study)
        found = [(one.data_name, *line) for line in _unread(one.result.data)]
        for key, words in _LEFT_OUT.items():
            reasons = _reasons(one.result.details.get(key))
            found += [(one.label, words + reason, count) for reason, count in reasons]
        for line in found:
            titles = lines.setdefault(line, [])
            titles += [title] * (title not in titles)
    parts = []
    if lines:
        rows = [(where, why, count, ", ".join(of)) for (where, why, count), of in lines.items()]
        columns = ("Data", "Reason", "Count", "Tasks")
        parts.append(page.plain_table(columns, rows))
    parts += _bad_examples(contents)
    return "".join(parts)


def protocols(contents: Contents) -> str:
    """How every study was done, in words."""
    rows = []
    for one in contents.evaluated:
        settings = {k: v for k, v in one.result.protocol.items() if k not in _IN_WORDS}
        rows.append(
            (
                naming.title(one.result.study),
                one.label,
                in_words(one),
                "; ".join(f"{k} {_plain(v)}" for k, v in settings.items()),
            )
        )
    if not rows:
        return ""
    columns = ("Task", "Model / data", "Protocol", "Settings")
    return page.plain_table(columns, rows, "wordy")


def in_words(one: Evaluated) -> str:
    """A few sentences: protocol, images, and what the intervals resample."""
    result = one.result
    protocol, data = result.protocol, result.data
    sentences = [f"Protocol: {protocol.get('name', 'not recorded')}"]
    headline = next(iter(result.metrics.values()), None)
    if headline is not None and headline.n is not None:
        sentences.append(f"{headline.n:,} images judged")
    sentences += [_store(name, about) for name, about in data.get("stores", {}).items()]
    if resample_by := protocol.get("resample_by"):
        groups = headline.groups if headline is not None else None
        count = f"{groups:,} " if groups else ""
        plural = "s" if groups != 1 else ""
        times = number(protocol.get("resamples"))
        draws = f" in {times:,.0f} resamples" if times else ""
        sentences.append(f"Intervals redraw {count}{resample_by}{plural}{draws}")
    if data.get("ages_from") == naming.IMPLIED_AGES and result.study == "age":
        sentences.append("Ages are those of the WHO median at the measured circumference")
    return ". ".join(sentences) + "."


def environment(contents: Contents) -> Iterator[str]:
    """Configurations, models and data, cost, and the software that wrote the report."""
    for run in contents.runs:
        if run.config:
            title = "Configuration" if len(contents.runs) == 1 else f"Configuration of {run.name}"
            yield _json(title, run.config)
    for title, kind in (("Models", "model"), ("Data sets", "data")):
        # Split and counts differ between the studies on one data set and stand in the protocols.
        found = {
            one.result.study: dict(getattr(one.result, kind))
            for one in contents.evaluated
            if getattr(one.result, kind)
        }
        distinct = list({json.dumps(v, sort_keys=True): v for v in found.values()}.values())
        if distinct:
            yield _json(title, distinct)
    if costs := _costs(contents):
        columns = ("Program", "Model / data", "Seconds", "Peak memory (GiB)")
        yield page.details("Time and memory", page.plain_table(columns, costs))
    if phases := _phases(contents):
        columns = ("Run", "Phase", "Seconds", "Share")
        title = "Where the time of training went"
        yield page.details(title, page.plain_table(columns, phases))
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    content = "\n".join(lines)
    title = "Software of the machine that wrote this report"
    yield page.details(title, f"<pre>{page.text(content)}</pre>")


def _costs(contents: Contents) -> list[tuple[str, str, str, str]]:
    of = [("Training", run.name, run.train) for run in contents.runs]
    of += [(naming.title(e.result.study), e.label, e.result.cost) for e in contents.evaluated]
    rows = []
    for title, whose, cost in of:
        seconds, peak = number(cost.get("seconds")), number(cost.get("peak_rss_gib"))
        if seconds is not None or peak is not None:
            words = "" if seconds is None else f"{seconds:,.1f}"
            rows.append((title, whose, words, "" if peak is None else f"{peak:.2f}"))
    return rows


def _phases(contents: Contents) -> list[tuple[str, str, str, str]]:
    rows = []
    for run in contents.runs:
        found = run.train.get("goodput", {}).get("seconds", {})
        spent = {phase: s for phase, value in found.items() if (s := number(value))}
        for phase, seconds in sorted(spent.items(), key=lambda pair: -pair[1]):
            share = f"{100 * seconds / sum(spent.values()):.1f} %"
            rows.append((run.name, _PHASES.get(phase, phase), f"{seconds:,.1f}", share))
    return rows


def _bad_examples(contents: Contents) -> Iterator[str]:
    for run in contents.runs:
        for split, bad in run.bad_examples.items():
            plural = "s" if len(bad) > 1 else ""
            path = run.workdir / "records" / split / "bad_examples.csv"
            title = f"{len(bad):,} example{plural} of the records {split!r} left out ({path})"
            rows = bad[:_SHOWN_BAD_EXAMPLES]
            if len(bad) > len(rows):
                rows = [*rows, ("...", f"{len(bad) - len(rows):,} more")]
            yield page.details(title, page.plain_table(("Example", "Reason"), rows))


def _store(name: str, about: Mapping[str, Any]) -> str:
    """ "fit: 1,500 images of 250 patients in split 'pool', 5 augmented copies of each"."""
    words = (
        f"{name}: {about['images']:,} images of {about['patients']:,} patients in split "
        f"{about['split']!r}"
    )
    if about.get("copies"):
        words += f", {about['copies']} augmented copies of each"
    if about.get("transform", _TRANSFORM) != _TRANSFORM:
        words += f", shrunk as {about['transform']} does"
    return words


def _unread(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(reason, count) of what a data set says of itself and of images that could not be read."""
    for note in data.get("notes", ()):
        yield str(note), ""
    examples: dict[str, list[str]] = {}
    for example_id, reason in data.get("left_out", {}).items():
        examples.setdefault(str(reason), []).append(str(example_id))
    by_count = sorted(examples.items(), key=lambda pair: -len(pair[1]))
    for reason, names in by_count[:_SHOWN_BAD_EXAMPLES]:
        others = ", ..." if len(names) > 1 else ""
        yield f"{reason} ({names[0]}{others})", f"{len(names):,}"
    rest = sum(len(names) for _, names in by_count[_SHOWN_BAD_EXAMPLES:])
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


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _json(title: str, content: Any) -> str:
    words = json.dumps(content, indent=2, default=str)
    return page.details(title, f"<pre>{page.text(words)}</pre>")
