"""The four-chamber view. Local x runs from the spine to the breastbone, y to the fetus's right."""

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.anatomy_trunk import ribs, specks, trunk, trunk_outline
from fetalclip_jax.phantom.growth import Fetus
from fetalclip_jax.phantom.scene import LUNG_DB, MUSCLE_DB, Scene
from fetalclip_jax.phantom.shapes import Pose

# Chamber outlines in units of the heart's half length: x from the base (-1) to the apex (+1),
# y < 0 left, > 0 right. The septum is the strip around y = 0.
_VENTRICLE = np.array([(0.02, 0.09), (0.0, 0.45), (0.25, 0.52), (0.55, 0.36), (0.78, 0.12)])
_ATRIUM = np.array([(-0.08, 0.08), (-0.1, 0.46), (-0.36, 0.56), (-0.68, 0.36), (-0.66, 0.08)])


def _beat(phase: float) -> tuple[float, float]:
    """Scale of ventricles and of atria at a phase of the beat (0 = ventricles full)."""
    squeeze = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    return 1.0 - 0.24 * squeeze, 0.86 + 0.2 * squeeze


def _chamber(
    rng: np.random.Generator, shape: np.ndarray, side: int, scale: float, anchor, spread: float
):
    """An outline in heart units, no two alike."""
    shape = shape + rng.uniform(-spread, spread, shape.shape)
    points = (shape - anchor) * scale + anchor
    return shapes.curve(points * (1, side), 24, closed=True)


def four_chamber(
    scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, phase: float, clear: bool
) -> None:
    """Thorax with lungs, spine, aorta and heart; the defects change chambers and septum.

    A `clear` heart is cut through its middle, and dark blood fills its chambers.
    """
    outline, a, b = trunk_outline(rng, 0.92 * fetus.ac_mm, (0.82, 1.0))
    lung = LUNG_DB + rng.uniform(-5, 4)
    trunk(scene, rng, fetus, pose, outline, a, lung)
    scene.outline("thorax", pose(outline))
    ribs(scene, rng, fetus, pose, a, b)
    specks(scene, rng, pose, a, b, lung, int(rng.integers(0, 5)))
    at = np.array([-0.47 * a, -0.13 * b]) + 0.03 * a * rng.standard_normal(2)
    aorta = pose(shapes.ellipse(at, (0.085 * a, 0.085 * a), count=16))
    scene.fluid(aorta, mask="aorta", echo_db=rng.uniform(-42, -24))
    scene.line(aorta, rng.uniform(2, 11), 0.7, closed=True)

    size = 0.60 * a * rng.uniform(0.88, 1.12)
    # Cuts through the heart are more or less oblique: its length and width vary.
    stretch = rng.uniform(0.8 + 0.12 * clear, 1.1 - 0.05 * clear, 2) * size
    heart = Pose((rng.uniform(0.05, 0.2) * a, rng.uniform(-0.2, -0.05) * b), -rng.uniform(0.3, 1.1))
    _heart(scene, rng, fetus, lambda p: pose(heart(p * stretch)), phase, clear)


def _heart(scene: Scene, rng, fetus: Fetus, place, phase: float, clear: bool) -> None:
    wall = MUSCLE_DB + rng.uniform(-6 + 5 * clear, 5)
    blood = rng.uniform(-44, -26 - 10 * clear)
    spread = 0.02 if clear else 0.05
    ventricle, atrium = _beat(phase)
    gap = rng.uniform(0.16, 0.36)
    knots = np.array([(0.98, 0.02), (0.55, 0.56), (0.05, 0.68), (-0.5, 0.68), (-0.86, 0.25),
                      (-0.86, -0.25), (-0.5, -0.68), (0.05, -0.68), (0.55, -0.56)])  # fmt: skip
    knots = knots + rng.uniform(-0.06, 0.06, knots.shape)
    outline = place(shapes.curve(knots, 40, closed=True))
    scene.fill(outline, wall, texture_db=2.5, opaque=True, mask="heart")
    # The pericardium: bright where it is square to the beam.
    scene.line(outline, rng.uniform(-2, 14), 0.9, closed=True, directivity=1.3)
    hypoplastic = fetus.heart_label == "hypoplastic_left_heart"
    anchor = np.array([0.3, 0.06])
    back = np.array([-0.4, 0.08])
    chambers = {
        "left_ventricle": _chamber(rng, _VENTRICLE, -1, ventricle, anchor, spread),
        "right_ventricle": _chamber(rng, _VENTRICLE, 1, ventricle, anchor, spread),
        "left_atrium": _chamber(rng, _ATRIUM, -1, atrium, back, spread),
        "right_atrium": _chamber(rng, _ATRIUM, 1, atrium, back, spread),
    }
    if hypoplastic:
        # The left side stays a slit, the right side takes the apex.
        left = (_VENTRICLE - (0.15, 0.2)) * (0.4, 0.32) * ventricle + (0.12, 0.24)
        chambers["left_ventricle"] = shapes.curve(left * (1, -1), 16, closed=True)
        chambers["left_atrium"] = _chamber(rng, _ATRIUM, -1, 0.55 * atrium, back, spread)
        grown = (_VENTRICLE - anchor) * (1.12, 1.2) * ventricle + anchor + (0.02, -0.08)
        chambers["right_ventricle"] = shapes.curve(grown, 24, closed=True)
    for name, points in chambers.items():
        scene.fluid(place(points), mask=name, echo_db=blood + rng.uniform(-3, 3))
        scene.line(place(points), rng.uniform(-12, 6), 0.6, closed=True, directivity=1.0)
    _septum(scene, rng, place, wall, hypoplastic)
    if fetus.heart_label == "ventricular_septal_defect":
        hole = np.array([(gap - 0.13, -0.14), (gap + 0.13, -0.14), (gap + 0.13, 0.14)])
        hole = np.concatenate([hole, [(gap - 0.13, 0.14)]]).astype(np.float32)
        scene.fill(place(hole), blood, texture_db=0.0, opaque=True)
    # Valve leaflets hang from the crux: shut while the ventricles squeeze, ajar while they fill.
    open_angle = 0.15 + 0.9 * (1 - np.sin(np.pi * phase) ** 2)
    level = rng.uniform(-2, 13)
    for side in (-1, 1):
        hinge = np.array([(-0.03, side * 0.05), (-0.04, side * 0.55)], np.float32)
        reach = 0.24
        lean = np.array([np.sin(open_angle), np.cos(open_angle)], np.float32) * reach
        tips = hinge + np.array([(lean[0], side * lean[1]), (lean[0], -side * lean[1])])
        for root, tip in zip(hinge, tips, strict=True):
            scene.line(place(np.stack([root, tip])), level, 0.5, directivity=0.5)


def _septum(scene: Scene, rng, place, wall: float, hypoplastic: bool) -> None:
    """The wall between the ventricles, a bright line where it is square to the beam."""
    half = rng.uniform(0.025, 0.07)
    septum = np.array([(0.03, -half), (0.8, -half), (0.8, half), (0.03, half)], np.float32)
    middle = np.array([(0.0, 0.0), (0.78, 0.0)], np.float32)
    if hypoplastic:
        septum, middle = (part - np.array([0, 0.06], np.float32) for part in (septum, middle))
    scene.fill(place(septum), wall + rng.uniform(0, 9), texture_db=1.0, mask="septum")
    scene.line(place(middle), rng.uniform(3, 15), 0.6, directivity=0.8)
    bridge = np.array([(-0.62, 0), (-0.42, 0)], np.float32)
    scene.line(place(bridge), rng.uniform(0, 12), 0.6, directivity=0.5)
