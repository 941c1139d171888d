"""Does a model see a plane where its structure is? Activation maps against outlines.

    python benchmarks/explanation.py --model RUN [--untrained ViT-Mi-16-96-conv] [--hc18 FOLDER]

The share of each map that lies inside the outline, of the towers of a run and of the same towers
untrained, beside chance and a spot in the middle, with intervals by patient. On the phantom, whose
numbers say nothing about patients, and on the heads of HC18, where its folder is given.
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

STRUCTURES = ("head", "abdomen", "heart")


def tell(trained, untrained) -> None:
    details = trained.details
    count = trained.metrics["hires_cam_mass"].n
    print(
        f"\n{trained.study} on {trained.data['name']}: {count} images of {details['patients']} "
        f"patients, block {details['block']} of {details['blocks']}"
    )
    for name in trained.metrics:
        chance, centre = (
            trained.baselines[f"{kind}_{name}"].estimate for kind in ("chance", "centre")
        )
        print(
            f"  {name:<15} trained {shown(trained.metrics[name])}   untrained "
            f"{shown(untrained.metrics[name])}   chance {chance.value:.3f}   middle "
            f"{centre.value:.3f}"
        )
    found = compare(trained, untrained).headline
    print(f"  trained - untrained {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a run that was trained on the phantom")
    parser.add_argument("--untrained", default="ViT-Mi-16-96-conv", help="preset of its towers")
    parser.add_argument("--hc18", help="folder of HC18")
    parser.add_argument("--images", type=int, default=100, help="of each structure (default: 100)")
    parser.add_argument("--channels", type=int, default=32, help="of Score-CAM (default: 32)")
    parser.add_argument("--output", help="folder for the results, to report on")
    given = parser.parse_args()
    options = {"images": given.images, "channels": given.channels, "progress": False}
    planned = [
        Planned(studies.create(f"explanation.{one}", **options), ("phantom",)) for one in STRUCTURES
    ]
    data = {"phantom": DataSet("phantom")}
    if given.hc18:
        planned.append(Planned(studies.create("explanation.head", **options), ("hc18",)))
        data["hc18"] = DataSet("hc18", given.hc18)
    models = {"trained": given.model, "untrained": given.untrained}
    start = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        results = evaluate(
            {name: functools.partial(fetalclip_jax.load, path) for name, path in models.items()},
            data,
            planned,
            pathlib.Path(given.output or temporary),
            progress=False,
            say=lambda _: None,
        )
    found = {(one.model["name"], one.data["name"], one.study): one for one in results}
    for (model, where, study), one in found.items():
        if model == "trained":
            tell(one, found["untrained", where, study])
    print(f"\n{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
