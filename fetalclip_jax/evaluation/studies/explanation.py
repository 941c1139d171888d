"""Explanation: does the model see a plane where the structure is that makes it that plane?

Activation maps of the image tower, for the prompts of the plane that an image shows, against the
outline of a structure: the share of a map's mass inside it, and whether its largest value is.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int

from fetalclip_jax.captions import prompts as prompt_files
from fetalclip_jax.evaluation.class_features import embed_classes
from fetalclip_jax.evaluation.explanation import cam, overlays, pointing
from fetalclip_jax.evaluation.features.pixels import PixelStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.labels import OUTLINED

# What needs no model, by the beginning of its columns.
_WITHOUT_MODEL = {
    "chance": "chance: an even map",
    "centre": "a spot in the middle",
}
_BY_HASH = 2
# The paper publishes pictures alone: there is nothing else of its own to take over.
PROTOCOLS = {"default": {}, "paper": {"resample_by": "image"}}


@dataclasses.dataclass(frozen=True)
class ExplanationSettings(Settings):
    """Options of an explanation.

    Attributes:
      images: at most so many, those whose ids have the smallest hashes.
      methods: of `explanation.cam.METHODS`; the first one's maps are the headline.
      block: of the image tower, the first being 1; 0 for the last whose patches matter.
      prompts: a shipped set or a JSON file {class: [prompts]}.
      plane: the class of the prompts that is looked for, in images of that plane; "" for the plane
        in which the structure is outlined.
      against_others: the similarity with a class less the mean of those with the other classes of
        the prompts; without, that with the class alone, which much of any prompt shares.
      channels: that Score-CAM shows, those that vary most; 0 for all of them.
      batch_size: images per call of the image tower.
      progress: show progress bars.
    """

    images: int = 100
    methods: tuple[str, ...] = cam.METHODS
    block: int = 0
    prompts: str = "planes"
    plane: str = ""
    against_others: bool = True
    channels: int = 32
    batch_size: int = 32
    progress: bool = True

    def __post_init__(self):
        super().__post_init__()
        unknown = sorted(set(self.methods) - set(cam.METHODS))
        if unknown or not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"methods={self.methods} must be some of {', '.join(cam.METHODS)}, each once"
            )
        if self.images < 1 or self.batch_size < 1 or self.channels < 0 or self.block < 0:
            raise ValueError(
                f"images={self.images} and batch_size={self.batch_size} must be at least 1, "
                f"channels={self.channels} and block={self.block} at least 0"
            )


class Explanation:
    """Maps for the images of one structure: "head", "abdomen", or any other that is outlined."""

    settings_type = ExplanationSettings

    def __init__(self, structure: str, **options):
        self.name, self.structure = f"explanation.{structure}", structure
        self.settings = resolve(self.name, self.settings_type, PROTOCOLS, options)
        self.prompts = prompt_files.load_prompts(self.settings.prompts)
        first, *others = self.settings.methods
        self.scores = dict.fromkeys((f"{first}_mass", *(f"{one}_mass" for one in others)), False)
        self.scores[f"{first}_hits"] = False
        self.plane = self.settings.plane or _plane_of(structure)
        if self.plane not in self.prompts:
            raise ValueError(
                f"{self.name}: the prompts {self.settings.prompts!r} have no class "
                f"{self.plane!r}, only {', '.join(self.prompts)}; add it, or name another by plane"
            )
        if self.settings.against_others and len(self.prompts) < 2:
            raise ValueError(
                f"{self.name}: the prompts have the class {self.plane!r} alone and nothing to set "
                "it against; add classes, or set against_others to False"
            )
        self.needs = (
            Need(
                *("images", "test"),
                columns=("plane",),
                only={"plane": (self.plane,)},
                level="pixels",
                masks=(structure,),
                how={"images": self.settings.images},
            ),
        )

    def run(self, stores: Mapping[str, PixelStore], model) -> Result:
        """Judges the maps of the images of `stores["images"]`; see `evaluation.study.Study`."""
        settings = self.settings
        store = stores["images"]
        store.check_model(model.fingerprint)
        # A structure that is empty at the model's size cannot be pointed at.
        seen = store.mask(self.structure).any((1, 2))
        if not seen.any():
            raise ValueError(
                f"{self.name}: {self.structure!r} is empty in all {len(store)} images of plane "
                f"{self.plane!r}; choose another structure or a model of larger images"
            )
        left_out = {
            f"no outline of {name}": count for name, count in store.without_outline.items()
        } | {
            f"empty outline of {self.structure}": int((~seen).sum()),
            f"not among the {settings.images} chosen by hash": (
                store.candidates
                - len(store)
                - len(store.left_out)
                - sum(store.without_outline.values())
            ),
        }
        store = store.select(np.flatnonzero(seen))
        block = cam.choose_block(model.config.vision_cfg, settings.block)
        heat, empty = self._maps(store, model, block)
        found = _predictions(store, self.structure, heat)
        bootstrap = Bootstrap(
            store.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(self.measures(found)),
            protocol=settings.to_json(leave_out=("progress",)),
            baselines=_baselines(found, self.measures(found), bootstrap),
            details={
                "resample_by": settings.resample_by,
                "patients": len(set(store.patients())),
                "left_out": left_out,
                "structure": self.structure,
                "plane": self.plane,
                "block": block,
                "blocks": model.config.vision_cfg.layers,
                "empty_maps": empty,
            },
            predictions=found,
            pictures=[_picture(store, self.structure, heat, found)],
        )

    @staticmethod
    def measures(predictions: Predictions, structure: str = "") -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        del structure
        rows = np.arange(len(predictions.example_id))
        masses = [name for name in predictions.extra if name.endswith("_cam_mass")]
        # Of the other methods the hits are columns of the CSV: one classic game is enough.
        names = [*masses, masses[0].replace("_mass", "_hits")]
        return {name: Measured(measure.mean(predictions.extra[name]), rows) for name in names}

    def _maps(
        self, store: PixelStore, model, block: int
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Maps of the size of the images by method, and how many of each are 0 everywhere."""
        settings = self.settings
        classes = embed_classes(model, self.prompts)
        at = list(self.prompts).index(self.plane)
        target = cam.target(classes, at, settings.against_others)
        pixels = np.asarray(store.pixels)
        heat, empty = {}, {}
        for method in settings.methods:
            small = cam.heat_maps(
                *(method, model, pixels, np.repeat(target[None], len(store), axis=0), block),
                channels=settings.channels,
                batch_size=settings.batch_size,
                progress=settings.progress,
            )
            large = np.asarray(cam.upsample(small, pixels.shape[1]))
            heat[method], without = pointing.or_even(large, pointing.content(pixels))
            empty[method] = int(without.sum())
        return heat, empty


def _plane_of(structure: str) -> str:
    """The plane in which a structure is outlined.

    Raises:
      ValueError: a structure that none of ours is.
    """
    for task in OUTLINED.values():
        if structure in task.structures:
            return task.plane
    known = dict.fromkeys(one for task in OUTLINED.values() for one in task.structures)
    raise ValueError(
        f"explanation.{structure}: which prompts speak of {structure!r} is not known, only of "
        f"{', '.join(known)}; name the class of the prompts that shows it by plane"
    )


def _predictions(
    store: PixelStore, structure: str, heat: Mapping[str, Float[np.ndarray, "n s s"]]
) -> Predictions:
    masks, inside = store.mask(structure), pointing.content(np.asarray(store.pixels))
    maps = dict(heat) | {"chance": pointing.even(inside), "centre": pointing.central(inside)}
    first = next(iter(heat))
    extra = {f"{name}_mass": pointing.mass_inside(one, masks) for name, one in maps.items()}
    extra |= {f"{name}_hits": pointing.hits(one, masks) for name, one in maps.items()}
    return Predictions(
        example_id=store.columns["example_id"],
        patient_id=store.columns["patient_id"],
        label=np.full(len(store), structure),
        prediction=np.where(extra[f"{first}_hits"] > 0.5, structure, "elsewhere"),
        extra=extra,
        groups=group_columns(store),
    )


def _baselines(
    found: Predictions, metrics: Iterable[str], bootstrap: Bootstrap
) -> dict[str, Baseline]:
    """Maps without a model beside every metric."""
    return {
        f"{kind}_{metric}": Baseline(
            metric,
            bootstrap.estimate(measure.mean(found.extra[f"{kind}_{metric.rpartition('_')[2]}"])),
            words,
        )
        for metric in metrics
        for kind, words in _WITHOUT_MODEL.items()
    }


def _picture(
    store: PixelStore,
    structure: str,
    heat: Mapping[str, Float[np.ndarray, "n s s"]],
    found: Predictions,
) -> Picture:
    """The best, the median and the worst map of the first method, and some by hash."""
    first = next(iter(heat))
    rows, ranks = _chosen(found.extra[f"{first}_mass"], found.example_id)
    notes = {
        name: [f"{100 * found.extra[f'{name}_mass'][row]:.0f} % inside" for row in rows]
        for name in heat
    }
    image = overlays.sheet(
        np.asarray(store.pixels)[rows],
        {name: one[rows] for name, one in heat.items()},
        ranks,
        store.mask(structure)[rows],
        notes,
    )
    shown = ", ".join(
        f"{rank} {name}" for rank, name in zip(ranks, found.example_id[rows], strict=True)
    )
    words = structure.replace("_", " ")
    return Picture(
        f"maps_{structure}",
        image,
        f"Where the model sees the plane: bright is much, the line is the outline of the {words}. "
        f"Best, median and worst by the share of the {overlays.NAMES[first]} inside the outline, "
        f"the others by the hash of their ids: {shown}.",
        f"{len(rows)} ultrasound images with activation maps and the outline of the {words}",
    )


def _chosen(
    mass: Float[np.ndarray, "n"], names: np.ndarray
) -> tuple[Int[np.ndarray, "_"], list[str]]:
    """Rows that are shown, and why."""
    order = np.argsort(-mass, kind="stable")
    chosen = {int(order[0]): "best"}
    chosen.setdefault(int(order[len(order) // 2]), "median")
    chosen.setdefault(int(order[-1]), "worst")
    by_hash = sorted(
        range(len(names)), key=lambda row: hashlib.sha256(str(names[row]).encode()).digest()
    )
    for row in [row for row in by_hash if row not in chosen][:_BY_HASH]:
        chosen[row] = "by hash"
    return np.array(list(chosen)), list(chosen.values())
