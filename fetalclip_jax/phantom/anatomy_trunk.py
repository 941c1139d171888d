"""Transverse abdomen, kidneys, longitudinal spine and cervix."""

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.growth import Fetus
from fetalclip_jax.phantom.scene import LIVER_DB, MUSCLE_DB, TISSUE_DB, Scene
from fetalclip_jax.phantom.shapes import Pose
from fetalclip_jax.phantom.surroundings import Window


def vertebra(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, x, size) -> None:
    """A vertebra cut across at local (x, 0): three bright centres around a dark canal."""
    scene.fill(pose(shapes.ellipse((x, 0), (1.25 * size, 1.1 * size), count=20)), MUSCLE_DB - 5)
    gain = 21 * fetus.bone_gain
    for dx, dy in ((0.75, 0.0), (-0.5, 0.7), (-0.5, -0.7)):
        at = np.array([(x + dx * size, dy * size - 0.3 * size), (x + dx * size, dy * size)])
        at[1, 1] += 0.3 * size
        scene.line(pose(at), gain, 0.55 * size, loss_db=10.0, directivity=0.2)
    scene.outline("spine", pose(shapes.ellipse((x, 0), (1.2 * size, 1.15 * size), count=24)))


def _ribs(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, a, b) -> None:
    start = rng.uniform(0.5, 0.9)
    for side in (-1, 1):
        rib = shapes.arc((0, 0), (0.88 * a, side * 0.88 * b), start, start + rng.uniform(0.5, 1), 9)
        scene.line(pose(rib), 16 * fetus.bone_gain, 0.05 * a, loss_db=5.0, directivity=0.8)


def trunk(scene: Scene, rng, fetus: Fetus, pose: Pose, a: float, b: float, echo_db: float) -> None:
    """Skin and filling of a trunk cut across, with the spine at local -x."""
    outline = pose(shapes.ellipse((0, 0), (a, b), count=64))
    scene.fill(outline, echo_db + 6, texture_db=2.0, attenuation=0.2, opaque=True)
    scene.fill(pose(shapes.ellipse((0, 0), (0.91 * a, 0.91 * b), count=48)), echo_db, texture_db=3)
    scene.line(outline, rng.uniform(8, 15), 1.2, closed=True, directivity=1.1)
    vertebra(scene, rng, fetus, pose, -0.76 * a, 0.135 * a)


def abdomen_semi_axes(rng: np.random.Generator, fetus: Fetus) -> tuple[float, float]:
    """Semi-axes in mm of an ellipse whose circumference is the fetus's AC."""
    ratio = rng.uniform(0.88, 1.0)
    a = fetus.ac_mm / (np.pi * (1 + ratio))
    return a, a * ratio


def abdomen(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Stomach bubble, umbilical vein, spine, aorta and vena cava in homogeneous liver."""
    a, b = abdomen_semi_axes(rng, fetus)
    trunk(scene, rng, fetus, pose, a, b, LIVER_DB + rng.uniform(-4, 2))
    scene.outline("abdomen", pose(shapes.ellipse((0, 0), (a, b), count=64)))
    _ribs(scene, rng, fetus, pose, a, b)
    for x, y, r in ((-0.50, -0.10, 0.075), (-0.42, 0.17, 0.065)):
        vessel = pose(shapes.ellipse((x * a, y * b), (r * a, r * a), count=14))
        scene.fluid(vessel)
        scene.line(vessel, 6, 0.6, closed=True)
    center = (rng.uniform(-0.18, 0.1) * a, -0.45 * b * rng.uniform(0.85, 1.1))
    size = (rng.uniform(0.19, 0.32) * a, rng.uniform(0.13, 0.2) * b)
    stomach = pose(shapes.blob(rng, center, size, rng.uniform(-0.6, 0.6), 0.15))
    scene.fluid(stomach, mask="stomach")
    scene.line(stomach, 7, 0.8, closed=True)
    # The umbilical vein enters from the front and hooks towards the right side (portal sinus).
    vein = np.array([(0.62, 0.02), (0.38, 0.02), (0.15, 0.06), (0.02, 0.2), (-0.02, 0.36)])
    vein = shapes.curve((vein + 0.02 * rng.standard_normal((5, 2))) * (a, b), 16)
    tube = pose(shapes.tube(vein, 0.10 * a * rng.uniform(0.85, 1.15)))
    scene.fluid(tube)
    scene.line(tube, 12, 0.8, closed=True, directivity=0.9)


def kidney(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Both kidneys beside the spine cut across, or one kidney along its length."""
    a, b = abdomen_semi_axes(rng, fetus)
    echo = LIVER_DB + rng.uniform(-2, 3)
    trunk(scene, rng, fetus, pose, a, b, echo)
    if rng.random() < 0.6:
        for side in (-1, 1):
            center = (-0.42 * a, side * 0.42 * b)
            _renal(scene, rng, pose, center, (0.30 * a, 0.25 * b), side * 0.5, echo)
    else:
        _renal(scene, rng, pose, (-0.1 * a, 0.1 * b), (0.58 * a, 0.32 * b), 1.3, echo)
    for _ in range(4):
        at = (rng.uniform(0.2, 0.7) * a, rng.uniform(-0.5, 0.5) * b)
        bowel = shapes.blob(rng, at, (0.12 * a, 0.08 * a), rng.uniform(0, 3), 0.2, 16)
        scene.fill(pose(bowel), echo + rng.uniform(2, 8))


def _renal(scene: Scene, rng, pose: Pose, center, semi_axes, angle: float, echo: float) -> None:
    """A kidney: dark cortex and pyramids, bright capsule and sinus, a dark pelvis."""
    body = shapes.ellipse(center, semi_axes, angle)
    scene.fill(pose(body), echo - 9, texture_db=1.5)
    scene.line(pose(body), 11, 0.9, closed=True, directivity=0.6)
    inner = Pose(center, angle)
    for x in np.linspace(-0.62, 0.62, 5):
        for side in (-1, 1):
            y = side * 0.58 * np.sqrt(1 - x * x)
            dot = shapes.ellipse((0, 0), (0.11 * semi_axes[0], 0.16 * semi_axes[1]), count=10)
            at = np.array([x * semi_axes[0], y * semi_axes[1]])
            scene.fill(pose(inner(dot + at)), echo - 22)
    sinus = shapes.ellipse((0, 0), (0.5 * semi_axes[0], 0.26 * semi_axes[1]), count=20)
    scene.fill(pose(inner(sinus)), echo + 9)
    pelvis = shapes.ellipse((0, 0), (0.32 * semi_axes[0], 0.15 * semi_axes[1]), count=16)
    scene.fluid(pose(inner(pelvis)))


def spine(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """The spine along its length: two rows of bright centres that meet at the sacrum."""
    length = 2.6 * fetus.fl_mm + 8
    bend = rng.uniform(-0.18, 0.18)
    t = np.linspace(-0.5, 0.5, 30)
    axis = np.stack([t * length, bend * length * (t**2 - 0.1)], -1).astype(np.float32)
    girth = 0.22 * length
    middle = shapes.curve(axis[::6], 20) + np.array([0, 0.5 * girth])
    body = pose(shapes.tube(middle, 1.7 * girth))
    scene.fill(body, LIVER_DB + rng.uniform(-4, 1), texture_db=3.0, opaque=True)
    scene.line(body, 9, 0.9, closed=True, directivity=1.2)
    gap = 0.026 * length * np.interp(t, (-0.5, -0.38, 0.3, 0.5), (0.25, 0.9, 1.0, 1.3))
    count = int(rng.integers(15, 20))
    canal = pose(shapes.tube(axis, 1.5 * gap))
    scene.fill(canal, MUSCLE_DB - 14, texture_db=0.5)
    where = np.linspace(0, 29, count)
    half = 0.16 * length / count
    for side in (-1, 1):
        x = np.interp(where, np.arange(30), axis[:, 0])
        y = np.interp(where, np.arange(30), axis[:, 1] + side * gap)
        for px, py in zip(x, y, strict=True):
            block = np.array([(px - half, py), (px + half, py)], np.float32)
            scene.line(
                pose(block), 22 * fetus.bone_gain, 0.014 * length, loss_db=3.0, directivity=0.4
            )


def cervix(scene: Scene, rng: np.random.Generator, fetus: Fetus, window: Window) -> None:
    """Mother's cervix: a grey cylinder with its canal, bladder, and the fetal head above it."""
    flip = float(rng.choice((-1, 1)))
    size = 0.30 * window.width
    pose = Pose(
        (rng.normal(0, 0.05) * window.width, rng.normal(0.02, 0.06) * window.height),
        rng.uniform(-0.45, 0.45),
    )
    y0 = window.top + rng.uniform(0.02, 0.2) * window.height
    floor = window.height
    ground = np.array([(-floor, y0), (floor, y0), (floor, floor), (-floor, floor)], np.float32)
    scene.fill(ground, TISSUE_DB + rng.uniform(-5, 1), texture_db=3.0, streak_db=3.0)
    sac = shapes.blob(rng, (flip * 1.55 * size, -0.05 * size), (0.85 * size, 0.95 * size), 0, 0.1)
    scene.fluid(pose(sac), echo_db=rng.uniform(-42, -30))
    scene.line(pose(sac), 9, 1.0, closed=True)
    if rng.random() < 0.65:
        at = (flip * rng.uniform(1.65, 1.9) * size, rng.uniform(-0.25, 0.15) * size)
        head = pose(shapes.ellipse(at, (0.78 * size, 0.68 * size), rng.uniform(0, 3)))
        scene.fill(head, -14, opaque=True)
        scene.line(head, 23, 1.8, loss_db=6.0, closed=True)
    if rng.random() < 0.7:
        at = (flip * rng.uniform(0.1, 0.7) * size, -rng.uniform(0.75, 1.0) * size)
        bladder = pose(shapes.blob(rng, at, (0.75 * size, 0.24 * size), flip * 0.25, 0.2))
        scene.fluid(bladder)
        scene.line(bladder, 12, 1.0, closed=True, directivity=1.3)
    body = np.array([(0.95, -0.42), (0.2, -0.52), (-0.7, -0.5), (-1.05, -0.1)]) * size
    body = np.concatenate([body, body[::-1] * (1, -1)]) * (flip, 1)
    body = pose(shapes.curve(body, 40, closed=True))
    scene.fill(body, TISSUE_DB + rng.uniform(-10, -5), texture_db=2.0, streak_db=2.0)
    scene.line(body, 10, 1.0, closed=True)
    bow = rng.uniform(-0.12, 0.12) * size
    canal = np.array([(0.85, 0), (0.3, 0.5), (-0.3, 0.9), (-0.95, 0.3)]) * (flip * size, bow)
    canal = shapes.curve(canal, 14)
    scene.fill(pose(shapes.tube(canal, 0.26 * size)), TISSUE_DB - 17, texture_db=1.0)
    scene.line(pose(canal), 13, 0.9, directivity=0.4)
