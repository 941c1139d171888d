"""report.html: one self-contained page about one run, with results.json beside it."""

import pathlib
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.reports import page, sections, tables
from fetalclip_jax.reports.run import Run, load_run
from fetalclip_jax.reports.summary import number, summarise, write_json, write_text

# What a full run leaves, in the words of the list of missing parts.
_EXPECTED = {
    "zero_shot_planes": "Zero-shot planes",
    "zero_shot_brain": "Zero-shot brain planes",
    "age": "Gestational age",
    "probe_planes": "Linear probe on planes",
    "probe_raw_pixels": "Raw-pixel baseline of the probe",
    "few_shot_planes": "Data-efficiency curve",
    "train": "Training time and memory",
}


def build_report(workdir: str | pathlib.Path, total_seconds: float | None = None) -> pathlib.Path:
    """Writes `report.html`, `results.json` and `figures/*.png` into `workdir`.

    Whatever is missing is left out and named on the page.

    Args:
      workdir: the working directory of a run: `config.json`, `metrics.jsonl`, `results/*.json`,
        `results/predictions_*.csv` and `records/test`, each where it exists.
      total_seconds: wall-clock seconds of the whole run; None takes the sum over the programs.

    Returns:
      The path of `report.html`.

    Raises:
      ValueError: there is nothing to report, or a file is broken; the message names it.
    """
    run = load_run(workdir)
    summary = summarise(run, total_seconds)
    report = sections.Report(run)
    for name, words in _EXPECTED.items():
        if name not in run.results:
            report.missing.append(f"{words}: no results/{name}.json.")
    sections.add_all(report)
    write_json(summary, run.workdir / "results.json")
    content = page.document(_title(run), _head(report, summary), report.sections)
    path = run.workdir / "report.html"
    write_text(content, path)
    return path


def _title(run: Run) -> str:
    return f"FetalCLIP run report: {run.config.get('name') or run.workdir.resolve().name}"


def _head(report: sections.Report, summary: Mapping[str, Any]) -> str:
    run = report.run
    if run.data_source == "phantom":
        notice = (
            "Research use only. Phantom images are simulated; these numbers say nothing about "
            "patients."
        )
    else:
        notice = "Research use only. Not a medical device."
    parts = [f'<div class="banner" role="note">{page.text(notice)}</div>']
    parts.append(page.tiles(_facts(run, summary)))
    rows = tables.headline_rows(run)
    if rows:
        parts.append(tables.headline_table(rows))
        parts.append(
            page.paragraph(
                "Each figure stands beside what it has to beat. Intervals are 95 % bootstrap "
                "intervals where the evaluation recorded them. results.json beside this page "
                "holds the same figures for scripts.",
                "quiet",
            )
        )
    age = run.result("age")
    if "valid_prediction_rate" in age and number(age.get("constant_baseline")) is None:
        report.missing.append(
            "Valid prediction rate: withheld, because results/age.json has no constant_baseline "
            "to hold it against."
        )
    if report.missing:
        items = "".join(f"<li>{page.text(line)}</li>" for line in report.missing)
        parts.append(f'<p class="quiet">Not in this run:</p><ul class="missing">{items}</ul>')
    return "".join(parts)


def _facts(run: Run, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    train = run.result("train")
    facts = [("Data", run.data_source or "not recorded")]
    for key, words in (("parameters", "Parameters"), ("images_seen", "Images seen")):
        value = number(train.get(key))
        if value is not None:
            facts.append((words, f"{value:,.0f}"))
    steps = number(train.get("steps")) or (run.metrics[-1]["step"] if run.metrics else None)
    if steps is not None:
        facts.append(("Training steps", f"{steps:,.0f}"))
    seconds = {
        "Training time": number(train.get("seconds")),
        "Total time": number(summary["total"]["seconds"]),
    }
    facts += [(words, _duration(value)) for words, value in seconds.items() if value is not None]
    if summary["peak_rss_gib"] is not None:
        facts.append(("Peak memory", f"{summary['peak_rss_gib']:.2f} GiB"))
    return facts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
