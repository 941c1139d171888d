"""Outlines that one or several decoders drew on the same images, and the measures of them.

Studies make them of masks; analyses make them again of saved predictions, so that a metric is
defined once. Every metric is the mean over the runs.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.evaluation.statistics import segmentation
from fetalclip_jax.evaluation.statistics.agreement import LIMITS
from fetalclip_jax.evaluation.statistics.measure import Measured, OfSums
from fetalclip_jax.labels import structures

# What is kept of each structure, in this order, before the circumference.
_OF_STRUCTURE = 3


def scores(task: str) -> dict[str, bool]:
    """Metric -> whether less of it is better, of a task as `labels.OUTLINED` names it."""
    outlined = structures(task)
    of_images = {"dice": False, "image_dice": False, "hausdorff95_mm": True}
    found = dict(of_images)
    if len(outlined) > 1:
        found |= {f"{name}_{one}": less for one in outlined for name, less in of_images.items()}
    return found | ({"hc_mae_mm": True} if "head" in outlined else {})


@dataclasses.dataclass(frozen=True)
class Outlines:
    """What each run drew, as numbers of each image and structure.

    Attributes:
      structures: names.
      true: pixels of the true masks.
      intersection: pixels of both masks.
      predicted: pixels of the predicted masks.
      hausdorff95_mm: see `statistics.segmentation.hausdorff95`; nan where it is not defined.
      hc_mm: circumference of the fitted ellipse, nan where none is plausible; None where the
        structure is no head.
      true_hc_mm: as measured, nan where it is not known; None with `hc_mm`.
    """

    structures: tuple[str, ...]
    true: Int[np.ndarray, "n k"]
    intersection: Float[np.ndarray, "m n k"]
    predicted: Float[np.ndarray, "m n k"]
    hausdorff95_mm: Float[np.ndarray, "m n k"]
    hc_mm: Float[np.ndarray, "m n"] | None = None
    true_hc_mm: Float[np.ndarray, "n"] | None = None

    @classmethod
    def of(cls, predictions: Predictions, run: str = "") -> "Outlines":
        """Those that a result keeps.

        Args:
          run: key of `Predictions.runs`.

        Raises:
          ValueError: no such key, or arrays that are not those of outlines.
        """
        structures = tuple(predictions.candidates)
        try:
            kept = np.asarray(predictions.runs[run], np.float64)  # m n q
            true = [predictions.extra[f"{name}_true_pixels"] for name in structures]
        except KeyError as error:
            raise ValueError(
                f"the predictions hold no outlines of runs {run!r} ({error} is missing); "
                "evaluate again"
            ) from error
        count = len(structures)
        parts = kept[..., : _OF_STRUCTURE * count].reshape(*kept.shape[:2], _OF_STRUCTURE, count)
        is_head = kept.shape[-1] > _OF_STRUCTURE * count
        return cls(
            structures,
            np.stack(true, 1).astype(np.int64),
            *np.moveaxis(parts, 2, 0),
            hc_mm=kept[..., -1] if is_head else None,
            true_hc_mm=predictions.extra["hc_mm"].astype(np.float64) if is_head else None,
        )

    def kept(self) -> Float[np.ndarray, "m n q"]:
        """What `of` reads, as one array; pixel counts are exact in float32, and so kept."""
        parts = [self.intersection, self.predicted, self.hausdorff95_mm]
        if self.hc_mm is not None:
            parts.append(self.hc_mm[..., None])
        return np.concatenate(parts, -1).astype(np.float32)

    def columns(self) -> dict[str, np.ndarray]:
        """Those of the CSV, by name: the mean over the runs, nan where no run has a number."""
        found = {}
        dice, distance = _over_runs(self.image_dice), _over_runs(self.hausdorff95_mm)
        for k, name in enumerate(self.structures):
            found[f"{name}_true_pixels"] = self.true[:, k]
            found[f"{name}_predicted_pixels"] = self.predicted[..., k].mean(0)
            found[f"{name}_dice"] = dice[:, k]
            found[f"{name}_hausdorff95_mm"] = distance[:, k]
        if self.hc_mm is not None:
            found |= {"hc_mm": self.true_hc_mm, "hc_mm_of_ellipse": _over_runs(self.hc_mm)}
        return found

    def of_run(self, run: int) -> "Outlines":
        """What one run drew."""
        own = {name: getattr(self, name) for name in ("intersection", "predicted")}
        own |= {"hausdorff95_mm": self.hausdorff95_mm, "hc_mm": self.hc_mm}
        chosen = {name: None if v is None else v[run : run + 1] for name, v in own.items()}
        return dataclasses.replace(self, **chosen)

    @property
    def image_dice(self) -> Float[np.ndarray, "m n k"]:
        """Dice of each image; nan where truth and prediction are both empty."""
        return segmentation.dice(self.intersection, self.predicted, self.true[None])

    @property
    def hc_difference_mm(self) -> Float[np.ndarray, "m n"]:
        """Fitted minus measured circumference; nan where either is lacking."""
        assert self.hc_mm is not None
        return self.hc_mm - self.true_hc_mm

    def run_dice(self) -> Float[np.ndarray, "m"]:
        """The pooled Dice of each run, the mean over the structures."""
        sums = segmentation.dice(self.intersection.sum(1), self.predicted.sum(1), self.true.sum(0))
        return sums[:, self.true.sum(0) > 0].mean(1)

    def pooled_dice(self, structure: int | None = None) -> OfSums:
        """Of all pixels of all images: of one structure, or the mean over those that occur."""
        chosen = slice(None) if structure is None else slice(structure, structure + 1)
        true = self.true[:, chosen].astype(np.float64)
        runs, count = len(self.predicted), true.shape[1]
        found = [one[..., chosen].swapaxes(0, 1) for one in (self.intersection, self.predicted)]
        parts = [true, *(one.reshape(len(true), -1) for one in found)]

        def of_sums(sums):
            own = sums[..., None, :count]
            both, drawn = np.split(sums[..., count:], 2, -1)
            shape = *sums.shape[:-1], runs, count
            dice = segmentation.dice(both.reshape(shape), drawn.reshape(shape), own)
            return np.where(own > 0, dice, np.nan)

        return _Steady(np.concatenate(parts, 1).astype(np.float64), of_sums, "unit")

    def measures(self) -> dict[str, Measured]:
        """Every metric that has a value: means over the structures, and, of several, of each.

        Those of images are of the images that have a number.
        """
        everything = np.arange(len(self.true))
        by_image = {
            "image_dice": (self.image_dice, "unit"),
            "hausdorff95_mm": (self.hausdorff95_mm, "positive"),
        }
        found = {"dice": Measured(self.pooled_dice(), everything)}
        found |= {name: _of_numbers(*one) for name, one in by_image.items()}
        if len(self.structures) > 1:
            for k, structure in enumerate(self.structures):
                found[f"dice_{structure}"] = Measured(self.pooled_dice(k), everything)
                found |= {
                    f"{name}_{structure}": _of_numbers(values[..., k : k + 1], scale)
                    for name, (values, scale) in by_image.items()
                }
        found |= self._of_heads()
        return {name: one for name, one in found.items() if one.measure.defined}

    def undefined(self, spacing_mm: Float[np.ndarray, "n"]) -> dict[str, int]:
        """How many pairs of an image and a run have no number, by what is the matter.

        Args:
          spacing_mm: of a pixel of the masks, nan where it is not known.
        """
        found, spaced = {}, np.isfinite(spacing_mm)
        for k, name in enumerate(self.structures):
            missed = (self.predicted[..., k] == 0) & (self.true[:, k] > 0)
            invented = (self.predicted[..., k] > 0) & (self.true[:, k] == 0)
            neither = (self.predicted[..., k] == 0) & (self.true[:, k] == 0)
            unspaced = (self.predicted[..., k] > 0) & (self.true[:, k] > 0) & ~spaced
            found |= {
                f"{name}: nothing drawn, no Hausdorff distance": int(missed.sum()),
                f"{name}: drawn where there is none, no Hausdorff distance": int(invented.sum()),
                f"{name}: neither there nor drawn, no Dice of the image": int(neither.sum()),
                f"{name}: no pixel spacing, no Hausdorff distance": int(unspaced.sum()),
            }
        if self.hc_mm is not None:
            k = self.structures.index("head")
            there = (self.predicted[..., k] > 0) | (self.true[:, k] > 0)
            unfit = np.isnan(self.hc_mm) & there & spaced
            unmeasured = np.isfinite(self.hc_mm) & np.isnan(self.true_hc_mm)
            found |= {
                "head: no pixel spacing, no circumference": int((there & ~spaced).sum()),
                "head: no plausible ellipse, no circumference": int(unfit.sum()),
                "head: never measured, no error of the circumference": int(unmeasured.sum()),
            }
        return {reason: count for reason, count in found.items() if count}

    def _of_heads(self) -> dict[str, Measured]:
        """Fitted against measured circumferences, of the images with both."""
        if self.hc_mm is None:
            return {}
        difference = self.hc_difference_mm[..., None]
        bias = _of_numbers(difference, "real")
        if len(bias.rows) < 2:
            return {}
        own = difference[:, bias.rows]
        return {
            "hc_mae_mm": _of_numbers(np.abs(difference), "positive"),
            "hc_bias_mm": bias,
            "hc_lower_limit_mm": Measured(_limit(own, -LIMITS), bias.rows),
            "hc_upper_limit_mm": Measured(_limit(own, LIMITS), bias.rows),
        }


def _over_runs(values: Float[np.ndarray, "m n *k"]) -> Float[np.ndarray, "n *k"]:
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _mean(values: Float[np.ndarray, "*r m k"]) -> Float[np.ndarray, "*r"]:
    """Over the structures that have a number, then over the runs that have one; else nan."""
    for _ in range(2):
        known = np.isfinite(values)
        count = known.sum(-1)
        total = np.where(known, values, 0).sum(-1)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return values


class _Steady(OfSums):
    """A mean over structures and runs that is its own value in a resample that says nothing of it.

    A structure that few patients show is lacking in some resamples; they add no spread. Some of the
    images have a value of their own, or none.

    Args:
      parts, scale: see `OfSums`.
      plain: sums [..., q] -> what the mean is over [..., m, k], nan where there is no value.
    """

    def __init__(
        self, parts: Float[np.ndarray, "n q"], plain: Callable[[np.ndarray], np.ndarray], scale: str
    ):
        whole = _mean(plain(parts.sum(0)))

        def filled(sums):
            found = _mean(plain(sums))
            return np.where(np.isfinite(found), found, whole)

        super().__init__(parts, filled, scale)
        object.__setattr__(self, "_plain", plain)

    @property
    def defined(self) -> bool:
        return bool(np.isfinite(self.value))

    @property
    def over(self) -> tuple[bool, ...]:
        return tuple(np.isfinite(self._plain(self.parts.sum(0))).any(0).tolist())

    def select(self, rows: np.ndarray) -> "_Steady":
        return _Steady(self.parts[rows], self._plain, self.scale)


class _MeanDefined(_Steady):
    """The mean over the images that have a number, of each run and structure, and then of those."""

    def __init__(self, values: Float[np.ndarray, "m n k"], scale: str):
        runs, images, count = values.shape
        known = np.isfinite(values)
        parts = [np.where(known, values, 0), known.astype(np.float64)]
        flat = [one.swapaxes(0, 1).reshape(images, runs * count) for one in parts]

        def of_sums(sums):
            total, times = (
                one.reshape(*sums.shape[:-1], runs, count) for one in np.split(sums, 2, -1)
            )
            return np.where(times > 0, total / np.where(times > 0, times, 1), np.nan)

        super().__init__(np.concatenate(flat, 1), of_sums, scale)
        object.__setattr__(self, "_values", values)

    def select(self, rows: np.ndarray) -> "_MeanDefined":
        return _MeanDefined(self._values[:, rows], self.scale)

    def beside(self, other: "_MeanDefined") -> tuple["_MeanDefined", "_MeanDefined"]:
        """Of structures of images that both have a number of: to miss one is no win."""
        pair = self._values, other._values
        known = np.logical_and(*(np.isfinite(one).any(0) for one in pair))
        first, second = (np.where(known, one, np.nan) for one in pair)
        return _MeanDefined(first, self.scale), _MeanDefined(second, other.scale)


def _of_numbers(values: Float[np.ndarray, "m n k"], scale: str) -> Measured:
    """The mean of the images that have a number, in any run and of any structure."""
    rows = np.flatnonzero(np.isfinite(values).any((0, 2)))
    return Measured(_MeanDefined(values[:, rows], scale), rows)


def _limit(values: Float[np.ndarray, "m n 1"], deviations: float) -> OfSums:
    """The mean difference plus so many standard deviations, of each run, then over the runs."""
    runs, images, _ = values.shape
    known = np.isfinite(values)
    filled = np.where(known, values, 0)
    flat = [one.swapaxes(0, 1).reshape(images, runs) for one in (filled, filled**2, known)]

    def of_sums(sums):
        total, squares, times = (
            one.reshape(*sums.shape[:-1], runs, 1) for one in np.split(sums, 3, -1)
        )
        mean = total / np.maximum(times, 1)
        variance = np.maximum(squares - times * mean**2, 0) / np.maximum(times - 1, 1)
        return np.where(times > 1, mean + deviations * np.sqrt(variance), np.nan)

    return _Steady(np.concatenate(flat, 1).astype(np.float64), of_sums, "real")


def of_result(predictions: Predictions) -> Mapping[str, Measured]:
    """The metrics of a result; of a curve those at its largest size."""
    largest = max(predictions.runs, key=lambda key: int(key or 0), default="")
    return Outlines.of(predictions, largest).measures()
