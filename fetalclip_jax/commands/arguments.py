"""Arguments that several subcommands share."""

import argparse
import contextlib
import pathlib

from fetalclip_jax import storage


def place(text: str) -> storage.Path:
    """The type of an argument that names a file or folder, on a disk or in a bucket."""
    try:
        return storage.path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=place, required=True, help="folder of the run")


def add_config(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE.py[:ARGUMENT]",
        help="of configs/; change fields with --config.a.b=VALUE",
    )


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=place, help="its folder or SentencePiece file, if not CLIP's own"
    )


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    what = "run, weights of open_clip or transformers, or a preset (random weights)"
    if several:
        parser.add_argument(
            "--model", action="append", metavar="[NAME=]PATH", help=f"{what}; may be repeated"
        )
    else:
        parser.add_argument("--model", required=True, help=what)
    parser.add_argument(
        "--model-config",
        metavar="PRESET|JSON",
        help="the model, for weights that do not say what they are: a preset or open_clip JSON",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="what is computed in (default: float32)"
    )
    add_tokenizer(parser)


def add_test_time_views(parser: argparse.ArgumentParser, default: int | None = 1) -> None:
    parser.add_argument(
        "--test-time-views",
        type=int,
        default=default,
        metavar="N",
        help="an image's feature is the mean of N views: turned by up to 8 degrees, half of them "
        "mirrored; takes N times as long (default: 1, as it is)",
    )


def add_job(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes",
        "Slurm, Open MPI, Cloud TPU and Kubernetes are recognised; elsewhere give all three, or "
        "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (see docs/scaling.md)",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")
    group.add_argument(
        "--start-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="to wait for the others (default: 300)",
    )


def job(
    given: argparse.Namespace, *, heeds_notices: bool = False
) -> contextlib.AbstractContextManager[None]:
    """The job that this process is one of; what computes imports JAX and runs in it."""
    from fetalclip_jax.parallel.job import job

    return job(
        given.command,
        coordinator=given.coordinator,
        processes=given.processes,
        process_id=given.process_id,
        timeout_s=given.start_timeout,
        heeds_notices=heeds_notices,
    )


def split_name(text: str, default: str) -> tuple[str, str]:
    """ "name=path" -> (name, path); a text without "=", or that is a file, is a path alone."""
    name, equals, rest = text.partition("=")
    if not equals or not name.replace("_", "a").replace("-", "a").isalnum() or is_there(text):
        return default, text
    return name, rest


def is_there(path: str) -> bool:
    return storage.path(path).exists()


def folder_name(path: str) -> str:
    """What to call a model by default: the last part of its path, without a file's ending."""
    last = storage.path(path).resolve().name if is_there(path) else pathlib.PurePath(path).name
    return last.removesuffix(".pt").removesuffix(".safetensors") or "model"
