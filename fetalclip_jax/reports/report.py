"""report.html: one self-contained page about runs and results, with results.json beside it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fetalclip_jax import run as runs
from fetalclip_jax import storage
from fetalclip_jax.evaluation.caveats import caveats
from fetalclip_jax.evaluation.comparison import MARGIN
from fetalclip_jax.reports import (
    claim,
    comparison,
    curves,
    headline,
    left_out,
    naming,
    page,
    place,
    provenance,
    published,
    reading,
    reliability,
    reliability_files,
    sections,
    summary,
    tables,
)
from fetalclip_jax.reports.claim_data import together
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import number
from fetalclip_jax.reports.reading import Contents


def build(
    sources: Sequence[storage.Path],
    output: storage.Path,
    total_seconds: float | None = None,
    *,
    compare: Sequence[tuple[str, str]] = (),
    margin: float = MARGIN,
    subgroups: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> storage.Path:
    """Writes a page about runs and results, with figures, tables and a summary for scripts.

    Whatever is missing is left out and named on the page. `results.json`, `results.csv` and
    `tables/` lie in the folder of the run if one run is the only source, else beside the page,
    where `figures/` always is; beside them `comparison.json` and `.csv` of several models,
    `curves.json`, and `reliability.json` with its tables.

    Args:
      sources: runs (`config.json`, `metrics.jsonl`, results in `results/`) and folders that
        `fetalclip evaluate` wrote.
      output: the page, `<name>.html`.
      total_seconds: wall-clock seconds of everything; None takes the sum over runs and studies.
      compare: pairs of models by name; empty for all pairs of up to five models.
      margin: difference of two rates below which models are equivalent.
      subgroups: group columns to split results by; empty takes all that have two groups or more.
      say: is given a line of every comparison, the largest gap between subgroups and the largest
        calibration error.

    Returns:
      `output`.

    Raises:
      ValueError: there is nothing to report, a file is broken, a pair of models cannot be compared,
        or `output` is no place for it; the message names it.
    """
    output = storage.path(output)
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise ValueError(f"the report {output} must be a file that ends in .html")
    contents = reading.read(sources)
    folder = _summary_folder(sources, contents, output)
    place.check(folder)
    compared = comparison.of(contents, compare, margin)
    figures = summary.summarise(contents, total_seconds)
    report = Report(contents, output.parent / "figures")
    drawn = curves.of(contents, compared)
    reliable = reliability.analyse(contents, subgroups)
    sections.add_all(report, compared, drawn, reliable)
    report.add("What was left out", left_out.section(contents))
    report.add("Protocols", provenance.protocols(contents))
    report.add("CLAIM 2024", claim.section(report))
    report.add("Configuration and environment", *provenance.environment(contents))
    runs.write_json(folder / "results.json", figures)
    runs.write_text(folder / "results.csv", summary.table(contents))
    tables.write(folder / "tables", contents)
    comparison.write(folder, compared)
    curves.write(folder, drawn)
    reliability_files.write(folder, reliable)
    if say:
        for line in [*(compared.lines() if compared else ()), *reliability.lines(reliable)]:
            say(line)
    head = _head(report, figures)
    runs.write_text(output, page.document(_title(contents), head, report.sections))
    return output


def notice(contents: Contents) -> str:
    """What must not be read into the figures; names the data sets that are simulated."""
    words = "Research use only. Not a medical device."
    simulated = dict.fromkeys(one.data_name for one in contents.evaluated if one.simulated)
    if simulated:
        names = ", ".join(simulated)
        words += f" Simulated images ({names}): these numbers say nothing about patients."
    return words


def _summary_folder(
    sources: Sequence[storage.Path], contents: Contents, output: storage.Path
) -> storage.Path:
    """Where results.json goes."""
    folder = output.parent
    if len(contents.runs) == 1 and len(sources) == 1:
        folder = contents.runs[0].workdir
    elif reading.is_run(folder):
        raise ValueError(
            f"{output}: the results.json there is that of the run {folder}, and this report is "
            "about more; choose another folder for the output"
        )
    return folder


def _title(contents: Contents) -> str:
    if len(contents.runs) == 1 and _of_one_run(contents):
        return f"FetalCLIP run report: {contents.runs[0].name}"
    models = list(dict.fromkeys(one.model_name for one in contents.evaluated))
    names = models or [run.name for run in contents.runs]
    return f"FetalCLIP report: {', '.join(names) if len(names) < 4 else f'{len(names)} models'}"


def _of_one_run(contents: Contents) -> bool:
    """Whether every result is of the model that the one run trained."""
    (run,) = contents.runs
    models = {one.model_name for one in contents.evaluated}
    return len(models) < 2 and all(provenance.lies_in(one, run) for one in contents.evaluated)


def _head(report: Report, figures: Mapping[str, Any]) -> str:
    contents = report.contents
    parts = [
        f'<div class="banner" role="note">{page.text(notice(contents))}</div>',
        page.tiles(_facts(contents, figures)),
    ]
    if rows := headline.rows(contents):
        scales = f" {provenance.SCALES}" * any(map(provenance.by_t, contents.evaluated))
        parts.append(headline.headline_table(rows, contents.several))
        parts.append(
            page.paragraph(
                "Each figure stands beside what it has to beat. Intervals of 95 % are shown where "
                f"the evaluation recorded them.{scales} results.json beside this page holds the "
                "same figures for scripts, results.csv for spreadsheets, the folder tables as CSV "
                "and LaTeX for a paper.",
                "quiet",
            )
        )
    if lines := list(together(_caveats(contents))):
        parts.append(page.paragraph("Where intervals hold the truth less often than they say:"))
        parts.append(page.bullets(lines))
    if beside := published.table(contents):
        parts.append(page.plain_table(beside[0], beside[1:], "published"))
        parts.append(
            page.paragraph(
                f"Published numbers are those of {published.SOURCE}. Nothing of them was "
                "measured here, and they hold for the images that the last row names.",
                "quiet",
            )
        )
    missing = [*headline.withheld(contents), *report.missing, *_not_run(contents)]
    if missing:
        parts.append(page.paragraph("Not in this report:", "quiet") + page.bullets(missing))
    return "".join(parts)


def _caveats(contents: Contents) -> Iterator[tuple[str, str]]:
    """(task and whose, sentence) of what simulations say of the intervals."""
    for one in contents.evaluated:
        whose = f" of {one.label}" if contents.several else ""
        for sentence in caveats(one.result):
            yield f"{naming.title(one.result.study)}{whose}", f"{sentence}."


def _not_run(contents: Contents) -> list[str]:
    found = {one.result.study.partition(".")[0] for one in contents.evaluated}
    kinds = {
        "zero_shot": "zero-shot classification",
        "age": "gestational age",
        "probe": "linear probes",
        "few_shot": "data efficiency",
        "segmentation": "segmentation",
        "chd": "heart defects",
    }
    # Few-shot segmentation is a segmentation too.
    found |= {"segmentation"} if "few_shot_segmentation" in found else set()
    absent = [words for kind, words in kinds.items() if kind not in found]
    return [f"Studies without a result: {', '.join(absent)}."] if absent else []


def _facts(contents: Contents, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for one, many, names in (
        ("Model", "Models", dict.fromkeys(e.model_name for e in contents.evaluated)),
        ("Data", "Data sets", dict.fromkeys(e.data_name for e in contents.evaluated)),
    ):
        if names:
            facts.append((one if len(names) == 1 else many, ", ".join(names)))
    if len(contents.runs) == 1:
        run, whose = contents.runs[0], ""
        if not _of_one_run(contents):
            whose = f" of {run.name}"
        facts += [(f"{words}{whose}", fact) for words, fact in _training_facts(run)]
    if (seconds := number(figures["total"]["seconds"])) is not None:
        facts.append(("Total time", duration(seconds)))
    if (peak := number(figures["peak_rss_gib"])) is not None:
        facts.append(("Peak memory", f"{peak:.2f} GiB"))
    return facts


def _training_facts(run: reading.TrainedRun) -> list[tuple[str, str]]:
    counts = (("parameters", "Parameters"), ("images_seen", "Images seen"))
    facts = [
        (words, f"{value:,.0f}")
        for key, words in counts
        if (value := number(run.train.get(key))) is not None
    ]
    steps = number(run.train.get("steps")) or (run.metrics[-1]["step"] if run.metrics else None)
    if steps is not None:
        facts.append(("Training steps", f"{steps:,.0f}"))
    if (seconds := number(run.train.get("seconds"))) is not None:
        facts.append(("Training time", duration(seconds)))
    return facts


def duration(seconds: float) -> str:
    """Seconds in words, such as "4 min 39 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
