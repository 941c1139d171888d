"""What retrieval, regression, the simple heads and the data checks find, pretrained and untrained.

    python benchmarks/other_heads.py --model RUN --output FOLDER [--untrained ViT-Mi-16-96-conv]

RUN is a folder that training wrote (the quickstart's, say); --untrained names the preset of the
same towers. Both are judged on the phantom by `evaluate`, whose results stay in FOLDER. Printed are
every metric with its interval, the baseline that is hardest to beat, and a paired test of the
headline. The images are simulated: no number says anything about patients.
"""

import argparse
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import fetalclip_jax
from fetalclip_jax.evaluation import comparison, studies, terminal
from fetalclip_jax.evaluation.evaluate import Planned, evaluate
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.reports import naming

STUDIES = (
    *("retrieval", "regression.ga_days", "regression.hc_mm"),
    *("knn.planes", "knn.brain", "nearest_centroid.planes", "nearest_centroid.brain"),
    *("near_duplicates", "mislabels.planes", "mislabels.brain"),
)


def hardest(result, name: str) -> str:
    """The baseline of a metric that is hardest to beat."""
    known = [b for b in result.baselines.values() if b.metric == name]
    if not known:
        return ""
    pick = min if naming.metric(name).lower_is_better else max
    best = pick(known, key=lambda one: one.estimate.value)
    return f"{terminal.shown(best.estimate)} {best.description}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a trained run")
    parser.add_argument("--untrained", default="ViT-Mi-16-96-conv", help="preset of its towers")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder of the results")
    parser.add_argument("--study", nargs="+", default=STUDIES, help="which (default: all)")
    arguments = parser.parse_args()
    found = evaluate(
        {
            "pretrained": lambda: fetalclip_jax.load(arguments.model),
            "untrained": lambda: fetalclip_jax.load(arguments.untrained),
        },
        {"phantom": DataSet("phantom")},
        [Planned(studies.create(name)) for name in arguments.study],
        arguments.output,
        say=lambda line: None,
    )
    by_model = {
        name: {one.study: one for one in found if one.model["name"] == name}
        for name in ("pretrained", "untrained")
    }
    for name in arguments.study:
        pretrained, untrained = (by_model[model][name] for model in by_model)
        print(f"\n{name}, {pretrained.details['count']} images")
        print("| metric | pretrained | untrained | to compare with |\n|---|---|---|---|")
        for metric, estimate in pretrained.metrics.items():
            other = untrained.metrics.get(metric)
            shown = [terminal.shown(one) if one else "" for one in (estimate, other)]
            print(f"| {metric} | {' | '.join(shown)} | {hardest(pretrained, metric)} |")
        if pretrained.details.get("tells_of") == "the data":
            continue
        one = comparison.compare(pretrained, untrained).headline
        interval = "" if one.low is None else f" [{one.low:+.3f}, {one.high:+.3f}]"
        print(f"paired, pretrained - untrained: {one.metric} {one.value:+.3f}{interval}")


if __name__ == "__main__":
    main()
