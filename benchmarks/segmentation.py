"""How well are heads of HC18, and all structures of the phantom, outlined?

    python benchmarks/segmentation.py --model RUN --hc18 HC18 --splits SPLITS [--quick]

heads    HC18 by the official lists, clean: pooled Dice, Dice of the image, Hausdorff distance and
         circumference on test images, of the model, of an untrained tower, and of a decoder that
         sees the image alone.
curve    pooled Dice after 1 to 32 training images, model against untrained tower, with bands.
phantom  Dice of every structure of the simulated planes.

The test images are for the number that is reported: choose settings on others. Without --splits
patients are held out by a hash. Numbers of the phantom are no evidence about patients.
"""

import argparse
import functools
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import fetalclip_jax
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.curve_comparison import compare_curves
from fetalclip_jax.evaluation.evaluate import Planned, evaluate
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.evaluation.terminal import shown
from fetalclip_jax.labels import OUTLINED

PARTS = ("heads", "curve", "phantom")


def judge(models, data, name, folder, **options):
    """Model name -> result of one study."""
    kind = next(iter(data))
    started = time.process_time()
    results = evaluate(
        {one: functools.partial(fetalclip_jax.load, path) for one, path in models.items()},
        data,
        [Planned(studies.create(name, **options))],
        os.path.join(folder, kind, options.get("inputs", "tokens")),
        say=lambda _: None,
    )
    print(f"\n{name} on {kind}: {time.process_time() - started:.0f} s of processor time")
    return {one.model["name"]: one for one in results}


def tell(name, result):
    print(f"  {name}")
    for metric, estimate in result.metrics.items():
        print(f"    {metric.replace('_', ' '):<28} {shown(estimate)}")


def heads(models, data, splits, folder, options):
    found = judge(models, data, "segmentation.head", folder, splits=splits, **options)
    first = next(iter(found.values()))
    print(f"  {first.metrics['dice'].n} test images of {first.details['patients']} patients")
    for name, result in found.items():
        tell(name, result)
    trained = dict([next(iter(models.items()))])
    alone = judge(
        trained, data, "segmentation.head", folder, splits=splits, inputs="image", **options
    )
    tell("image alone, no tokens", next(iter(alone.values())))
    for baseline in first.baselines.values():
        print(f"  {baseline.description}: {baseline.metric} {shown(baseline.estimate)}")
    for reason in (*first.details["notes"], *map(": ".join, _texts(first.details["lacking"]))):
        print(f"  {reason}")


def curve(models, data, splits, folder, options):
    found = judge(models, data, "few_shot_segmentation.head", folder, splits=splits, **options)
    names = list(found)
    print(f"  {'size':>6}" + "".join(f"{name:>28}" for name in names))
    for points in zip(*(one.curve for one in found.values()), strict=True):
        cells = [f"{p['mean']:.3f} [{_edge(p['low'])}, {_edge(p['high'])}]" for p in points]
        print(f"  {points[0]['patients']:>6}" + "".join(f"{cell:>28}" for cell in cells))
    if len(names) == 2:
        compared = compare_curves(*found.values(), names=tuple(names))
        for one in (*compared.differences, compared.area):
            if one is not None:
                edges = f"[{_edge(one.low)}, {_edge(one.high)}]"
                print(f"  {one.metric}, {names[0]} - {names[1]}: {one.value:+.3f} {edges}")


def phantom(models, folder, options):
    data = {"phantom": DataSet("phantom")}
    for task in OUTLINED:
        for name, result in judge(models, data, f"segmentation.{task}", folder, **options).items():
            tell(name, result)


def _edge(value):
    return "none" if value is None else f"{value:.3f}"


def _texts(counts):
    return ((reason, str(count)) for reason, count in counts.items())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="run, weights or preset")
    parser.add_argument("--untrained", default="ViT-Mi-16-96-conv", help="preset to compare with")
    parser.add_argument("--hc18", default="", help="folder of HC18")
    parser.add_argument("--splits", default="", help="folder of the official lists")
    parser.add_argument("--part", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--output", required=True, help="folder of the results, for reports")
    parser.add_argument("--epochs", type=int, help="of every decoder")
    parser.add_argument("--steps", type=int, help="in an epoch")
    parser.add_argument("--runs", type=int, default=1, help="seeds of every split")
    parser.add_argument("--folds", type=int, default=1, help="folds that are run")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--support-sets", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a minute: numbers mean nothing")
    given = parser.parse_args()
    options = {"runs": given.runs}
    options |= {"epochs": given.epochs} if given.epochs else {}
    options |= {"steps_per_epoch": given.steps} if given.steps else {}
    few = options | {"sizes": given.sizes, "support_sets": given.support_sets}
    options |= {"folds_run": given.folds}
    if given.quick:
        brief = {"epochs": 1, "steps_per_epoch": 2, "width": 8, "resamples": 50}
        options, few = options | brief, few | brief | {"sizes": (1, 2), "copies": 1}
    models = {"model": given.model, "untrained": given.untrained}
    hc18 = {"hc18": DataSet("hc18", given.hc18)}
    if "heads" in given.part and given.hc18:
        heads(models, hc18, given.splits, given.output, options)
    if "curve" in given.part and given.hc18:
        curve(models, hc18, given.splits, given.output, few)
    if "phantom" in given.part:
        phantom(models, given.output, options)


if __name__ == "__main__":
    main()
