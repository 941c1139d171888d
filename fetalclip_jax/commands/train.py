"""`fetalclip train`."""

import argparse
import time

from fetalclip_jax.commands import arguments

SUMMARY = "Pretrain a model; goes on from the latest checkpoint in the workdir."
EXAMPLE = "fetalclip train --config configs/phantom_quickstart.py --workdir runs/quickstart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_config(parser, required=True)


def run(given: argparse.Namespace, overrides: list[str]) -> None:
    began = time.time()
    from fetalclip_jax import config
    from fetalclip_jax.evaluation import validation
    from fetalclip_jax.training import loop

    experiment = config.parse(given.config, overrides)
    loop.train(experiment, given.workdir, judge=validation.judge, began=began)
    print(f"Trained: {given.workdir}")
