"""Transverse planes of the fetal head. Local x runs to the forehead, y towards the far side."""

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.growth import Fetus
from fetalclip_jax.phantom.scene import Scene
from fetalclip_jax.phantom.shapes import Pose


def _jitter(rng: np.random.Generator, spread: float = 0.08) -> float:
    return float(1 + spread * np.clip(rng.standard_normal(), -2, 2))


def skull(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Scalp, brain tissue and the bone ellipse whose outer edge is the head circumference."""
    a, b = fetus.head_semi_axes_mm
    thickness = 0.8 + 0.024 * a * fetus.bone_gain
    scalp = pose(shapes.ellipse((0, 0), (1.05 * a + 0.6, 1.05 * b + 0.6), count=56))
    scene.fill(scalp, rng.uniform(-12, -3), texture_db=2.0, streak_db=1.0, opaque=True)
    outline = pose(shapes.ellipse((0, 0), (a, b), count=96))
    scene.fill(outline, fetus.brain_db, texture_db=3.0, attenuation=0.2)
    scene.outline("head", outline)
    if rng.random() < 0.6:
        # Reverberation from the bone veils the half next to the probe.
        near = np.pi if pose.at(0, 1)[1] > pose.center[1] else 0.0
        veil = shapes.arc((0, 0), (a, b), near, near + np.pi, 28)
        scene.fill(pose(veil), fetus.brain_db + rng.uniform(2, 7), texture_db=1.5, streak_db=2.0)
    inset = thickness / 2
    bone = pose(shapes.ellipse((0, 0), (a - inset, b - inset), count=72))
    loss = fetus.bone_gain * (0.8 + 0.05 * a)
    scene.line(
        bone,
        22.0 + rng.uniform(-5, 4),
        thickness,
        loss_db=loss,
        directivity=rng.uniform(0.5, 1.1),
        closed=True,
    )


def _folds(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Insula and a few cortical folds: short bright arcs, more of them later."""
    a, b = fetus.head_semi_axes_mm
    level = fetus.brain_db + 14
    for side in (-1, 1):
        insula = shapes.arc((0.12 * a, side * 0.30 * b), (0.34 * a, side * 0.34 * b), 0.7, 2.3, 9)
        scene.line(pose(insula), level + rng.uniform(0, 5), 0.8, directivity=0.8)
    for _ in range(int(rng.integers(2, 5) + max(fetus.ga_weeks - 22, 0) / 2)):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.72, 0.88)
        start = rng.uniform(-0.5, 0.5)
        radius = rng.uniform(0.05, 0.12) * a
        at = (reach * a * np.cos(turn), reach * b * np.sin(turn))
        fold = shapes.arc(at, (radius, radius), turn + start - 0.9, turn + start + 0.9, 6)
        scene.line(pose(fold), level + rng.uniform(-4, 4), 0.7, directivity=0.6)


def _falx(scene: Scene, rng, fetus: Fetus, pose: Pose, gaps: list[tuple[float, float]]) -> None:
    """The midline echo from forehead to occiput, open at `gaps` (fractions of the half length)."""
    a, b = fetus.head_semi_axes_mm
    level = fetus.brain_db + rng.uniform(19, 27)
    at = 0.92
    for stop, start in [*sorted(gaps, reverse=True), (-0.92, -0.92)]:
        start, stop = (stop, start) if start < stop else (start, stop)
        x = np.linspace(at, start, 9, dtype=np.float32)
        y = 0.012 * b * rng.standard_normal(9).astype(np.float32)
        scene.line(pose(np.stack([x * a, y], -1)), level, 0.5 + 0.010 * a, directivity=0.5)
        at = stop


def _cavum(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, x: float) -> None:
    """Cavum septi pellucidi: a dark box between two short parallel bars."""
    a, b = fetus.head_semi_axes_mm
    length, half = 0.17 * a * _jitter(rng), 0.075 * b * _jitter(rng)
    box = [(x * a - length, -half), (x * a + length, -half), (x * a + length, half)]
    box = np.array([*box, (x * a - length, half)], np.float32)
    scene.fluid(pose(box))
    for side in (-1, 1):
        bar = np.array([(x * a - length, side * half), (x * a + length, side * half)], np.float32)
        scene.line(pose(bar), fetus.brain_db + 25, 0.5 + 0.012 * a, directivity=0.6)


def _thalami(scene: Scene, rng, fetus: Fetus, pose: Pose, size: float, clarity: float) -> None:
    """Two dark lobes either side of the midline, rimmed by brighter tissue."""
    a, b = fetus.head_semi_axes_mm
    shift = 0.02 * a * rng.standard_normal()
    length, width = 0.25 * a * size * _jitter(rng), 0.36 * b * size * _jitter(rng)
    halo = shapes.ellipse((shift - 0.04 * a, 0), (1.5 * length, 1.35 * width))
    scene.fill(pose(halo), fetus.brain_db + 10 * clarity, texture_db=2.0)
    for side in (-1, 1):
        knots = np.array([(1.0, 0.06), (0.25, 0.72), (-0.35, 1.0), (-1.0, 0.55), (-0.8, 0.06)])
        knots = knots * (length, side * width) + (shift, 0)
        lobe = pose(shapes.curve(knots, 26, closed=True))
        scene.fill(lobe, fetus.brain_db - 12 * clarity, texture_db=1.5)
        scene.line(lobe, fetus.brain_db + 12 * clarity, 0.7, closed=True, directivity=0.5)
    third = np.array([(shift - 0.5 * length, 0), (shift + 0.7 * length, 0)], np.float32)
    scene.line(pose(third), fetus.brain_db + 16, 0.6, directivity=0.5)


def _frontal_horns(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    a, b = fetus.head_semi_axes_mm
    for side in (-1, 1):
        horn = np.array([(0.34, 0.10), (0.46, 0.16), (0.60, 0.32)]) * (a, side * b)
        line = pose(shapes.curve(horn, 7))
        scene.fill(shapes.tube(line, 0.09 * b), fetus.brain_db - 14, texture_db=0.5)
        scene.line(line + np.array([0, 0.045 * b]), fetus.brain_db + 14, 0.7, directivity=0.6)


def transthalamic(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Thalami, cavum septi pellucidi and a midline broken by both."""
    skull(scene, rng, fetus, pose)
    _folds(scene, rng, fetus, pose)
    cavum = 0.48 + 0.03 * rng.standard_normal()
    _falx(scene, rng, fetus, pose, [(cavum - 0.17, cavum + 0.17), (-0.28, 0.26)])
    _thalami(scene, rng, fetus, pose, 1.0, 1.0)
    _cavum(scene, rng, fetus, pose, cavum)
    if rng.random() < 0.5:
        _frontal_horns(scene, rng, fetus, pose)


def transcerebellar(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Cerebellum (a dumbbell) in front of a dark cisterna magna; thalami and cavum further on."""
    a, b = fetus.head_semi_axes_mm
    skull(scene, rng, fetus, pose)
    _folds(scene, rng, fetus, pose)
    cavum = 0.52 + 0.03 * rng.standard_normal()
    _falx(scene, rng, fetus, pose, [(cavum - 0.17, cavum + 0.17), (-0.92, 0.30)])
    _thalami(scene, rng, fetus, pose, 0.75, 0.6)
    _cavum(scene, rng, fetus, pose, cavum)
    half = min(0.55 * fetus.cerebellum_mm * 1.2 * _jitter(rng, 0.05), 0.6 * b)
    depth = 0.42 * half * _jitter(rng)
    x = -0.57 * a
    # Cisterna magna: from the back of the cerebellum to the occipital bone.
    edge = np.arcsin(min(0.95, 0.85 * half / b))
    bone = shapes.arc((0, 0), (0.93 * a, 0.93 * b), np.pi - edge, np.pi + edge, 13)
    front = np.array([(x, -0.8 * half), (x, 0.8 * half)], np.float32)
    scene.fluid(pose(np.concatenate([bone, front])))
    for side in (-1, 1):
        lobe = shapes.ellipse((x, side * 0.53 * half), (depth, 0.50 * half), -side * 0.25)
        scene.fill(pose(lobe), fetus.brain_db - 5, texture_db=2.0)
        scene.line(pose(lobe), fetus.brain_db + 23, 1.0, closed=True, directivity=0.4)
    vermis = shapes.ellipse((x, 0), (0.75 * depth, 0.20 * half), count=20)
    scene.fill(pose(vermis), fetus.brain_db + 16, texture_db=1.0)


# Relative width of the choroid plexus from back to front: a drop that tapers forwards.
_PLEXUS = np.array([0.45, 0.85, 1.0, 1.0, 0.9, 0.75, 0.55, 0.3])


def transventricular(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Lateral ventricle with its bright choroid plexus, in the far half (and faintly the near)."""
    a, b = fetus.head_semi_axes_mm
    skull(scene, rng, fetus, pose)
    _folds(scene, rng, fetus, pose)
    cavum = 0.46 + 0.03 * rng.standard_normal()
    _falx(scene, rng, fetus, pose, [(cavum - 0.17, cavum + 0.17)])
    _cavum(scene, rng, fetus, pose, cavum)
    _frontal_horns(scene, rng, fetus, pose)
    # Early brains are mostly ventricle filled with choroid plexus.
    early = float(np.clip((21.0 - fetus.ga_weeks) / 6.0, 0, 1))
    far = 1 if pose.at(0, 1)[1] > pose.center[1] else -1
    for side in (-far, far):
        if side != far and rng.random() < 0.35:
            continue
        clarity = 1.0 if side == far else 0.45
        spine = np.array([(-0.74, 0.42), (-0.45, 0.43), (-0.1, 0.32), (0.22, 0.24)])
        spine = spine * (a, side * b * _jitter(rng, 0.06))
        line = shapes.curve(spine, 14)
        widths = np.interp(np.linspace(0, 1, 14), (0, 0.35, 0.7, 1), (0.6, 1.0, 0.7, 0.3))
        body = shapes.tube(line, widths * b * (0.34 + 0.14 * early) * _jitter(rng))
        scene.fill(pose(body), fetus.brain_db - 26 * clarity, texture_db=0.5)
        level = fetus.brain_db + 20 - 12 * (1 - clarity)
        scene.line(pose(body[:14]), level, 0.9, directivity=0.9)
        plexus = shapes.tube(
            line[2:10] + np.array([0, 0.03 * side * b]),
            _PLEXUS * b * (0.24 + 0.16 * early) * _jitter(rng),
        )
        scene.fill(pose(plexus), fetus.brain_db + 20 * clarity, texture_db=1.5)


BUILDERS = {
    "trans-thalamic": transthalamic,
    "trans-cerebellum": transcerebellar,
    "trans-ventricular": transventricular,
}
