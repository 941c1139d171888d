"""The `fetalclip` command: one thin function per subcommand, imports inside.

Errors a user can cause are `ValueError`s; they are printed as one line without a traceback.
"""

import argparse
import os
import pathlib
import sys
import time

from fetalclip_jax import compilation_cache


def entry_point() -> None:
    sys.exit(main())


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand; the process's exit status."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not hasattr(arguments, "config"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    # Set before JAX and TFDS start; their notices are not about the user's run.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    compilation_cache.enable()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # a log file keeps every redrawn bar
    try:
        arguments.run(arguments, rest)
    except (ValueError, OSError) as error:
        if os.environ.get("FETALCLIP_TRACEBACK"):
            raise
        print(f"fetalclip {arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0


def train(arguments: argparse.Namespace, rest: list[str]) -> None:
    from fetalclip_jax.config import parse
    from fetalclip_jax.training import loop

    loop.train(parse(arguments.config, rest), arguments.workdir)
    print(f"Trained: {arguments.workdir}")


def prepare(arguments: argparse.Namespace, rest: list[str]) -> None:
    from fetalclip_jax.config import parse
    from fetalclip_jax.run import Run
    from fetalclip_jax.training import inputs

    config, run = parse(arguments.config, rest), Run(arguments.workdir)
    run.claim(config)
    for split in arguments.split:
        dataset = inputs.open_records(config, run.workdir, split)
        print(f"{len(dataset)} examples in {run.records(split)}")


def import_(arguments: argparse.Namespace, _rest: list[str]) -> None:
    import fetalclip_jax

    if not arguments.weights.exists():
        raise ValueError(
            f"--weights={arguments.weights}: no such file or folder (a preset's name goes to "
            "--model)"
        )
    model = fetalclip_jax.load(
        arguments.weights,
        arguments.model,
        tokenizer=arguments.tokenizer,
        param_dtype="float32",
        resize_positions=arguments.resize_positions,
    )
    model.save(arguments.workdir)
    print(f"Imported {arguments.weights}: {arguments.workdir}")


def export(arguments: argparse.Namespace, _rest: list[str]) -> None:
    import fetalclip_jax

    if not arguments.workdir.is_dir():
        raise ValueError(f"--workdir={arguments.workdir}: no such folder")
    model = fetalclip_jax.load(arguments.workdir, param_dtype=arguments.dtype)
    print(f"Exported: {model.export(arguments.output, arguments.style)}")


def features(arguments: argparse.Namespace, _rest: list[str]) -> None:
    from fetalclip_jax.evaluation import programs

    store = programs.encode_split(arguments.workdir, arguments.split, arguments.copies)
    print(f"{len(store)} features in {programs.store_path(arguments.workdir, arguments.split)}")


def zeroshot(arguments: argparse.Namespace, _rest: list[str]) -> None:
    import fetalclip_jax
    from fetalclip_jax.captions.prompts import load_prompts
    from fetalclip_jax.evaluation import programs, zero_shot

    start = time.time()
    prompts = load_prompts(arguments.prompts or arguments.task)
    model = fetalclip_jax.load(arguments.workdir)
    store = programs.current_store(arguments.workdir, arguments.split, model)
    result = zero_shot.evaluate(store, model, prompts, task=arguments.task)
    programs.publish(arguments.workdir, f"zero_shot_{arguments.task}", result, start)
    print(
        f"zero-shot {arguments.task}: macro F1 {_with_interval(result, 'macro_f1')}, "
        f"chance {result['chance_macro_f1']:.3f}, {result['count']} images of "
        f"{result['patients']} patients"
    )


def ga(arguments: argparse.Namespace, _rest: list[str]) -> None:
    import fetalclip_jax
    from fetalclip_jax.data.records import RecordDataset
    from fetalclip_jax.evaluation import gestational_age, programs

    start = time.time()
    model = fetalclip_jax.load(arguments.workdir)
    trained_on = RecordDataset(arguments.workdir / "records" / "train").metadata()
    store = programs.current_store(arguments.workdir, arguments.split, model)
    result = gestational_age.evaluate(
        store, model, train_hc_mm=trained_on["hc_mm"], train_ga_days=trained_on["ga_days"]
    )
    programs.publish(arguments.workdir, "age", result, start)
    print(
        f"zero-shot gestational age: valid prediction rate "
        f"{_with_interval(result, 'valid_prediction_rate')}\n"
        f"  always the best constant age ({result['constant_baseline_days']} days, chosen on these "
        f"images): {result['constant_baseline']:.3f}\n"
        f"  best constant of the training images ({result['train_constant_days']} days): "
        f"{result['train_constant_baseline']:.3f}\n"
        f"  median training age ({result['train_median_days']} days): "
        f"{result['train_median_baseline']:.3f}\n"
        f"  mean absolute error {result['mae_days']:.1f} days (constant: "
        f"{result['mae_constant_days']:.1f}); implied head circumference off by "
        f"{result['median_implied_hc_error_percent']:.1f} % (median)"
    )


def probe(arguments: argparse.Namespace, _rest: list[str]) -> None:
    from fetalclip_jax.evaluation import probes, programs

    pool, test = (
        programs.open_store(arguments.workdir, "pool"),
        programs.open_store(arguments.workdir, "test"),
    )
    names = {"features": f"probe_{arguments.task}"}
    if arguments.task == "planes":
        names["raw_pixels"] = "probe_raw_pixels"
    for inputs, name in names.items():
        start = time.time()
        result = probes.evaluate(
            pool,
            test,
            arguments.task,
            inputs=inputs,
            config=programs.protocol(arguments.workdir, probes.TUNED),
        )
        programs.publish(arguments.workdir, name, result, start)
        print(
            f"linear probe {arguments.task} on {inputs.replace('_', ' ')}: "
            f"macro F1 {_with_interval(result, 'macro_f1')}"
        )


def fewshot(arguments: argparse.Namespace, _rest: list[str]) -> None:
    from fetalclip_jax.evaluation import few_shot, programs

    start = time.time()
    result = few_shot.evaluate(
        programs.open_store(arguments.workdir, "pool"),
        programs.open_store(arguments.workdir, "test"),
        patients=tuple(programs.run_config(arguments.workdir).evaluation.few_shot_patients),
        config=programs.protocol(arguments.workdir, few_shot.TUNED),
    )
    programs.publish(arguments.workdir, "few_shot_planes", result, start)
    for patients, point in result.items():
        if patients.isdigit():
            print(
                f"few-shot planes, {patients:>3} patients: macro F1 {point['mean']:.3f} "
                f"[{point['low']:.3f}, {point['high']:.3f}]"
            )


def report(arguments: argparse.Namespace, _rest: list[str]) -> None:
    from fetalclip_jax.reports.html import build_report

    print(f"Report: {build_report(arguments.workdir, arguments.total_seconds)}")


def _with_interval(result: dict, name: str) -> str:
    low, high = result[f"{name}_interval"]
    return f"{result[name]:.3f} [{low:.3f}, {high:.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fetalclip", description=__import__(__package__).__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run, summary: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            run.__name__.rstrip("_"),
            help=summary,
            description=summary,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the run")
        return added

    def configured(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument(
            "--config",
            required=True,
            metavar="FILE.py[:ARGUMENT]",
            help="experiment; change fields with --config.a.b=VALUE",
        )
        return added

    configured(
        command(
            train,
            "Pretrain a model; goes on from the latest checkpoint in the workdir.",
            "fetalclip train --config configs/phantom_quickstart.py --workdir runs/quickstart",
        )
    )
    configured(
        command(
            prepare,
            "Write the records of a data set at training resolution.",
            "fetalclip prepare --config configs/hc18.py --config.data.root=HC18 --workdir=runs/hc",
        )
    ).add_argument("--split", nargs="+", default=["train", "test"])

    added = command(
        import_,
        "Make a run of weights of open_clip or transformers.",
        "fetalclip import --weights FetalCLIP_weights.pt --model FetalCLIP --workdir runs/fc",
    )
    added.add_argument(
        "--weights",
        type=pathlib.Path,
        required=True,
        help=".pt or .safetensors file, or a folder of open_clip or of a transformers CLIPModel",
    )
    added.add_argument(
        "--model", help="preset or open_clip model JSON, for weights that do not say what they are"
    )
    added.add_argument(
        "--tokenizer", type=pathlib.Path, help="its folder or SentencePiece file, if not CLIP's own"
    )
    added.add_argument(
        "--resize-positions",
        action="store_true",
        help="fit positional embeddings to the image size and context length of --model",
    )
    added = command(
        export,
        "Write a run's weights for open_clip or transformers.",
        "fetalclip export --workdir runs/fetalclip --style transformers --output fetalclip_hf",
    )
    added.add_argument("--output", type=pathlib.Path, required=True, help="folder to write")
    added.add_argument("--style", choices=("open_clip", "transformers"), default="open_clip")
    added.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")

    def on_split(added: argparse.ArgumentParser, default: str = "test") -> argparse.ArgumentParser:
        added.add_argument("--split", default=default, help=f"records to use (default: {default})")
        return added

    on_split(
        command(
            features,
            "Encode the images of a split once, for all evaluations.",
            "fetalclip features --workdir runs/quickstart --split pool --copies 5",
        )
    ).add_argument(
        "--copies",
        type=int,
        help="augmented copies of each image, for probes (default: the run's "
        "config.evaluation.probe_copies for the pool, else 0)",
    )
    added = on_split(
        command(
            zeroshot,
            "Classify planes or brain planes from prompts alone.",
            "fetalclip zeroshot --workdir runs/quickstart --task brain",
        )
    )
    added.add_argument("--task", choices=("planes", "brain"), default="planes")
    added.add_argument("--prompts", type=pathlib.Path, help="a JSON file of {class: [prompts]}")
    on_split(
        command(
            ga,
            "Estimate gestational age from prompts alone.",
            "fetalclip ga --workdir runs/quickstart",
        )
    )
    command(
        probe,
        "Fit linear probes to stored features of `pool` and judge them on `test`.",
        "fetalclip probe --workdir runs/quickstart --task brain",
    ).add_argument("--task", choices=("planes", "brain"), default="planes")
    command(
        fewshot,
        "Data-efficiency curve: linear probes on few patients.",
        "fetalclip fewshot --workdir runs/quickstart",
    )
    command(
        report,
        "Gather all results of a run into report.html and results.json.",
        "fetalclip report --workdir runs/quickstart",
    ).add_argument("--total-seconds", type=float, help="wall time of the whole job, if known")
    return parser


if __name__ == "__main__":
    entry_point()
