"""`fetalclip import`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "Make a run of weights of open_clip or transformers."
EXAMPLE = "fetalclip import --weights FetalCLIP_weights.pt --model FetalCLIP --workdir runs/fc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    parser.add_argument(
        "--weights",
        type=arguments.place,
        required=True,
        help=".pt or .safetensors file, or a folder of open_clip or of a transformers CLIPModel",
    )
    parser.add_argument(
        "--model", help="preset or open_clip model JSON, for weights that do not say what they are"
    )
    arguments.add_tokenizer(parser)
    parser.add_argument(
        "--resize-positions",
        action="store_true",
        help="fit positional embeddings to the image size and context length of --model",
    )


def run(given: argparse.Namespace, _overrides: list[str]) -> None:
    import fetalclip_jax

    if not given.weights.exists():
        raise ValueError(
            f"--weights={given.weights}: no such file or folder (a preset's name goes to --model)"
        )
    model = fetalclip_jax.load(
        given.weights,
        given.model,
        tokenizer=given.tokenizer,
        param_dtype="float32",
        resize_positions=given.resize_positions,
    )
    model.save(given.workdir)
    print(f"Imported {given.weights}: {given.workdir}")
