"""Femur, lips and nose, profile, and scenes that belong to no standard plane."""

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.growth import Fetus
from fetalclip_jax.phantom.scene import LIVER_DB, MUSCLE_DB, PLACENTA_DB, TISSUE_DB, Scene
from fetalclip_jax.phantom.shapes import Pose
from fetalclip_jax.phantom.surroundings import Window, limb


def _long_bone(
    scene: Scene, rng, fetus: Fetus, pose: Pose, length: float, y: float, bow: float
) -> None:
    """A bowed shaft with splayed ends, centred at local (0, y)."""
    x = np.linspace(-0.5, 0.5, 11)
    shaft = np.stack([x * length, y + bow * length * (0.25 - x**2)], -1).astype(np.float32)
    shaft[:, 1] += 0.006 * length * rng.standard_normal(11)
    thickness = (0.9 + 0.028 * length) * rng.uniform(0.8, 1.3)
    flare = rng.uniform(1.0, 1.8, 2)
    ends = np.interp(x, (-0.5, -0.36, 0.36, 0.5), (flare[0], 0.8, 0.8, flare[1])) * thickness
    # Sound does not get far into bone: the far side is faint or missing, the shadow mild.
    scene.fill(pose(shapes.tube(shaft, ends)), rng.uniform(2, 14), texture_db=2.0)
    gain, loss = rng.uniform(16, 26) * fetus.bone_gain, rng.uniform(4, 18)
    scene.line(pose(shaft), gain, thickness, loss_db=loss, directivity=rng.uniform(0.4, 1.0))


def _segment(scene: Scene, rng, pose: Pose, length: float, width: float) -> None:
    """The soft outline of a limb along its length, with skin and muscle septa."""
    knots = np.array([(-0.85, 0.0), (-0.3, 0.02), (0.2, -0.02), (0.85, 0.03)]) * length
    knots[:, 1] += 0.05 * length * rng.standard_normal(4)
    line = shapes.curve(knots, 16)
    widths = width * np.linspace(rng.uniform(0.9, 1.4), rng.uniform(0.6, 1.0), 16)
    skin = pose(shapes.tube(line, widths))
    muscle = MUSCLE_DB + rng.uniform(-10, 2)
    loss = rng.uniform(0.0, 1.5)
    scene.fill(
        skin, muscle, texture_db=2.5, streak_db=rng.uniform(2, 5), attenuation=loss, opaque=True
    )
    level, directivity = rng.uniform(-4, 15), rng.uniform(1.0, 2.0)
    scene.line(skin, level, 1.0, closed=True, directivity=directivity)
    for y in rng.uniform(-0.42, 0.42, int(rng.integers(2, 8))) * width:
        start, stop = np.sort(rng.uniform(-0.65, 0.65, 2)) * length
        septum = np.array([(start, y), (stop, y * rng.uniform(0.6, 1.0))], np.float32)
        scene.line(pose(septum), rng.uniform(-10, 5), 0.6, directivity=1.5)


def _joint(scene: Scene, rng, fetus: Fetus, pose: Pose, x: float, size: float) -> None:
    """The knee or hip beyond the end of a long bone: cartilage, and pieces of the next bones."""
    middle = (x, rng.normal(0, 0.3) * size)
    knob = shapes.blob(rng, middle, (size, 0.9 * size), rng.uniform(0, 3), 0.2, 24)
    scene.fill(pose(knob), MUSCLE_DB + rng.uniform(-6, 6), texture_db=4.0, opaque=True)
    scene.line(pose(knob), rng.uniform(0, 14), 0.9, closed=True, directivity=1.2)
    for _ in range(int(rng.integers(1, 5))):
        at = np.array(middle) + 0.5 * size * rng.standard_normal(2)
        way = rng.uniform(-1.5, 1.5)
        along = rng.uniform(0.1, 0.6) * size * np.array([np.cos(way), np.sin(way)])
        piece = np.array([at - along, at + along])
        gain = rng.uniform(8, 20) * fetus.bone_gain
        scene.line(pose(piece), gain, 1.0, loss_db=3.0, directivity=0.6)


def femur(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """The femur's bright shaft along its full length, inside the thigh, between its joints."""
    length = fetus.fl_mm
    width = length * rng.uniform(0.45, 0.8) + 4
    if rng.random() < 0.3:
        # The other thigh lies behind.
        side = rng.choice((-1, 1))
        behind = Pose(pose.at(rng.normal(0, 0.2) * length, side * width), pose.angle + 0.3)
        _segment(scene, rng, behind, length, 0.8 * width)
        if rng.random() < 0.6:
            _long_bone(scene, rng, fetus, behind, length * rng.uniform(0.4, 0.9), 0.0, 0.03)
    _segment(scene, rng, pose, length, width)
    for end in (-1, 1):
        if rng.random() < 0.6:
            size = length * rng.uniform(0.12, 0.24) + 1.5
            _joint(scene, rng, fetus, pose, end * (0.52 * length + 0.8 * size), size)
    y = rng.uniform(-0.18, 0.18) * width
    _long_bone(scene, rng, fetus, pose, length, y, rng.normal(0, 0.1))


def lips_nose(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Coronal lower face: nose with two dark nostrils, upper and lower lip, chin."""
    u = 0.30 * fetus.head_semi_axes_mm[0] * rng.uniform(0.9, 1.1)
    face = pose(shapes.blob(rng, (0.1 * u, 0), (2.5 * u, 2.0 * u), 0.0, 0.08))
    scene.fill(face, LIVER_DB - rng.uniform(2, 9), texture_db=3.5, opaque=True)
    scene.line(face, rng.uniform(0, 12), 0.8, closed=True, directivity=1.2)
    nose = pose(shapes.blob(rng, (-1.0 * u, 0), (0.75 * u, 0.95 * u), 0.0, 0.05))
    bright = TISSUE_DB + rng.uniform(-1, 8)
    scene.fill(nose, bright, texture_db=2.0)
    scene.line(nose, rng.uniform(4, 14), 0.8, closed=True, directivity=0.8)
    for side in (-1, 1):
        nostril = shapes.ellipse((-0.72 * u, side * 0.40 * u), (0.24 * u, 0.17 * u), count=14)
        scene.fluid(pose(nostril), echo_db=rng.uniform(-42, -22))
        cheek = shapes.blob(rng, (-0.2 * u, side * 1.45 * u), (0.9 * u, 0.42 * u), 0.0, 0.1)
        scene.fill(pose(cheek), TISSUE_DB - 2)
    mouth = np.array([(0.45, -0.85), (0.36, 0), (0.45, 0.85)]) * u
    upper = shapes.tube(shapes.curve(mouth - (0.22 * u, 0), 12), 0.36 * u)
    lower = shapes.tube(shapes.curve((mouth + np.array([0.24 * u, 0])) * (1, 0.85), 12), 0.4 * u)
    scene.fill(pose(upper), bright + rng.uniform(1, 6), texture_db=2.0)
    scene.fill(pose(lower), bright + rng.uniform(0, 5), texture_db=2.0)
    gape = shapes.tube(shapes.curve(mouth * (1, 0.9), 12), 0.16 * u)
    scene.fill(pose(gape), -34, texture_db=0.5)
    philtrum = np.array([(-0.3 * u, 0), (0.05 * u, 0)], np.float32)
    scene.fill(pose(shapes.tube(shapes.curve(philtrum, 4), 0.14 * u)), TISSUE_DB - 8)
    chin = pose(shapes.blob(rng, (1.35 * u, 0), (0.55 * u, 0.8 * u), 0.0, 0.08))
    scene.fill(chin, bright - 2)
    scene.line(chin, rng.uniform(2, 13), 0.8, closed=True, directivity=1.2)


_PROFILE = np.array(
    [(-0.98, 0.1), (-0.84, -0.50), (-0.45, -0.88), (0.0, -0.95), (0.24, -0.82), (0.36, -0.88),
     (0.60, -1.24), (0.70, -0.90), (0.80, -1.06), (0.88, -0.88), (0.98, -1.02), (1.07, -0.80),
     (1.24, -0.92), (1.36, -0.62), (1.12, -0.22), (1.25, 0.2), (1.6, 0.6), (0.6, 0.95),
     (-0.3, 0.95), (-0.8, 0.65)]
)  # fmt: skip


def profile(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """The face from the side: forehead, nose, lips, chin against fluid; brain behind."""
    a = fetus.head_semi_axes_mm[1] * 1.05
    front = pose(shapes.blob(rng, (0.5 * a, -1.0 * a), (1.5 * a, 0.75 * a), 0.15, 0.1))
    scene.fluid(front, echo_db=rng.uniform(-44, -34))
    features = _PROFILE * rng.uniform(0.9, 1.1, 2) + 0.02 * rng.standard_normal(_PROFILE.shape)
    skin = pose(shapes.curve(features * a, 72, closed=True))
    scene.fill(skin, LIVER_DB - rng.uniform(0, 8), texture_db=3.5, opaque=True)
    # Only the face borders on fluid; the back of the head runs into the neck and the wall.
    scene.line(skin[:50], rng.uniform(4, 16), 0.9, directivity=rng.uniform(0.7, 1.5))
    brain = pose(shapes.ellipse((-0.15 * a, 0.02 * a), (0.68 * a, 0.76 * a)))
    scene.fill(brain, fetus.brain_db, texture_db=3.0)
    vault = shapes.arc((-0.15 * a, 0.02 * a), (0.74 * a, 0.82 * a), 3.3, 5.1, 20)
    gain, loss = rng.uniform(18, 27) * fetus.bone_gain, rng.uniform(1, 4)
    scene.line(pose(vault), gain, 0.8 + 0.025 * a, loss_db=loss, directivity=0.8)
    base = np.array([(0.25, -0.55), (0.4, -0.2), (0.3, 0.3)]) * a
    scene.line(pose(shapes.curve(base, 8)), gain - 6, 0.03 * a, loss_db=2.0, directivity=0.5)
    nasal = np.array([(0.34, -0.80), (0.54, -1.04)]) * a
    scene.line(pose(nasal), gain, 0.8 + 0.02 * a, directivity=0.3)
    for x in (0.72, 0.92):
        jaw = np.array([(x, -0.68), (x + 0.04, -0.40)]) * a
        scene.line(pose(jaw), gain - 3, 0.05 * a, loss_db=3.0, directivity=0.4)
    mouth = pose(shapes.ellipse((0.80 * a, -0.58 * a), (0.05 * a, 0.16 * a), count=14))
    scene.fluid(mouth)
    body = np.array([(-0.05, 0.05), (0.1, 0.25)]) * a
    scene.line(pose(body), fetus.brain_db + 14, 0.8, directivity=0.4)


def other(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, window: Window) -> None:
    """Forearm or leg with two bones, a hand or foot, the cord, or placenta and fluid."""
    kind = rng.integers(4)
    length = 0.85 * fetus.fl_mm
    if kind == 0:
        _segment(scene, rng, pose, length, 0.6 * length + 3)
        for y in (-0.13, 0.13):
            bone = length * rng.uniform(0.85, 1)
            _long_bone(scene, rng, fetus, pose, bone, y * length, y / 3)
    elif kind == 1:
        _hand(scene, rng, fetus, pose, 0.55 * fetus.fl_mm + 4)
    elif kind == 2:
        _cord(scene, rng, pose, 0.35 * fetus.fl_mm + 4)
    else:
        slab = shapes.blob(rng, (0, 0), (0.6 * window.width, 0.22 * window.height), 0.0, 0.15)
        scene.fill(pose(slab), PLACENTA_DB, texture_db=2.0, opaque=True)
        for _ in range(3):
            at = (rng.uniform(-0.3, 0.3) * window.width, rng.uniform(-0.1, 0.1) * window.height)
            scene.fluid(pose(shapes.blob(rng, at, (0.04 * window.width, 0.03 * window.width))))
        for _ in range(2):
            at = rng.uniform(-0.35, 0.35, 2) * (window.width, window.height)
            limb(scene, rng, at, 0.12 * fetus.fl_mm + 3)


def _hand(scene: Scene, rng, fetus: Fetus, pose: Pose, size: float) -> None:
    palm = pose(shapes.blob(rng, (-0.5 * size, 0), (0.55 * size, 0.42 * size), 0.0, 0.1))
    scene.fill(palm, MUSCLE_DB + 2, opaque=True)
    scene.line(palm, 8, 0.8, closed=True)
    for k in range(5):
        turn = (k - 2) * 0.28 + 0.05 * rng.standard_normal()
        way = np.array([np.cos(turn), np.sin(turn)])
        root = np.array([-0.3 * size, 0]) + way * 0.25 * size
        tip = root + way * size * (0.95 - 0.08 * abs(k - 2))
        finger = pose(shapes.capsule(tuple(root), tuple(tip), 0.10 * size))
        scene.fill(finger, MUSCLE_DB + 3)
        for s in (0.1, 0.42, 0.72):
            part = np.stack([root + (tip - root) * s, root + (tip - root) * (s + 0.2)])
            scene.line(pose(part), 20 * fetus.bone_gain, 0.08 * size, loss_db=3.0, directivity=0.3)


def _cord(scene: Scene, rng: np.random.Generator, pose: Pose, size: float) -> None:
    """Umbilical cord loops: one wide and two narrow vessels, twisted."""
    x = np.linspace(-1.6, 1.6, 24)
    wave = 0.5 * np.sin(2.0 * x + rng.uniform(0, 6)) * rng.uniform(0.5, 1.2)
    line = np.stack([x * size, wave * size], -1).astype(np.float32)
    jacket = pose(shapes.tube(line, 0.85 * size))
    scene.fill(jacket, MUSCLE_DB, opaque=True)
    scene.line(jacket, 9, 0.8, closed=True)
    for offset, width in ((0.0, 0.3), (2.1, 0.16), (4.2, 0.16)):
        turn = 0.24 * np.sin(5.0 * x + offset) * size
        vessel = pose(shapes.tube(line + np.stack([0 * turn, turn], -1), width * size))
        scene.fluid(vessel)
        scene.line(vessel, 11, 0.6, closed=True)
