"""`fetalclip embed`."""

import argparse
import collections

from fetalclip_jax import storage
from fetalclip_jax.commands import arguments

SUMMARY = "Features, class scores and ages of a folder of images, as CSV."
EXAMPLE = "fetalclip embed --model runs/quickstart --prompts planes FOLDER --output planes.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_model(parser)
    arguments.add_test_time_views(parser)
    parser.add_argument(
        "folder", type=arguments.place, metavar="FOLDER", help="images, in any depth"
    )
    parser.add_argument("--output", type=arguments.place, required=True, help="CSV to write")
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=[],
        metavar="SET|JSON",
        help="class scores: shipped prompts (planes, brain) or a JSON file of {class: [prompts]}",
    )
    parser.add_argument(
        "--pixel-spacing-mm",
        type=float,
        help="of the images as they are; gives ages (default: a table's column pixel_spacing_mm)",
    )
    parser.add_argument("--templates", help="file of age prompts with {weeks}, {days}, ...")
    parser.add_argument("--no-features", action="store_true", help="scores and ages alone")
    parser.add_argument("--batch-size", type=int, default=32, help="images per call (default: 32)")
    arguments.add_job(parser)


def run(given: argparse.Namespace, _overrides: list[str]) -> None:
    with arguments.job(given):
        _run(given)


def _run(given: argparse.Namespace) -> None:
    import fetalclip_jax
    from fetalclip_jax.captions import prompts
    from fetalclip_jax.data import checks
    from fetalclip_jax.datasets import registry
    from fetalclip_jax.evaluation import embedding, features

    spacing_mm = given.pixel_spacing_mm
    if spacing_mm is not None and (why := checks.implausible("pixel_spacing_mm", spacing_mm)):
        raise ValueError(f"--pixel-spacing-mm: {why}")
    sets = {storage.path(name).stem: prompts.load_prompts(name) for name in given.prompts}
    if len(sets) < len(given.prompts):
        raise ValueError(f"--prompts {' '.join(given.prompts)}: two sets of one name; rename one")
    templates = prompts.load_templates(given.templates) if given.templates else None
    source = registry.open_source("image_text", given.folder, "all")
    has_spacing = spacing_mm is not None or "pixel_spacing_mm" in source.facts.columns
    model = fetalclip_jax.load(
        given.model,
        given.model_config,
        tokenizer=given.tokenizer,
        dtype=given.dtype,
        test_time_views=given.test_time_views,
    )
    if spacing_mm is not None:
        source = embedding.WithSpacing(source, spacing_mm)
    store = features.encode(model, source, batch_size=given.batch_size)
    _tell(given.folder, store)
    table = embedding.table(
        store,
        model,
        sets,
        templates=(templates or prompts.GA_TEMPLATES) if has_spacing else None,
        with_features=not given.no_features,
    )
    embedding.write_csv(given.output, table.columns)
    if not has_spacing:
        print("no ages: no pixel spacing is known (--pixel-spacing-mm, or a table with one)")
    elif table.without_age:
        print(f"{table.without_age} images without a pixel spacing have no age")
    print(f"{len(store)} images: {given.output}")


def _tell(folder: storage.Path, store) -> None:
    """Says what was left out, and what was done to files that are not plain 8-bit images."""
    from fetalclip_jax.models import preprocess

    for name, reason in store.left_out[:5]:
        print(f"left out: {name}: {reason}")
    if len(store.left_out) > 5:
        print(f"left out: {len(store.left_out) - 5} more")
    done = collections.Counter(
        note
        for name in store.columns["example_id"]
        if (folder / name).is_file()
        for note in preprocess.conversions(folder / name)
    )
    for note, count in done.most_common():
        print(f"{count} of {len(store)} images: {note}")
