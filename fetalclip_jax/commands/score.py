"""`fetalclip score`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "Metrics and intervals of anyone's predictions."
EXAMPLE = "fetalclip score predictions.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predictions",
        type=arguments.place,
        help="CSV, TSV, JSON or JSONL with example_id, patient_id, label and prediction (class "
        "names), score.<class> if known; or prediction in days and hc_mm",
    )
    parser.add_argument("--output", type=arguments.place, help="folder for the result as files")
    parser.add_argument("--resample-by", choices=("patient", "image"), default="patient")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")


def run(given: argparse.Namespace, _overrides: list[str]) -> None:
    from fetalclip_jax.evaluation import scoring, terminal

    result = scoring.score(
        given.predictions,
        resample_by=given.resample_by,
        resamples=given.resamples,
        seed=given.seed,
    )
    print(terminal.lines(result))
    if given.output:
        print(f"Result: {result.save(given.output)}")
