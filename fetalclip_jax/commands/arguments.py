"""Arguments that several subcommands share."""

import argparse
import pathlib


def add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the run")


def add_config(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE.py[:ARGUMENT]",
        help="of configs/; change fields with --config.a.b=VALUE",
    )


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=pathlib.Path, help="its folder or SentencePiece file, if not CLIP's own"
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


def split_name(text: str, default: str) -> tuple[str, str]:
    """ "name=path" -> (name, path); a text without "=", or that is a file, is a path alone."""
    name, equals, rest = text.partition("=")
    if not equals or not name.replace("_", "a").replace("-", "a").isalnum() or is_there(text):
        return default, text
    return name, rest


def is_there(path: str) -> bool:
    return pathlib.Path(path).exists()


def folder_name(path: str) -> str:
    """What to call a model by default: the last part of its path, without a file's ending."""
    last = pathlib.Path(path).resolve().name if is_there(path) else pathlib.PurePath(path).name
    return last.removesuffix(".pt").removesuffix(".safetensors") or "model"
