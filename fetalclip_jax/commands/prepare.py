"""`fetalclip prepare`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "Write the records of a data set at training resolution."
EXAMPLE = "fetalclip prepare --config configs/hc18.py --config.data.root=HC18 --workdir runs/hc18"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_config(parser, required=True)
    parser.add_argument(
        "--split", nargs="+", default=["train", "validation"], help="splits, or what they are for"
    )


def run(given: argparse.Namespace, overrides: list[str]) -> None:
    from fetalclip_jax import config
    from fetalclip_jax.datasets import registry
    from fetalclip_jax.run import Run
    from fetalclip_jax.training import inputs

    parsed = config.parse(given.config, overrides)
    Run(given.workdir).claim(parsed)
    roles = registry.roles(parsed.data.source)
    for split in given.split:
        dataset = inputs.open_records(parsed, given.workdir, roles.get(split, split))
        print(f"{len(dataset)} examples in {dataset.directory}")
    if "train" in given.split:
        for _, dataset, _ in inputs.open_mixed_in(parsed, given.workdir):
            print(f"{len(dataset)} examples in {dataset.directory}")
