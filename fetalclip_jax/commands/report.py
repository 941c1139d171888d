"""`fetalclip report`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "One page, and one JSON, of runs and of results of `fetalclip evaluate`."
EXAMPLE = """\
fetalclip report runs/quickstart
  fetalclip report results/a results/b --compare fetalclip untrained --output report.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        type=arguments.place,
        metavar="FOLDER",
        help="run, or folder of results",
    )
    parser.add_argument(
        "--output", type=arguments.place, help="the page (default: report.html in the first folder)"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        action="append",
        default=[],
        metavar=("A", "B"),
        help="two models among the results; may be repeated (default: all pairs of 2 to 5 models)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.02,
        help="difference of two rates below which models are equivalent (default: 0.02)",
    )
    parser.add_argument(
        "--subgroup",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="split results by these columns, such as machine (default: every one they have)",
    )
    parser.add_argument("--total-seconds", type=float, help="wall time of the whole job, if known")


def run(given: argparse.Namespace, _overrides: list[str]) -> None:
    from fetalclip_jax import reports

    output = given.output or given.sources[0] / "report.html"
    pairs = [tuple(pair) for pair in given.compare]
    page = reports.build(
        given.sources,
        output,
        given.total_seconds,
        compare=pairs,
        margin=given.margin,
        subgroups=given.subgroup,
        say=print,
    )
    print(f"Report: {page}")
