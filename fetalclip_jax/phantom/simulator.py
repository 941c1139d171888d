"""The phantom: every example a pure function of (seed, index)."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.labels import BRAIN_PLANES, OTHER, PLANES
from fetalclip_jax.phantom import (
    anatomy_brain,
    anatomy_face_limb,
    anatomy_heart,
    anatomy_trunk,
    growth,
    machine,
    rendering,
    surroundings,
)
from fetalclip_jax.phantom.scene import Scene
from fetalclip_jax.phantom.shapes import Pose
from fetalclip_jax.phantom.surroundings import Window

PLANE_WEIGHTS = {
    "brain": 0.36,
    "heart": 0.13,
    "abdomen": 0.12,
    "femur": 0.09,
    "cervix": 0.09,
    "other": 0.06,
    "kidney": 0.05,
    "lips_nose": 0.05,
    "profile_patient": 0.05,
    "spine": 0.05,
}
# Of trans-thalamic, trans-cerebellum and trans-ventricular planes. The anomaly scan looks for all
# three; later scans measure the head, in the first.
_EARLY_BRAIN_PLANES, _LATE_BRAIN_PLANES = np.array([(0.3, 0.35, 0.35), (0.7, 0.15, 0.15)])
_EARLY_WEEKS, _LATE_WEEKS = 22.0, 28.0
# How much darker late heads are shown than early ones, in dB of what is white.
_HEADS_DARKEN_DB = 4.0
_MASKED_PLANES = ("brain", "abdomen", "heart")
_MIN_SIZE = 32
# Changes whenever the same (seed, index) shows another picture; records made before do not mix.
VERSION = 7
# Share of an image's field of view that a clip shows.
CLIP_FIELD = 0.75
# How much closer than at the head operators look; the rest 1.15.
_ZOOM = {
    "brain": 1.15,
    "cervix": 1.0,
    "abdomen": 1.25,
    "heart": 1.6,
    "femur": 1.3,
    "kidney": 1.6,
    "spine": 1.0,
    "lips_nose": 1.6,
    "profile_patient": 1.4,
}
# Which share of the structure's length has to lie inside the window; the rest may be cut.
_SHOWN = {
    "abdomen": 0.95,
    "heart": 0.75,
    "kidney": 0.95,
    "femur": 0.95,
    "lips_nose": 0.8,
    "profile_patient": 0.7,
}
# Planes that are mostly seen lying across the beam.
_LEVEL_PLANES = ("brain", "femur", "spine", "profile_patient")
# Where pulse and beam have the size that the machine states.
_USUAL_FIELD_MM = 115.0
# Streams of random numbers that must not overlap.
_PATIENT, _IMAGE, _SECOND_IMAGE = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class PhantomExample:
    """An image and everything that is true of it, in the fields of `data.example.Example`.

    Attributes:
      image: uint8 [H, W]; None where it was not drawn.
      masks: structure name -> bool [H, W]; None where none were asked for.
      fetus: the measurements all images of the patient share.
    """

    example_id: str
    image: np.ndarray | None
    ga_days: int
    pixel_spacing_mm: float
    plane: str
    brain_plane: str | None
    hc_mm: float | None
    patient_id: str
    label: str | None
    masks: Mapping[str, np.ndarray] | None
    fetus: growth.Fetus


@dataclasses.dataclass(frozen=True)
class _View:
    """Everything about one image but its speckle."""

    plane: str
    brain_plane: str | None
    fetus: growth.Fetus
    style: machine.Machine
    shape: tuple[int, int]
    spacing_mm: float

    @property
    def display(self) -> machine.Machine:
        """The machine as it is set for what is seen: late heads are shown dark."""
        if self.plane != "brain":
            return self.style
        darker = _HEADS_DARKEN_DB * (growth.maturity(self.fetus.ga_days) - 0.4)
        white_db = min(self.style.white_db + darker, machine.WHITE_DB[1])
        return dataclasses.replace(self.style, white_db=white_db)


class Phantom:
    """An endless, indexable set of simulated fetal ultrasound images.

    Args:
      seed: of everything.
      image_size: longer side of the images in pixels, at least 32.
      images_per_patient: consecutive images that show one fetus.
      plane_weights: plane -> relative frequency; default `PLANE_WEIGHTS`.
      with_masks: whether examples carry truth masks (brain, abdomen and heart have them).

    Raises:
      ValueError: for a size, patient size or plane that cannot be drawn.
    """

    def __init__(
        self,
        seed: int,
        image_size: int = 96,
        images_per_patient: int = 6,
        plane_weights: Mapping[str, float] | None = None,
        with_masks: bool = False,
    ):
        weights = dict(PLANE_WEIGHTS if plane_weights is None else plane_weights)
        unknown = sorted(set(weights) - set(PLANES) - {OTHER})
        if unknown:
            raise ValueError(
                f"plane_weights names {unknown}; the phantom draws {sorted([*PLANES, OTHER])}"
            )
        if min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"plane_weights must be >= 0 with a positive sum, found {weights}")
        if image_size < _MIN_SIZE:
            raise ValueError(f"image_size {image_size} is too small; use {_MIN_SIZE} or more")
        if images_per_patient < 1:
            raise ValueError(f"images_per_patient must be at least 1, found {images_per_patient}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, found {seed}")
        self.seed = seed
        self.image_size = image_size
        self.images_per_patient = images_per_patient
        self.plane_weights = weights
        self.with_masks = with_masks

    def __getitem__(self, index: int) -> PhantomExample:
        """The example at `index` (any integer >= 0).

        Raises:
          IndexError: for a negative index.
        """
        index = int(index)
        if index < 0:
            raise IndexError(f"index {index} is negative; the phantom has no end to count from")
        rng = self._rng(_IMAGE, index)
        view = self._view(rng, index)
        scene, geometry = _compose(rng, view, phase=None)
        image = rendering.render(scene, geometry, view.display, rng, view.shape, view.spacing_mm)
        masks = None
        if self.with_masks and view.plane in _MASKED_PLANES:
            masks = {
                name: rendering.mask(outlines, view.shape, view.spacing_mm)
                for name, outlines in scene.outlines.items()
            }
        return dataclasses.replace(self._described(index, view), image=image, masks=masks)

    def second_image(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """The fetus and plane of the example at `index`, in another pose, by another machine.

        Size, open part of the display and millimetres per pixel are the same, so that what is
        measured fits into this one too.
        """
        rng = self._rng(_SECOND_IMAGE, index)
        view = self._view(self._rng(_IMAGE, index), index)
        style = machine.draw_machine(rng)
        style = dataclasses.replace(style, aspect=view.style.aspect, band=view.style.band)
        style = _at_frequency_of(style, view.spacing_mm * self.image_size)
        view = dataclasses.replace(view, style=style)
        scene, geometry = _compose(rng, view, phase=None)
        return rendering.render(scene, geometry, view.display, rng, view.shape, view.spacing_mm)

    def bare(self, index: int) -> PhantomExample:
        """The example at `index` without its image, in a hundredth of the time."""
        return self._described(index, self._view(self._rng(_IMAGE, index), index))

    def _described(self, index: int, view: "_View") -> PhantomExample:
        return PhantomExample(
            example_id=f"phantom-{self.seed}-{index:07d}",
            image=None,
            ga_days=view.fetus.ga_days,
            pixel_spacing_mm=view.spacing_mm,
            plane=view.plane,
            brain_plane=view.brain_plane,
            hc_mm=view.fetus.hc_mm if view.plane == "brain" else None,
            patient_id=self.patient_id(index),
            label=view.fetus.heart_label if view.plane == "heart" else None,
            masks=None,
            fetus=view.fetus,
        )

    def clip(self, index: int, num_frames: int) -> UInt8[np.ndarray, "t h w"]:
        """A four-chamber clip over one heartbeat of the patient that `index` belongs to.

        The first frame shows full ventricles; the scan stands still while the heart beats. It is
        closer to the heart than an image, as in fetal echocardiography, and cuts it well.

        Raises:
          ValueError: for fewer than 1 frame.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, found {num_frames}")
        frames = []
        for frame in range(num_frames):
            rng = self._rng(_IMAGE, index)
            view = self._view(rng, index)
            closer = CLIP_FIELD * view.spacing_mm
            view = dataclasses.replace(view, plane="heart", brain_plane=None, spacing_mm=closer)
            scene, geometry = _compose(rng, view, phase=frame / num_frames)
            frames.append(
                rendering.render(scene, geometry, view.display, rng, view.shape, view.spacing_mm)
            )
        return np.stack(frames)

    def patient_id(self, index: int) -> str:
        """The patient that the example at `index` shows."""
        return f"{self.seed}-{index // self.images_per_patient:06d}"

    def _rng(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, stream, number]))

    def _view(self, rng: np.random.Generator, index: int) -> _View:
        patient = self._rng(_PATIENT, index // self.images_per_patient)
        fetus = growth.draw_fetus(patient)
        habit = float(patient.standard_normal())
        style = machine.draw_machine(patient)
        if rng.random() < 0.12:
            style = machine.draw_machine(rng)
        planes = list(self.plane_weights)
        weights = np.array(list(self.plane_weights.values()), float)
        plane = planes[int(rng.choice(len(planes), p=weights / weights.sum()))]
        brain_plane = None
        if plane == "brain":
            late = np.clip((fetus.ga_weeks - _EARLY_WEEKS) / (_LATE_WEEKS - _EARLY_WEEKS), 0, 1)
            shares = (1 - late) * _EARLY_BRAIN_PLANES + late * _LATE_BRAIN_PLANES
            brain_plane = BRAIN_PLANES[int(rng.choice(3, p=shares))]
        length = 2 * _extent(plane, fetus) * _SHOWN.get(plane, 1.0)
        if plane == "brain":
            # Broad heads under a low window must fit from top to bottom as well.
            length = max(length, 1.75 * fetus.head_semi_axes_mm[1] / _open_aspect(style))
        zoom = _ZOOM.get(plane, 1.15)
        if plane != "brain":
            zoom *= float(np.exp(0.15 * rng.standard_normal()))
        field = growth.draw_field_of_view_mm(rng, fetus, habit, length, zoom)
        style = _at_frequency_of(style, field)
        shape = (round(self.image_size * style.aspect), self.image_size)
        return _View(plane, brain_plane, fetus, style, shape, field / self.image_size)


def _compose(rng: np.random.Generator, view: _View, phase: float | None):
    """The scene of a view and the scan grid that looks at it."""
    height, width = (side * view.spacing_mm for side in view.shape)
    window = Window(width, height)
    geometry = machine.draw_geometry(rng, view.style, (height, width), view.spacing_mm)
    scene = Scene()
    if view.plane == "cervix":
        anatomy_trunk.cervix(scene, rng, view.fetus, window)
        return scene, geometry
    radius = _extent(view.plane, view.fetus)
    pose = _pose(rng, view, window, radius)
    surroundings.uterus(scene, rng, window, pose.center, radius)
    if view.plane == "brain":
        anatomy_brain.BUILDERS[view.brain_plane](scene, rng, view.fetus, pose)
    elif view.plane == "heart":
        # Drawn even where a clip sets the phase, so that a clip keeps its image's other choices.
        drawn = float(rng.random())
        beat = drawn if phase is None else phase
        clear = phase is not None
        anatomy_heart.four_chamber(scene, rng, view.fetus, pose, beat, clear)
    elif view.plane == OTHER:
        anatomy_face_limb.other(scene, rng, view.fetus, pose, window)
    else:
        _BUILDERS[view.plane](scene, rng, view.fetus, pose)
    return scene, geometry


_BUILDERS = {
    "abdomen": anatomy_trunk.abdomen,
    "kidney": anatomy_trunk.kidney,
    "spine": anatomy_trunk.spine,
    "femur": anatomy_face_limb.femur,
    "lips_nose": anatomy_face_limb.lips_nose,
    "profile_patient": anatomy_face_limb.profile,
}


def _extent(plane: str, fetus: growth.Fetus) -> float:
    """Half of the structure's longest side in mm."""
    head = fetus.head_semi_axes_mm[0]
    return {
        "brain": head,
        "abdomen": fetus.ac_mm / 6.1,
        "kidney": fetus.ac_mm / 6.1,
        "heart": 0.92 * fetus.ac_mm / 6.1,
        "femur": 0.55 * fetus.fl_mm + 1,
        "spine": 1.3 * fetus.fl_mm,
        "lips_nose": 0.75 * head,
        "profile_patient": 1.2 * head,
        OTHER: 0.6 * fetus.fl_mm + 4,
        "cervix": 30.0,
    }[plane]


def _at_frequency_of(style: machine.Machine, field_mm: float) -> machine.Machine:
    """Pulse and beam as they are over this field: a closer look is at a higher frequency."""
    sharp = (field_mm / _USUAL_FIELD_MM) ** 0.8
    return dataclasses.replace(
        style, axial_mm=style.axial_mm * sharp, lateral_mm=style.lateral_mm * sharp
    )


def _open_aspect(style: machine.Machine) -> float:
    """Height / width of the display above its black band."""
    return style.aspect * (1 - style.band)


def _pose(rng: np.random.Generator, view: _View, window: Window, radius: float) -> Pose:
    """Where the structure lies and which way it is turned."""
    level = view.plane in _LEVEL_PLANES
    flip = float(rng.choice((0.0, np.pi)))
    tilt = float(np.clip(rng.normal(0, 0.15 if level else 0.5), -0.6, 0.6))
    mirror = bool(rng.random() < 0.5)
    if view.plane == "profile_patient":
        # The fetus mostly looks up at the probe, to either side.
        flip = np.pi * mirror
    loose = 0.03 if level else 0.5
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < loose else flip + tilt
    # How much room is left on each axis once the turned structure is inside the window.
    head = view.plane == "brain"
    minor = view.fetus.head_semi_axes_mm[1] if head else 0.3 * radius if level else radius
    height = _open_aspect(view.style) * window.width
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    half_width, half_height = np.hypot(radius * c, minor * s), np.hypot(radius * s, minor * c)
    if level and half_height > 0.485 * height:
        # It only fits lying down.
        angle, half_width, half_height = flip + 0.2 * tilt, radius, minor
    # Whole heads are measured; of other structures a part may leave the window.
    spare = 0.0 if head else 0.06 * window.width
    free_x = max(spare, 0.485 * window.width - half_width)
    free_y = max(spare, 0.485 * height - half_height)
    x = free_x * np.clip(rng.normal(0, 0.4), -1, 1)
    y = free_y * np.clip(rng.normal(0, 0.35), -1, 1) + 0.5 * (height - window.height)
    return Pose((float(x), float(y)), float(angle), mirror)
