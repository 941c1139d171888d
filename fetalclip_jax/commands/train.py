"""`fetalclip train`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "Pretrain a model; goes on from the latest checkpoint in the workdir."
EXAMPLE = "fetalclip train --config configs/phantom_quickstart.py --workdir runs/quickstart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_config(parser, required=True)
    arguments.add_job(parser)


def run(given: argparse.Namespace, overrides: list[str]) -> None:
    with arguments.job(given, heeds_notices=True):
        from fetalclip_jax import config
        from fetalclip_jax.training import loop

        loop.train(config.parse(given.config, overrides), given.workdir)
        print(f"Trained: {given.workdir}")
