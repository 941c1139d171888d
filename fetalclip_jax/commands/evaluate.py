"""`fetalclip evaluate`."""

import argparse
import functools

from fetalclip_jax.commands import arguments

SUMMARY = "Judge models on data sets: every study's figures, intervals and predictions."
EXAMPLE = """\
fetalclip evaluate --model runs/quickstart --study zero_shot.planes age --output results/quickstart
  fetalclip evaluate --model FetalCLIP_weights.pt --model-config FetalCLIP \\
      --data fetal_planes_db=FPDB --data hc18=HC18 --protocol paper \\
      --study zero_shot.planes zero_shot.brain age --output results/fetalclip
  fetalclip evaluate --config configs/eval/paper.py --config.data.hc18.root=HC18 \\
      --config.models.fetalclip.path=FetalCLIP_weights.pt --output results/paper"""

# Options of studies that have flags of their own; only those given reach a study.
_OPTIONS = (
    *("protocol", "resample_by", "resamples", "seed"),
    *("prompts", "templates", "splits", "copies"),
)

# Flags of the models that --model names, and the same fields of a file.
_OF_MODELS = {
    "model_config": "config",
    "tokenizer": "tokenizer",
    "dtype": "dtype",
    "test_time_views": "test_time_views",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser, required=False)
    arguments.add_model(parser, several=True)
    arguments.add_test_time_views(parser, default=None)
    parser.add_argument(
        "--data",
        action="append",
        metavar="[NAME:]KIND[=FOLDER]",
        help="a data set; may be repeated (default: the one the model was trained on)",
    )
    parser.add_argument("--study", nargs="+", default=[], metavar="STUDY", help="what to measure")
    parser.add_argument(
        "--output", type=arguments.place, required=True, help="folder of the results"
    )
    parser.add_argument("--protocol", help="'paper' for the published one, to the letter")
    parser.add_argument("--resample-by", help="intervals by 'patient' or 'image'")
    parser.add_argument("--resamples", type=int, help="bootstrap samples (default: 1000)")
    parser.add_argument("--prompts", help="JSON file of {class: [prompts]}")
    parser.add_argument("--templates", help="file of age prompts with {weeks}, {days}, ...")
    parser.add_argument("--splits", help="official split files: a folder")
    parser.add_argument("--copies", type=int, help="augmented copies of a probe's training images")
    parser.add_argument("--batch-size", type=int, help="images per call of the image tower")
    parser.add_argument("--workers", type=int, help="processes that read images")
    parser.add_argument("--seed", type=int, help="of augmented copies, folds and intervals")
    arguments.add_job(parser)


def run(given: argparse.Namespace, overrides: list[str]) -> None:
    with arguments.job(given):
        _run(given, overrides)


def _run(given: argparse.Namespace, overrides: list[str]) -> None:
    from fetalclip_jax import config_files
    from fetalclip_jax.evaluation import config as configs
    from fetalclip_jax.evaluation.evaluate import evaluate
    from fetalclip_jax.reports import published

    config = configs.read(given.config)
    _take(config, given)
    configs.add_overridden_models(config, overrides)
    config = config_files.override(config, overrides, given.config or "this evaluation")
    results = evaluate(
        {name: functools.partial(_load, entry) for name, entry in configs.models(config).items()},
        configs.data_sets(config),
        configs.planned(config),
        given.output,
        batch_size=config.batch_size,
        workers=config.workers,
        seed=config.seed,
        keep_going=config.keep_going,
        beside=config.beside,
    )
    for line in dict.fromkeys(filter(None, map(published.beside, results))):
        print(line)
    for line in configs.lacking(config):
        print(f"lacking: {line}")
    print(
        f"{len(results)} results in {given.output}; a page of them: fetalclip report {given.output}"
    )


def _take(config, given: argparse.Namespace) -> None:
    """Puts what the flags say into the configuration."""
    from fetalclip_jax.evaluation import config as configs
    from fetalclip_jax.evaluation import studies

    for flag, field in _OF_MODELS.items():
        if getattr(given, flag) is not None and not given.model:
            raise ValueError(
                f"--{flag.replace('_', '-')} is of the models that --model names, and it names "
                f"none; pass --model PATH, or --config.models.NAME.{field}= for one of a file"
            )
    fields = {field: getattr(given, flag) for flag, field in _OF_MODELS.items()}
    fields["tokenizer"] = str(given.tokenizer or "")
    for text in given.model or ():
        name, path = arguments.split_name(text, "")
        configs.add_model(config, name or arguments.folder_name(path), path=path, **fields)
    for text in given.data or ():
        kind, _, root = text.partition("=")
        name, _, kind = kind.rpartition(":")
        configs.add_data(config, name or kind, kind=kind, root=root)
    options = {name: getattr(given, name) for name in _OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    # Without --study, the flags are for those of the file.
    asked = given.study or [entry.study for entry in config.studies.values()]
    taken = {study: studies.option_names(study) for study in asked}
    unread = [name for name in options if not any(name in names for names in taken.values())]
    if unread:
        raise ValueError(
            f"--{unread[0].replace('_', '-')} is read by none of the studies: {', '.join(asked)}"
        )
    for study, names in taken.items():
        configs.add_study(config, study, {k: v for k, v in options.items() if k in names})
    configs.keep_studies(config, asked)
    for name in ("batch_size", "workers", "seed"):
        if getattr(given, name) is not None:
            config[name] = getattr(given, name)


def _load(entry):
    import fetalclip_jax

    return fetalclip_jax.load(
        entry.path,
        entry.config or None,
        tokenizer=entry.tokenizer or None,
        dtype=entry.dtype or None,
        test_time_views=entry.test_time_views,
    )
