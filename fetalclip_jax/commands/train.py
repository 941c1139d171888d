"""`fetalclip train`."""

import argparse
import errno
import time

from fetalclip_jax.commands import arguments

SUMMARY = "Pretrain a model; goes on from the latest checkpoint in the workdir."
EXAMPLE = "fetalclip train --config configs/phantom_quickstart.py --workdir runs/quickstart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_config(parser, required=True)
    parser.add_argument(
        "--allow-config-change",
        action="store_true",
        help="go on with settings that differ from those the run in the workdir has",
    )
    arguments.add_job(parser)


def run(given: argparse.Namespace, overrides: list[str]) -> int:
    began = time.time()
    from fetalclip_jax.training import preemption

    # Before JAX is imported, which takes seconds.
    with preemption.Notice() as notice, arguments.job(given, heeds_notices=True):
        from fetalclip_jax import config
        from fetalclip_jax.evaluation import validation
        from fetalclip_jax.training import loop

        asked = config.parse(given.config, overrides)
        try:
            reached = loop.train(
                asked,
                given.workdir,
                allow_config_change=given.allow_config_change,
                notice=notice,
                judge=validation.judge,
                began=began,
            )
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(
                f"{given.workdir}: {error.strerror}; make room, then run the same command again: "
                "it goes on from the latest checkpoint"
            ) from error
        if int(reached.step) < asked.train.steps:
            return notice.stopped_status
        print(f"Trained: {given.workdir}")
        return 0
