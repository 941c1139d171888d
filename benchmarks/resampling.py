"""Speed of the bootstrap and of paired tests; parts of `benchmarks/evaluation.py`."""

import pathlib
import time

import numpy as np

from fetalclip_jax.evaluation import result
from fetalclip_jax.evaluation.comparisons import compare_all
from fetalclip_jax.evaluation.statistics import bootstrap, measure

# FETAL_PLANES_DB's images of five planes, answered among nine.
IMAGES, PLANES, CANDIDATES = 8187, 5, 9
RESAMPLES, CHECKED = 10_000, 200


def per_class_f1() -> None:
    """10,000 resamples of every class's F1, and scikit-learn's on some of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, PLANES, IMAGES)
    answers = np.where(rng.random(IMAGES) < 0.9, labels, rng.integers(0, CANDIDATES, IMAGES))
    scores = measure.f1_per_class(labels, answers[None], CANDIDATES)
    start = time.perf_counter()
    found = bootstrap.resample(scores, np.arange(IMAGES), resamples=RESAMPLES, seed=0)[:, 0]
    seconds = time.perf_counter() - start
    print(f"| bootstrap: {RESAMPLES} resamples of {IMAGES} images | {seconds:.2f} s | | | |")
    try:
        from sklearn.metrics import f1_score
    except ImportError:
        print("  scikit-learn is not installed: not compared")
        return
    draws, kinds = bootstrap.resampled_sums(scores, np.arange(IMAGES), resamples=RESAMPLES, seed=0)
    # Images of one kind, a label and an answer, are drawn as one row; a row's sums say which.
    kind_labels = kinds[:, :CANDIDATES].argmax(1)
    kind_answers = kinds[:, CANDIDATES : 2 * CANDIDATES].argmax(1)
    times = next(draws)[:CHECKED]
    start = time.perf_counter()
    theirs = [
        f1_score(
            np.repeat(kind_labels, row.astype(int)),
            np.repeat(kind_answers, row.astype(int)),
            labels=np.arange(CANDIDATES),
            average=None,
            zero_division=0.0,
        )
        for row in times
    ]
    slower = (time.perf_counter() - start) / CHECKED * RESAMPLES / seconds
    worst = np.abs(np.stack(theirs) - found[:CHECKED]).max()
    print(
        f"  scikit-learn on {CHECKED} of them: differs by {worst:.1e} at most; it would take "
        f"{slower:.0f} times as long"
    )


def paired_tests(folder: pathlib.Path | None) -> None:
    """Every metric of every study that two models share, as `fetalclip report --compare` does."""
    if folder is None:
        print("| paired tests | give --results FOLDER, an evaluation of two models | | | |")
        return
    start = time.perf_counter()
    compared = compare_all(result.load_all(folder))
    seconds = time.perf_counter() - start
    metrics = sum(len(one.differences) for one in compared.compared)
    print(
        f"| paired tests: {len(compared.pairs)} pairs of models, {len(compared.compared)} studies, "
        f"{metrics} metrics | {seconds:.2f} s | | | |"
    )
    for line in compared.lines():
        print(f"  {line}")
