"""How long do the programs of an evaluation take, and how often do its intervals hold the truth?

    python benchmarks/evaluation.py [--part probe few_shot ...] [--peer-runs 1] [--results FOLDER]
    python benchmarks/evaluation.py --part segmentation heart_defects explanation other_heads \
        --model RUN --hc18 HC18 --splits SPLITS --output FOLDER

probe      25 linear probes (5 folds x 5 seeds) by AdamW, as the paper trains them: 5,600 images of
           896 patients with 5 augmented copies, 768 features, six classes, 50 epochs, batch 64.
few_shot   7 sizes (2 to 128 patients) x 5 support sets x 5 seeds, 10 copies, 100 epochs, batch 16.
logistic   both with the default protocol: clean images, 11 penalties, to the end.
bootstrap  10,000 resamples of the F1 of each class, against scikit-learn where it is installed.
paired     every metric that the models in --results share, by paired tests.
coverage   how often intervals hold the truth, by simulation (`coverage.py`,
           `coverage_of_analyses.py`; ten minutes).

With --model RUN, a run that was trained on the phantom, also what studies find of it and of the
same towers untrained; each is a program beside this one, with options of its own:

segmentation   Dice, distances and circumferences of real heads (--hc18, --splits), the learning
               curve over 1 to 32 images, Dice of the phantom's structures: hours at full length.
heart_defects  AUROC on the phantom's clips, against raw pixels.
explanation    how much of a map lies inside the outline, against chance.
other_heads    retrieval, age and circumference by ridge regression, neighbours and centroids.

The features are drawn at random, so accuracies say only that two programs do the same. Times hold
compilation. Where torch is installed, a plain loop of it trains `--peer-runs` of the same runs of
AdamW, all their epochs, on one core, and its time is scaled to all runs; the ratio is of processor
times, as if several such loops kept all cores busy.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import coverage  # beside this file
import coverage_of_analyses
import numpy as np
import resampling

from fetalclip_jax.evaluation.heads import linear, logistic
from fetalclip_jax.evaluation.statistics import splits

CLASSES, WIDTH, PATIENTS, IMAGES, TESTED = 6, 768, 896, 5600, 2000
SIZES = (2, 4, 8, 16, 32, 64, 128)


@dataclasses.dataclass(frozen=True)
class Data:
    """Features of images, clean ones first, and as many copies of each.

    Attributes:
      features: [n, WIDTH].
      labels: [n].
      owners: [n], patient of each row.
      clean: [n].
      test: features and labels of images of other patients.
    """

    features: np.ndarray
    labels: np.ndarray
    owners: np.ndarray
    clean: np.ndarray
    test: tuple[np.ndarray, np.ndarray]

    @classmethod
    def drawn(cls, copies: int) -> "Data":
        rng = np.random.default_rng(0)
        count = IMAGES + TESTED
        owners = np.sort(rng.integers(0, PATIENTS * count // IMAGES, count))
        labels = rng.integers(0, CLASSES, count)
        of_class = 0.06 * rng.normal(size=(CLASSES, WIDTH))
        of_patient = 0.3 * rng.normal(size=(owners.max() + 1, WIDTH))
        clean = of_class[labels] + of_patient[owners] + 0.6 * rng.normal(size=(count, WIDTH))
        test = clean[IMAGES:].astype(np.float32), labels[IMAGES:]
        clean, labels, owners = clean[:IMAGES], labels[:IMAGES], owners[:IMAGES]
        augmented = [clean + 0.3 * rng.normal(size=clean.shape) for _ in range(copies)]
        return cls(
            np.concatenate([clean, *augmented]).astype(np.float32),
            np.tile(labels, copies + 1),
            np.tile(owners.astype(np.str_), copies + 1),
            np.arange(IMAGES * (copies + 1)) < IMAGES,
            test,
        )

    def rows(self, split: splits.Split) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a split's patients to train and to validate on."""
        trains = ~self.clean if not self.clean.all() else self.clean
        return (
            np.flatnonzero(trains & np.isin(self.owners, split[0])),
            np.flatnonzero(self.clean & np.isin(self.owners, split[1])),
        )

    def accuracy(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """[runs], in percent."""
        features, labels = self.test
        return 100 * ((features @ weight + bias[:, None]).argmax(-1) == labels).mean(1)


def few_shot_splits(data: Data) -> list[splits.Split]:
    return [one for size in SIZES for one in splits.support_sets(data.owners, size)]


def probe(arguments: argparse.Namespace) -> None:
    data = Data.drawn(copies=5)
    folds = splits.folds_by_patient(data.owners, 5, 0)
    _adamw("probe", data, folds, linear.ProbeConfig(), arguments.peer_runs, sizes=("",))


def few_shot(arguments: argparse.Namespace) -> None:
    data = Data.drawn(copies=10)
    config = linear.ProbeConfig(epochs=100, batch_size=16)
    sizes = tuple(f", {size} patients" for size in SIZES)
    _adamw("few_shot", data, few_shot_splits(data), config, arguments.peer_runs, sizes)


def logistic_heads(_: argparse.Namespace) -> None:
    """No peer: the tests hold its optimum against SciPy's."""
    data = Data.drawn(copies=0)
    unit = data.features / np.linalg.norm(data.features, axis=1, keepdims=True)
    for name, given, fit in (
        (
            "logistic probe",
            splits.folds_by_patient(data.owners, 5, 0),
            logistic.fit_cross_validated,
        ),
        ("logistic few_shot", few_shot_splits(data), logistic.fit_chosen),
    ):
        train, validation = zip(*(data.rows(split) for split in given), strict=True)
        with _Clock() as clock:
            fit(unit, data.labels, train, validation, num_classes=CLASSES, progress=True)
        print(f"| {name} | {clock} | |")


def _adamw(
    name: str,
    data: Data,
    given: Sequence[splits.Split],
    config: linear.ProbeConfig,
    peer_runs: int,
    sizes: Sequence[str],
) -> None:
    """Five runs of every split; `sizes` are of equally many splits each."""
    train, validation = zip(*(data.rows(one) for one in given for _ in range(5)), strict=True)
    with _Clock() as clock:
        probes = linear.fit(
            data.features, data.labels, train, validation,
            num_classes=CLASSES, config=config, progress=True,
        )  # fmt: skip
    found = data.accuracy(probes.weight, probes.bias).reshape(len(sizes), -1)
    # As many runs of every size, each of another split as far as there are splits.
    chosen = np.arange(found.size).reshape(len(sizes), 5, 5).swapaxes(1, 2)
    chosen = chosen.reshape(len(sizes), -1)[:, :peer_runs]
    with _Clock() as peer_clock:
        peers = _torch_accuracies(data, train, validation, config, chosen.ravel())
    said = "torch is not installed |"
    if peers is not None:
        scaled = peer_clock.processor * found.size / chosen.size
        said = f"{scaled:.1f} s ({chosen.size} of {found.size} runs, scaled)"
        said += f" | {scaled / clock.processor:.1f}"
        peers = np.reshape(peers, chosen.shape)
    print(f"| {name} | {clock} | {said} |")
    for row, size in enumerate(sizes):
        line = (
            f"  accuracy{size}: {found[row].mean():.2f} % (deviation {found[row].std(ddof=1):.2f})"
        )
        if peers is not None:
            ours = found.ravel()[chosen[row]].mean()
            line += f"; of what torch trained {ours:.2f} %, by torch {peers[row].mean():.2f} %"
        print(line)


def _torch_accuracies(data, train, validation, config, runs) -> list[float] | None:
    """Of some of the runs, trained one after the other; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)  # more are slower: the products are small
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    accuracies = []
    for run in runs:
        torch.manual_seed(int(run))
        rows, held_out = torch.from_numpy(train[run]), torch.from_numpy(validation[run])
        clean = features[held_out], labels[held_out]
        head = torch.nn.Linear(WIDTH, CLASSES)
        optimiser = torch.optim.AdamW(
            head.parameters(),
            config.learning_rates[0],
            weight_decay=config.weight_decay,
            fused=True,
        )
        entropy = torch.nn.functional.cross_entropy
        best = np.inf, None
        for _ in range(config.epochs):
            order = rows[torch.randperm(len(rows))]
            for batch in order.split(config.batch_size):
                if len(batch) < config.batch_size <= len(rows):
                    continue
                loss = entropy(head(features[batch]), labels[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            with torch.no_grad():
                loss = entropy(head(clean[0]), clean[1]).item()
            if loss < best[0]:
                best = loss, [one.detach().numpy().copy() for one in head.parameters()]
        weight, bias = best[1]
        accuracies.append(float(data.accuracy(weight.T[None], bias[None])[0]))
    return accuracies


class _Clock:
    """Seconds of a block, and of the processor."""

    def __enter__(self) -> "_Clock":
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = time.perf_counter() - self._start[0]
        self.processor = time.process_time() - self._start[1]

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s | {self.processor:.1f} s"


def simulated_coverage(_: argparse.Namespace) -> None:
    coverage.table(coverage.DESIGNS, studies=1000, seed=0)
    coverage_of_analyses.table(studies=300, seed=0)


def of_model(name: str) -> Callable[[argparse.Namespace], None]:
    """Runs a program beside this one with those of its options that are given here."""

    def run(arguments: argparse.Namespace) -> None:
        if not arguments.model or not arguments.output:
            print(f"{name}: needs --model RUN and --output FOLDER; left out")
            return
        given = ["--model", arguments.model, "--output", os.path.join(arguments.output, name)]
        for option in _TAKES_ALSO.get(name, ()):
            if value := getattr(arguments, option):
                given += [f"--{option}", value]
        script = pathlib.Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, script, *given], check=True)

    return run


_TAKES_ALSO = {"segmentation": ("hc18", "splits"), "explanation": ("hc18",)}
PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "probe": probe,
    "few_shot": few_shot,
    "logistic": logistic_heads,
    "bootstrap": lambda _: resampling.per_class_f1(),
    "paired": lambda arguments: resampling.paired_tests(arguments.results),
    "coverage": simulated_coverage,
    **{
        name: of_model(name)
        for name in ("segmentation", "heart_defects", "explanation", "other_heads")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--peer-runs", type=int, default=1, help="of 25, that torch trains too (default: 1)"
    )
    parser.add_argument("--results", type=pathlib.Path, help="an evaluation of two models or more")
    parser.add_argument("--model", help="a run that was trained on the phantom")
    parser.add_argument("--hc18", help="folder of HC18")
    parser.add_argument("--splits", help="folder of the official lists")
    parser.add_argument("--output", help="folder of the studies' results, for reports")
    arguments = parser.parse_args()
    print("| suite | time | processor time | of a torch loop | ratio |")
    for name in arguments.part:
        PARTS[name](arguments)


if __name__ == "__main__":
    main()
