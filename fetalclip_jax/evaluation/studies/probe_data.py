"""What probes learn from and are tested on: rows of two stores, ready for one task."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.heads import linear, logistic
from fetalclip_jax.evaluation.heads.linear import LinearProbes
from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.official import Patients
from fetalclip_jax.evaluation.statistics.splits import Split
from fetalclip_jax.evaluation.studies.classification import Classification
from fetalclip_jax.evaluation.studies.settings import Settings
from fetalclip_jax.evaluation.studies.tasks import probe_task

INPUTS = ("features", "raw_pixels")


class ProbeData:
    """A store to learn from and one to be tested on, for one task.

    Attributes:
      task: the classification task.
      patients: whose images the stores hold, whatever they show.
      features: inputs of the judged rows to learn from.
      labels: their classes.
      owners: their patients.
      trains: whether a row may train: augmented copies, or clean images where there are none.
      validates: whether a row may validate: clean images.
      test: the clean, judged rows of the test store.
      test_features: their inputs.
      test_labels: their classes.
      left_out: images of the test store that are not judged, by what their label says.
    """

    def __init__(
        self, fit: FeatureStore, test: FeatureStore, task: str, settings: Settings, inputs: str
    ):
        """Takes the rows of a task.

        Args:
          settings: those of a study, with `feature_scaling`; to `fit`, `LinearHeadSettings`.

        Raises:
          ValueError: stores of two models, patients in both, labels that are missing, or inputs
            that are not finite.
        """
        self.patients = check_apart(fit, test)
        self.task, self._settings = probe_task(task, fit), settings
        rows, self.labels = self.task.select(fit)
        pool = fit.select(rows)
        pool.clean()  # validation needs clean images
        self.features = _inputs(pool, inputs, settings.feature_scaling)
        self.owners = pool.patients()
        self._pool = pool
        self.validates = pool.copy == 0
        self.trains = pool.copy > 0 if (pool.copy > 0).any() else self.validates
        clean = test.clean()
        rows, self.test_labels = self.task.select(clean)
        self.test = clean.select(rows)
        self.test_features = _inputs(self.test, inputs, settings.feature_scaling)
        self.left_out = self.task.left_out(clean)

    def keep_test(self, patients: np.ndarray) -> None:
        """Tests these patients only.

        Raises:
          ValueError: none of them has an image of the task.
        """
        rows = np.isin(self.test.patients(), patients)
        if not rows.any():
            raise ValueError(
                f"none of the {len(patients)} patients of the test list has a test image of task "
                f"{self.task.name!r}"
            )
        self.test, self.test_labels = self.test.select(rows), self.test_labels[rows]
        self.test_features = self.test_features[rows]

    def rows(self, split: Split) -> tuple[Int[np.ndarray, "a"], Int[np.ndarray, "b"]]:
        """Training and validation rows of a split of patients."""
        train, validation = split
        return (
            np.flatnonzero(self.trains & np.isin(self.owners, train)),
            np.flatnonzero(self.validates & np.isin(self.owners, validation)),
        )

    def fit(self, splits: Sequence[Split]) -> LinearProbes:
        """Probes of folds: `runs` of each with "adamw", ordered fold by fold; with "logistic" one
        of all their patients, whose penalty the folds chose.
        """
        settings = self._settings
        if settings.solver == "adamw":
            seeds = run_seeds(settings.seed, len(splits) * settings.runs)
            return self._fit_each(self._pairs(splits), seeds, settings.progress)
        return self._cross_validated(self._pairs(splits), self._all(splits), settings.progress)

    def fit_sizes(self, sets: Mapping[int, Sequence[Split]]) -> dict[int, LinearProbes]:
        """`runs` probes of every split, ordered split by split, for every size.

        All sizes are trained together; the probes of one do not depend on the others.
        """
        settings = self._settings
        counts = [len(splits) * settings.runs for splits in sets.values()]
        seeds = [run_seeds(settings.seed, count) for count in counts]
        pairs = [pair for splits in sets.values() for pair in self._pairs(splits)]
        probes = self._fit_each(pairs, np.concatenate(seeds), settings.progress)
        ends = np.cumsum(counts)
        return {
            size: probes.select(slice(end - count, end))
            for size, count, end in zip(sets, counts, ends, strict=True)
        }

    def redrawn(self, splits: Sequence[Split], count: int) -> list[Answers]:
        """Answers of probes that were trained on other augmented copies, one set a draw.

        Encoding new copies is what a new draw would take; in its place each image's copies are
        drawn from those it has, with replacement, and a probe of every split is trained anew.
        """
        settings = self._settings
        rng = np.random.default_rng([settings.seed, count])
        # An image has the same copies in every split of a draw, as it has of one encoding.
        numbers = rng.integers(1, self._pool.copy.max() + 1, (count, len(self.labels)))
        draws = [[self._redraw(self.rows(split), number) for split in splits] for number in numbers]
        if settings.solver == "adamw":
            pairs = [pair for draw in draws for pair in draw]
            seeds = run_seeds(settings.seed, len(pairs))
            runs = self.judge(self._fit_each(pairs, seeds, settings.progress)).answers
            return [
                dataclasses.replace(runs, predictions=predictions, ranks=ranks)
                for predictions, ranks in zip(
                    np.split(runs.predictions, count), np.split(runs.ranks, count), strict=True
                )
            ]
        every = self._all(splits)
        finals = [self._redraw((every, every), number)[0] for number in numbers]
        return [
            self.judge(self._cross_validated(pairs, final, settings.progress)).answers
            for pairs, final in zip(draws, finals, strict=True)
        ]

    def _pairs(self, splits):
        """Training and validation rows of every run."""
        return [rows for split in splits for rows in [self.rows(split)] * self._settings.runs]

    def _all(self, splits: Sequence[Split]) -> Int[np.ndarray, "a"]:
        """Training rows of every patient that the splits name."""
        listed = np.concatenate([part for split in splits for part in split])
        return np.flatnonzero(self.trains & np.isin(self.owners, listed))

    def _redraw(self, pair, number: Int[np.ndarray, "n"]):
        """Training rows in whose place stand the copies of these numbers; validation as it is."""
        train, validation = pair
        first = train - self._pool.copy[train]  # the clean row, before those of its copies
        return first + number[train], validation

    def _cross_validated(self, pairs, final_rows, progress: bool) -> LinearProbes:
        return logistic.fit_cross_validated(
            self.features,
            self.labels,
            *zip(*pairs, strict=True),
            num_classes=len(self.task.classes),
            penalties=self._settings.penalties,
            final_rows=final_rows,
            progress=progress,
        )

    def _fit_each(self, pairs, seeds, progress: bool) -> LinearProbes:
        settings, classes = self._settings, len(self.task.classes)
        data = self.features, self.labels, *zip(*pairs, strict=True)
        if settings.solver == "adamw":
            return linear.fit(
                *data, num_classes=classes, config=settings.head(), seeds=seeds, progress=progress
            )
        return logistic.fit_chosen(
            *data, num_classes=classes, penalties=settings.penalties, progress=progress
        )

    def judge(self, probes: LinearProbes) -> Classification:
        """Logits of every run for the test images; their mean probability is shown."""
        logits = probes.logits(self.test_features)
        # Runs are ranked by logits: probabilities near 0 and 1 would round to ties.
        return self.classified(logits, probabilities(logits).mean(0))

    def classified(
        self, scores: Float[np.ndarray, "runs n c"], shown: Float[np.ndarray, "n c"] | None = None
    ) -> Classification:
        """Scores of the test images, by which the classes compete; see `Classification`."""
        return Classification(
            scores, self.test_labels, self.task.classes, self.test, self.bootstrap(), shown
        )

    def out_of_fold(self, splits: Sequence[Split], probes: LinearProbes) -> Predictions:
        """Mean probabilities for each image of a validation fold, by probes that had not seen it.

        Args:
          splits: the folds.
          probes: as `fit` made them of the folds.
        """
        folds = probes.folds or probes
        runs = len(folds.bias) // len(splits)
        total = np.zeros((len(self.labels), len(self.task.classes)))
        times = np.zeros(len(self.labels), int)
        for fold, split in enumerate(splits):
            _, rows = self.rows(split)
            own = slice(fold * runs, (fold + 1) * runs)
            part = LinearProbes(folds.weight[own], folds.bias[own], folds.validation_loss[own])
            total[rows] += probabilities(part.logits(self.features[rows])).mean(0)
            times[rows] += 1
        rows = np.flatnonzero(times)
        scores, names = total[rows] / times[rows, None], np.array(self.task.classes, np.str_)
        images = self._pool.select(rows)
        return Predictions(
            example_id=images.columns["example_id"],
            patient_id=images.columns["patient_id"],
            label=names[self.labels[rows]],
            prediction=names[scores.argmax(-1)],
            candidates=self.task.classes,
            scores=scores,
            groups=group_columns(images),
        )

    def bootstrap(self) -> Bootstrap:
        settings = self._settings
        groups = self.test.bootstrap_groups(settings.resample_by)
        return Bootstrap(groups, settings.resamples, settings.seed)


def check_apart(fit: FeatureStore, test: FeatureStore) -> Patients:
    """The patients of both stores.

    Raises:
      ValueError: stores of two models, or patients in both.
    """
    test.check_model(fit.fingerprint.get("model"))
    found = Patients(np.unique(fit.patients()), np.unique(test.patients()))
    leaked = np.intersect1d(found.fit, found.test)
    if len(leaked):
        raise ValueError(
            f"{len(leaked)} patients are in the images to learn from and in the test set, such as "
            f"{str(leaked[0])!r}: a probe would be tested on patients it trained on"
        )
    return found


def _inputs(store: FeatureStore, inputs: str, scaling: str) -> Float[np.ndarray, "n d"]:
    found = store.image_features
    if inputs == "raw_pixels":
        found = store.raw_pixels.astype(np.float32) / 255
    require_finite(f"the {inputs.replace('_', ' ')}", found, store.columns["example_id"])
    if scaling != "unit":
        return found
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def probabilities(logits: Float[np.ndarray, "runs n c"]) -> Float[np.ndarray, "runs n c"]:
    """The softmax of logits, in float64."""
    exact = logits.astype(np.float64)
    odds = np.exp(exact - exact.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def run_seeds(seed: int, count: int) -> np.ndarray:
    """Seeds that differ between runs and between studies of another `seed`."""
    return np.random.default_rng([seed, count]).integers(0, 2**32, count, dtype=np.uint32)
