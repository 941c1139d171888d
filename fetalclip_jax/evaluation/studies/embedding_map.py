"""A map of the image features, coloured by a column, and whether neighbours share its values."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fetalclip_jax.data.columns import NUMBER_COLUMNS
from fetalclip_jax.evaluation import projection
from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.studies.tasks import COLUMNS
from fetalclip_jax.evaluation.study import Need

PROTOCOLS = {"default": {}, "paper": {"role": "all", "resample_by": "image"}}
METHODS = ("pca", "umap")
# After Okabe and Ito; with five markers beside them 40 values are told apart.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#AA4499"),
    *("#E69F00", "#56B4E9", "#1f2933", "#999933"),
)
_MARKERS = "os^Dv"
_MOST_VALUES = len(_COLOURS) * len(_MARKERS)
_DOTS_PER_INCH = 110

AGREEMENT = "neighbour_agreement"


@dataclasses.dataclass(frozen=True)
class MapSettings(Settings):
    """Options of a map.

    Attributes:
      role: images that are drawn, "test" or "all".
      method: of `METHODS`.
      neighbours: how many are asked, of other patients.
    """

    role: str = "test"
    method: str = "pca"
    neighbours: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is not one of {', '.join(METHODS)}")
        if self.neighbours < 1:
            raise ValueError(f"neighbours={self.neighbours} must be at least 1")


class EmbeddingMap:
    """A map coloured by "planes", "brain", or a column: a label, or a number such as ga_days."""

    settings_type = MapSettings

    def __init__(self, task: str, **options):
        self.name, self.column = f"embedding_map.{task}", COLUMNS.get(task, task)
        self.settings = resolve(self.name, self.settings_type, PROTOCOLS, options)
        is_number = self.column in NUMBER_COLUMNS
        self.scores = {_metric(self.column): True} if is_number else {AGREEMENT: False}
        self.needs = (Need("images", self.settings.role, columns=(self.column,)),)

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Maps the clean images of `stores["images"]`; see `evaluation.study.Study`."""
        settings = self.settings
        store = stores["images"]
        store.check_model(model.fingerprint)
        store = store.clean()
        values = _values(self.name, store, self.column)
        there = projection.known(values)
        left_out = {f"no {self.column}": int((~there).sum())}
        store, values = store.select(np.flatnonzero(there)), values[there]
        unit, thumbnails = (
            _unit(one) for one in (store.image_features, store.raw_pixels.astype(np.float32))
        )
        groups = store.patients()
        nearest = {
            "features": projection.neighbours(unit, groups, settings.neighbours),
            "pixels": projection.neighbours(thumbnails, groups, settings.neighbours),
        }
        plane = (
            projection.pca(unit)
            if settings.method == "pca"
            else projection.umap(unit, seed=settings.seed)
        )
        found = _predictions(store, self.column, groups, nearest, plane.points)
        bootstrap = Bootstrap(
            store.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(self.measures(found)),
            protocol=settings.to_json(),
            baselines=_baselines(found, bootstrap),
            details={
                "resample_by": settings.resample_by,
                "patients": len(set(groups)),
                "left_out": left_out,
                "column": self.column,
                "method": settings.method,
                "explained": list(plane.explained),
            },
            predictions=found,
            pictures=[_picture(plane, values, self.column)],
        )

    @staticmethod
    def measures(predictions: Predictions, task: str = "") -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        del task
        rows = np.arange(len(predictions.example_id))
        return {
            name: Measured(_mean(name, values), rows)
            for name, values in predictions.extra.items()
            if name.startswith("neighbour_")
        }


def _metric(column: str) -> str:
    """How far neighbours are off in a column of numbers, in its unit."""
    return f"neighbour_error_{column.rpartition('_')[2]}"


def _mean(name: str, values: np.ndarray) -> measure.OfSums:
    return measure.mean(values, "unit" if name.endswith("agreement") else "positive")


def _values(study: str, store: FeatureStore, name: str) -> np.ndarray:
    """The column to colour by.

    Raises:
      ValueError: there is none, it has one value or none, or more texts than colours.
    """
    if name not in store.columns:
        raise ValueError(
            f"{study}: the data set has no column {name!r} to colour by; it has "
            f"{', '.join(sorted(store.columns))}"
        )
    values = store.columns[name]
    found = sorted(set(values[projection.known(values)].tolist()))
    if len(found) < 2:
        raise ValueError(
            f"{study}: column {name!r} has {found[0] if found else 'no value'} alone: nothing is "
            "told apart; colour by another column"
        )
    if values.dtype.kind == "U" and len(found) > _MOST_VALUES:
        raise ValueError(
            f"{study}: column {name!r} has {len(found)} values, of which at most {_MOST_VALUES} "
            "can be told apart; colour by another column"
        )
    return values


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _predictions(
    store: FeatureStore,
    column: str,
    groups: np.ndarray,
    nearest: Mapping[str, np.ndarray],
    points: np.ndarray,
) -> Predictions:
    """The map as columns, and what the neighbours of each image say of its value."""
    values = store.columns[column]
    if values.dtype.kind == "f":
        prediction = values[nearest["features"]].mean(axis=1)
        extra = {
            # In its unit: of ga_days in days.
            _metric(column): projection.difference(values, nearest["features"]),
            "chance": projection.chance_difference(values, groups),
            "raw_pixels": projection.difference(values, nearest["pixels"]),
        }
    else:
        names, codes = np.unique(values, return_inverse=True)
        votes = np.eye(len(names))[codes[nearest["features"]]].sum(axis=1)
        prediction = names[votes.argmax(axis=1)]
        extra = {
            AGREEMENT: projection.agreement(values, nearest["features"]),
            "chance": projection.chance_agreement(values, groups),
            "raw_pixels": projection.agreement(values, nearest["pixels"]),
        }
    return Predictions(
        example_id=store.columns["example_id"],
        patient_id=store.columns["patient_id"],
        label=values,
        prediction=prediction,
        extra={"x": points[:, 0], "y": points[:, 1]} | extra,
        groups=group_columns(store),
    )


def _baselines(found: Predictions, bootstrap: Bootstrap) -> dict[str, Baseline]:
    metric = next(name for name in found.extra if name.startswith("neighbour_"))
    words = {
        "chance": "chance: all images of other patients in place of neighbours",
        "raw_pixels": "neighbours by 16 x 16 raw pixels",
    }
    return {
        name: Baseline(metric, bootstrap.estimate(_mean(metric, found.extra[name])), described)
        for name, described in words.items()
    }


def _picture(plane: projection.Plane, values: np.ndarray, column: str) -> Picture:
    column = column.replace("_", " ")
    figure = Figure((8.4, 5.6), dpi=_DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    # Small where there are many.
    size = float(np.clip(9000 / len(values), 4, 36))
    x, y = plane.points.T
    if values.dtype.kind == "f":
        drawn = axes.scatter(x, y, c=values, s=size, cmap="viridis", lw=0, alpha=0.85)
        figure.colorbar(drawn, label=column)
    else:
        names = sorted(set(values.tolist()))
        for place, name in enumerate(names):
            turn, colour = divmod(place, len(_COLOURS))
            mark = _MARKERS[(colour + turn) % len(_MARKERS)]
            rows = values == name
            label = f"{name.replace('_', ' ')} ({rows.sum():,})"
            axes.scatter(
                x[rows], y[rows],
                c=_COLOURS[colour], marker=mark, s=size, lw=0, alpha=0.75, label=label,
            )  # fmt: skip
        legend = figure.legend(
            loc="outside right upper",
            title=column,
            frameon=False,
            fontsize=9,
            markerscale=6 / size**0.5,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", "datalim")
    axes.spines[["top", "right"]].set_visible(False)
    for side, axis in zip("xy", (axes.xaxis, axes.yaxis), strict=True):
        if plane.explained:
            share = plane.explained["xy".index(side)]
            axis.set_label_text(
                f"component {'xy'.index(side) + 1}: {100 * share:.0f} % of variance"
            )
    canvas.draw()
    return Picture(
        "map",
        np.asarray(canvas.buffer_rgba())[..., :3].copy(),
        _caption(plane, len(values), column),
        f"A map of {len(values)} image features, coloured by {column}",
    )


def _caption(plane: projection.Plane, count: int, column: str) -> str:
    if plane.explained:
        how = (
            "the two directions of the largest variance, which hold "
            f"{100 * sum(plane.explained):.0f} % of it"
        )
    else:
        how = "UMAP by cosine, in which near means similar and distances and axes mean nothing"
    return (
        f"Each point is one of {count:,} images: its feature, of length one, in {how}. The colour "
        f"is {column}, which the map has not seen."
    )
