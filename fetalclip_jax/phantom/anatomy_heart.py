"""The four-chamber view. Local x runs from the spine to the breastbone, y to the fetus's right."""

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.anatomy_trunk import vertebra
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


def _chamber(shape: np.ndarray, side: int, scale: float, anchor) -> np.ndarray:
    points = (shape - anchor) * scale + anchor
    return shapes.curve(points * (1, side), 24, closed=True)


def four_chamber(
    scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, phase: float
) -> None:
    """Thorax with lungs, spine, aorta and heart; the defects change chambers and septum."""
    girth = 0.92 * fetus.ac_mm
    ratio = rng.uniform(0.86, 0.98)
    a = girth / (np.pi * (1 + ratio))
    b = a * ratio
    outline = pose(shapes.ellipse((0, 0), (a, b), count=56))
    lung = LUNG_DB + rng.uniform(-4, 2)
    scene.fill(outline, lung - 3, texture_db=2.0, opaque=True, mask="thorax")
    scene.line(outline, 11, 1.1, closed=True, directivity=1.1)
    scene.fill(pose(shapes.ellipse((0, 0), (0.86 * a, 0.86 * b))), lung, texture_db=2.5)
    rib = rng.uniform(0.4, 0.8)
    for side in (-1, 1):
        bow = shapes.arc((0, 0), (0.9 * a, side * 0.9 * b), rib, rib + 1.5, 14)
        scene.line(pose(bow), 18 * fetus.bone_gain, 0.05 * a, loss_db=4.0, directivity=0.9)
    vertebra(scene, rng, fetus, pose, -0.76 * a, 0.14 * a)
    aorta = pose(shapes.ellipse((-0.47 * a, -0.13 * b), (0.085 * a, 0.085 * a), count=16))
    scene.fluid(aorta, mask="aorta")
    scene.line(aorta, 9, 0.7, closed=True)

    size = 0.60 * a * rng.uniform(0.92, 1.05)
    heart = Pose((0.12 * a, -0.14 * b), -rng.uniform(0.5, 0.95))
    _heart(scene, rng, fetus, lambda p: pose(heart(p * size)), size, phase)


def _heart(scene: Scene, rng, fetus: Fetus, place, size: float, phase: float) -> None:
    wall = MUSCLE_DB + rng.uniform(0, 5)
    ventricle, atrium = _beat(phase)
    gap = rng.uniform(0.16, 0.36)
    outline = place(shapes.curve(
        np.array([(0.98, 0.02), (0.55, 0.56), (0.05, 0.68), (-0.5, 0.68), (-0.86, 0.25),
                  (-0.86, -0.25), (-0.5, -0.68), (0.05, -0.68), (0.55, -0.56)]), 40, closed=True
    ))  # fmt: skip
    scene.fill(outline, wall, texture_db=1.5, opaque=True, mask="heart")
    scene.line(outline, 8, 0.9, closed=True)
    hypoplastic = fetus.heart_label == "hypoplastic_left_heart"
    anchor = np.array([0.3, 0.06])
    back = np.array([-0.4, 0.08])
    chambers = {
        "left_ventricle": _chamber(_VENTRICLE, -1, ventricle, anchor),
        "right_ventricle": _chamber(_VENTRICLE, 1, ventricle, anchor),
        "left_atrium": _chamber(_ATRIUM, -1, atrium, back),
        "right_atrium": _chamber(_ATRIUM, 1, atrium, back),
    }
    if hypoplastic:
        # The left side stays a slit, the right side takes the apex.
        left = (_VENTRICLE - (0.15, 0.2)) * (0.4, 0.32) * ventricle + (0.12, 0.24)
        chambers["left_ventricle"] = shapes.curve(left * (1, -1), 16, closed=True)
        chambers["left_atrium"] = _chamber(_ATRIUM, -1, 0.55 * atrium, back)
        grown = (_VENTRICLE - anchor) * (1.12, 1.2) * ventricle + anchor + (0.02, -0.08)
        chambers["right_ventricle"] = shapes.curve(grown, 24, closed=True)
    for name, points in chambers.items():
        scene.fluid(place(points), mask=name)
        scene.line(place(points), 7, 0.7, closed=True, directivity=0.7)
    septum = np.array([(0.03, -0.05), (0.8, -0.07), (0.8, 0.07), (0.03, 0.05)], np.float32)
    if hypoplastic:
        septum = septum - np.array([0, 0.06], np.float32)
    scene.fill(place(septum), wall + 7, texture_db=1.0, mask="septum")
    bridge = np.array([(-0.62, 0), (-0.42, 0)], np.float32)
    scene.line(place(bridge), 13, 0.8, directivity=0.4)
    if fetus.heart_label == "ventricular_septal_defect":
        hole = np.array([(gap - 0.13, -0.14), (gap + 0.13, -0.14), (gap + 0.13, 0.14)])
        hole = np.concatenate([hole, [(gap - 0.13, 0.14)]]).astype(np.float32)
        scene.fluid(place(hole))
    # Valve leaflets hang from the crux: shut while the ventricles squeeze, ajar while they fill.
    open_angle = 0.15 + 0.9 * (1 - np.sin(np.pi * phase) ** 2)
    for side in (-1, 1):
        hinge = np.array([(-0.03, side * 0.05), (-0.04, side * 0.55)], np.float32)
        reach = 0.24
        lean = np.array([np.sin(open_angle), np.cos(open_angle)], np.float32) * reach
        tips = hinge + np.array([(lean[0], side * lean[1]), (lean[0], -side * lean[1])])
        for root, tip in zip(hinge, tips, strict=True):
            scene.line(place(np.stack([root, tip])), 14, 0.7, directivity=0.3)
