"""Does pretraining help to tell abnormal hearts from normal ones, in clips of the phantom?

    python benchmarks/heart_defects.py --model RUN [--untrained ViT-Mi-16-96-conv]

Judges the towers of a run, the same towers untrained, and 16 x 16 raw pixels by the same linear
heads on the same clips of `phantom_clips`; its clips show patients that no run was trained on.
Areas under the ROC curve and their differences have intervals by a paired bootstrap of patients.
Simulated clips: nothing here says anything about patients.
"""

import argparse
import functools
import pathlib
import tempfile
import time

import fetalclip_jax
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.comparison import compare
from fetalclip_jax.evaluation.evaluate import Planned, evaluate
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.evaluation.terminal import shown

STUDIES = ("chd.mean", "chd.concatenated")


def judge(models, options, protocol, folder):
    """(study, model name) -> result."""
    planned = [Planned(studies.create(name, protocol=protocol, progress=False)) for name in STUDIES]
    results = evaluate(
        {name: functools.partial(fetalclip_jax.load, path) for name, path in models.items()},
        {"phantom_clips": DataSet("phantom_clips", options=options)},
        planned,
        folder,
        progress=False,
        say=lambda _: None,
    )
    return {(one.study, one.model["name"]): one for one in results}


def signed(value, low, high) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def tell(study, trained, untrained) -> None:
    metrics, details = trained.metrics, trained.details
    clips = metrics["auroc"].n
    print(f"\n{study}, {clips} clips of as many patients, heads of {details['train_patients']}")
    for name, one in (("trained", trained), ("untrained", untrained)):
        print(f"  {name:<10} AUROC {shown(one.metrics['auroc'])}")
    print(f"  raw pixels AUROC {shown(trained.baselines['raw_pixels_auroc'].estimate)}")
    found = compare(trained, untrained).headline
    print(f"  trained - untrained   {signed(found.value, found.low, found.high)}")
    raw = details["against_raw_pixels"]["auroc"]
    print(f"  trained - raw pixels  {signed(raw['value'], raw['low'], raw['high'])}")
    for name, one in list(metrics.items())[1:]:
        print(f"  trained {name.replace('_', ' ')} {shown(one)}")
    asked = details["operating_points"][0]["asked"]
    for finding, one in details["findings"].items():
        edges = f"[{one['low']:.3f}, {one['high']:.3f}]"
        print(
            f"  trained, {finding.replace('_', ' ')}: sensitivity {one['value']:.3f} {edges} at a "
            f"threshold chosen on {details['thresholds_from']} for a specificity of {asked}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a run that was trained on the phantom")
    parser.add_argument("--untrained", default="ViT-Mi-16-96-conv", help="preset of its towers")
    parser.add_argument("--protocol", default="tuned", choices=("tuned", "paper"))
    parser.add_argument("--pool-clips", type=int, help="clips to learn from")
    parser.add_argument("--test-clips", type=int, help="clips to test")
    parser.add_argument("--output", help="folder for the results, to report on")
    given = parser.parse_args()
    options = {"pool_clips": given.pool_clips, "test_clips": given.test_clips}
    options = {name: value for name, value in options.items() if value}
    start = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        found = judge(
            {"trained": given.model, "untrained": given.untrained},
            options,
            given.protocol,
            pathlib.Path(given.output or temporary),
        )
    for study in STUDIES:
        tell(study, found[study, "trained"], found[study, "untrained"])
    print(f"\n{time.time() - start:.0f} s, protocol {given.protocol}")


if __name__ == "__main__":
    main()
