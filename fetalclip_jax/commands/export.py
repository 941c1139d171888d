"""`fetalclip export`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "Write a run's weights for open_clip or transformers."
EXAMPLE = "fetalclip export --workdir runs/fetalclip --style transformers --output fetalclip_hf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    parser.add_argument("--output", type=arguments.place, required=True, help="folder to write")
    parser.add_argument("--style", choices=("open_clip", "transformers"), default="open_clip")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")


def run(given: argparse.Namespace, _overrides: list[str]) -> None:
    import fetalclip_jax

    if not given.workdir.is_dir():
        raise ValueError(f"--workdir={given.workdir}: no such folder")
    model = fetalclip_jax.load(given.workdir, param_dtype=given.dtype)
    print(f"Exported: {model.export(given.output, given.style)}")
