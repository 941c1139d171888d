"""`fetalclip explain`."""

import argparse

from fetalclip_jax.commands import arguments

SUMMARY = "Where in images a model sees what prompts say: maps as PNG, and a CSV."
EXAMPLE = (
    "fetalclip explain --model runs/quickstart --prompts planes --class brain FOLDER --output maps"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model(parser)
    parser.add_argument(
        "images",
        type=arguments.place,
        metavar="IMAGE|FOLDER",
        help="a file, or images in any depth",
    )
    parser.add_argument("--output", type=arguments.place, required=True, help="folder to write to")
    parser.add_argument(
        "--prompts",
        default="planes",
        metavar="SET|JSON",
        help="shipped prompts (planes, brain) or a JSON file of {class: [prompts]} "
        "(default: planes)",
    )
    parser.add_argument(
        "--class",
        dest="name",
        default="",
        metavar="CLASS",
        help="of the prompts, to look for (default: the most similar one of each image)",
    )
    parser.add_argument(
        "--method",
        choices=("hires_cam", "score_cam", "grad_cam"),
        default="hires_cam",
        help="how maps are made (default: hires_cam); see docs/explanation.md",
    )
    parser.add_argument(
        "--block",
        type=int,
        default=0,
        metavar="K",
        help="of the image tower, from 1 (default: the last whose patches matter)",
    )
    parser.add_argument(
        "--alone",
        action="store_true",
        help="similarity with the class alone, not less the mean of the other classes",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images per call (default: 32)")
    arguments.add_job(parser)


def run(given: argparse.Namespace, _overrides: list[str]) -> None:
    with arguments.job(given):
        _run(given)


def _run(given: argparse.Namespace) -> None:
    import fetalclip_jax
    from fetalclip_jax.captions import prompts
    from fetalclip_jax.datasets import registry
    from fetalclip_jax.evaluation import embedding
    from fetalclip_jax.evaluation.explanation import images
    from fetalclip_jax.evaluation.features import levels
    from fetalclip_jax.evaluation.pictures import Picture
    from fetalclip_jax.evaluation.study import Need
    from fetalclip_jax.evaluation.units import counted
    from fetalclip_jax.run import is_lead, write_bytes

    if given.batch_size < 1:
        raise ValueError(f"--batch-size {given.batch_size} must be at least 1")
    if (given.output / "explanation.csv").exists():
        raise ValueError(f"{given.output} holds maps already; choose another --output")
    texts = prompts.load_prompts(given.prompts)
    images.check_class(texts, given.name)
    if given.images.is_file():
        source = images.OneImage(given.images)
    else:
        source = registry.open_source("image_text", given.images, "all")
    model = fetalclip_jax.load(
        given.model, given.model_config, tokenizer=given.tokenizer, dtype=given.dtype
    )
    store = levels.of("pixels").encode(
        model, source, Need("images", "all", level="pixels"), levels.Working()
    )
    for name, reason in store.left_out:
        print(f"left out: {name}: {reason}")
    found = images.explain(
        model,
        store,
        texts,
        name=given.name,
        method=given.method,
        block=given.block,
        against_others=not given.alone,
        batch_size=given.batch_size,
    )
    if is_lead():
        for name, image in found.pictures():
            write_bytes(given.output / f"{name}.png", Picture(name, image, "", "").png())
        embedding.write_csv(given.output / "explanation.csv", found.columns)
    print(
        f"{counted(len(store), 'images')}: {given.output / 'explanation.csv'} and a map of each "
        "beside it"
    )
