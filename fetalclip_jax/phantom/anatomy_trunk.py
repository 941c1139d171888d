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
    gain = rng.uniform(10, 22) * fetus.bone_gain
    loss = rng.uniform(2, 10)
    for dx, dy in ((0.75, 0.0), (-0.5, 0.7), (-0.5, -0.7)):
        dx, dy = np.array([dx, dy]) + 0.12 * rng.standard_normal(2)
        half = 0.3 * rng.uniform(0.5, 1.3)
        at = np.array([(x + dx * size, (dy - half) * size), (x + dx * size, (dy + half) * size)])
        level = gain + rng.uniform(-6, 2)
        scene.line(pose(at), level, 0.55 * size, loss_db=loss, directivity=0.2)
    scene.outline("spine", pose(shapes.ellipse((x, 0), (1.2 * size, 1.15 * size), count=24)))


def ribs(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, a, b) -> None:
    """A few pieces of rib under the skin, each with its shadow."""
    loss = rng.uniform(1, 6)
    for side in (-1, 1):
        start = rng.uniform(0.3, 0.9)
        for _ in range(int(rng.integers(0, 3))):
            stop = start + rng.uniform(0.25, 0.9)
            rib = shapes.arc((0, 0), (0.88 * a, side * 0.88 * b), start, stop, 9)
            gain = rng.uniform(8, 20) * fetus.bone_gain
            scene.line(pose(rib), gain, 0.045 * a, loss_db=loss, directivity=0.8)
            start = stop + rng.uniform(0.1, 0.4)


def trunk(scene: Scene, rng, fetus: Fetus, pose: Pose, outline, a: float, echo_db: float) -> None:
    """Skin and filling of a trunk cut across, with the spine at local -x."""
    wall = echo_db + rng.uniform(-4, 7)
    scene.fill(pose(outline), wall, texture_db=2.5, streak_db=1.5, attenuation=0.2, opaque=True)
    inside = outline * np.float32(rng.uniform(0.87, 0.94))
    texture = rng.uniform(0.8, 3.0)
    scene.fill(pose(inside), echo_db, texture_db=texture)
    # The skin shows where the beam meets it squarely, and hardly at the sides.
    scene.line(
        pose(outline), rng.uniform(7, 20), rng.uniform(0.9, 1.8), closed=True,
        directivity=rng.uniform(0.7, 1.8), loss_db=rng.uniform(0, 1.5),
    )  # fmt: skip
    if rng.random() < 0.4:
        # The lining of the cavity as a second line.
        level = rng.uniform(3, 12)
        scene.line(pose(inside), level, 0.9, closed=True, directivity=rng.uniform(0.8, 1.8))
    vertebra(scene, rng, fetus, pose, -0.76 * a, 0.135 * a * rng.uniform(0.8, 1.15))


def specks(scene: Scene, rng: np.random.Generator, pose: Pose, a, b, echo_db, count: int) -> None:
    """Small vessels cut across and short bright walls, anywhere inside."""
    turns = rng.uniform(0, 2 * np.pi, count)
    reach = 0.78 * np.sqrt(rng.random(count))
    sizes = a * rng.uniform(0.015, 0.04, count)
    for k, (turn, r, size) in enumerate(zip(turns, reach, sizes, strict=True)):
        at = (r * a * np.cos(turn), r * b * np.sin(turn))
        if k % 2:
            vessel = shapes.ellipse(at, (size * rng.uniform(1, 2.5), size), rng.uniform(0, 3), 10)
            scene.fill(pose(vessel), echo_db - rng.uniform(4, 18), texture_db=0.5)
        else:
            way = rng.normal(0, 0.8)
            along = 1.5 * size * np.array([np.cos(way), np.sin(way)])
            wall = np.array([np.array(at) - along, np.array(at) + along])
            scene.line(pose(wall), echo_db + rng.uniform(8, 20), 0.7, directivity=0.7)


def trunk_outline(
    rng: np.random.Generator, girth_mm: float, ratios: tuple[float, float]
) -> tuple[np.ndarray, float, float]:
    """A slightly irregular ellipse of about `girth_mm`, and its semi-axes."""
    ratio = rng.uniform(*ratios)
    a = girth_mm / (np.pi * (1 + ratio))
    outline = shapes.blob(rng, (0, 0), (a, a * ratio), 0.0, rng.uniform(0.0, 0.05), 64)
    return outline, a, a * ratio


def abdomen(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Stomach bubble, umbilical vein, spine, aorta and vena cava in homogeneous liver."""
    outline, a, b = trunk_outline(rng, fetus.ac_mm, (0.82, 1.0))
    liver = LIVER_DB + rng.uniform(-6, 3)
    trunk(scene, rng, fetus, pose, outline, a, liver)
    scene.outline("abdomen", pose(outline))
    ribs(scene, rng, fetus, pose, a, b)
    specks(scene, rng, pose, a, b, liver, int(rng.integers(4, 14)))
    for x, y, r in ((-0.50, -0.10, 0.075), (-0.42, 0.17, 0.065)):
        x, y = np.array([x, y]) + 0.03 * rng.standard_normal(2)
        vessel = pose(shapes.ellipse((x * a, y * b), (r * a, r * a), count=14))
        scene.fluid(vessel, echo_db=rng.uniform(-42, -22))
        scene.line(vessel, rng.uniform(0, 10), 0.6, closed=True, directivity=0.8)
    if rng.random() < 0.5:
        # Bowel, or the adrenal, beside the spine: bright and uneven.
        at = (rng.uniform(-0.35, 0.0) * a, rng.choice((-1, 1)) * rng.uniform(0.25, 0.6) * b)
        patch = shapes.blob(rng, at, (0.2 * a, 0.14 * a), rng.uniform(0, 3), 0.3, 18)
        scene.fill(pose(patch), liver + rng.uniform(2, 8), texture_db=4.0)
    center = (rng.uniform(-0.3, 0.15) * a, -b * rng.uniform(0.34, 0.6))
    size = (rng.uniform(0.15, 0.36) * a, rng.uniform(0.11, 0.24) * b)
    stomach = shapes.blob(rng, center, size, rng.uniform(-0.8, 0.8), 0.25)
    # A full stomach reaches the wall and goes no further.
    stomach = _kept_inside(stomach, a, b)
    scene.fluid(pose(stomach), mask="stomach", echo_db=rng.uniform(-44, -28))
    scene.line(pose(stomach), rng.uniform(0, 9), 0.8, closed=True, directivity=1.2)
    _umbilical_vein(scene, rng, pose, a, b)


def _kept_inside(points: np.ndarray, a: float, b: float) -> np.ndarray:
    reach = np.hypot(points[:, 0] / a, points[:, 1] / b)
    return points * np.minimum(1, 0.88 / np.maximum(reach, 1e-6))[:, None].astype(np.float32)


def _umbilical_vein(scene: Scene, rng, pose: Pose, a: float, b: float) -> None:
    """From the front it hooks towards the right side (portal sinus); mostly a part is seen."""
    vein = np.array([(0.62, 0.02), (0.38, 0.02), (0.15, 0.06), (0.02, 0.2), (-0.02, 0.36)])
    vein = shapes.curve((vein + 0.04 * rng.standard_normal((5, 2))) * (a, b), 16)
    start = int(rng.integers(0, 8))
    vein = vein[start : start + int(rng.integers(6, 17))]
    tube = pose(shapes.tube(vein, 0.10 * a * rng.uniform(0.7, 1.2)))
    scene.fluid(tube, echo_db=rng.uniform(-42, -26))
    scene.line(tube, rng.uniform(2, 13), 0.7, closed=True, directivity=1.3)


def kidney(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Both kidneys beside the spine cut across, or one kidney along its length."""
    outline, a, b = trunk_outline(rng, fetus.ac_mm, (0.85, 1.0))
    echo = LIVER_DB + rng.uniform(-5, 3)
    trunk(scene, rng, fetus, pose, outline, a, echo)
    if rng.random() < 0.6:
        for side in (-1, 1):
            center = np.array([-0.42 * a, side * 0.42 * b]) + 0.04 * a * rng.standard_normal(2)
            size = np.array([0.34 * a, 0.28 * b]) * rng.uniform(0.85, 1.15, 2)
            _renal(scene, rng, pose, center, size, side * rng.uniform(0.2, 0.8), echo)
    else:
        size = np.array([0.58 * a, 0.32 * b]) * rng.uniform(0.85, 1.15, 2)
        _renal(scene, rng, pose, (-0.1 * a, 0.1 * b), size, rng.uniform(0.9, 1.7), echo)
    for _ in range(4):
        at = (rng.uniform(0.2, 0.7) * a, rng.uniform(-0.5, 0.5) * b)
        bowel = shapes.blob(rng, at, (0.12 * a, 0.08 * a), rng.uniform(0, 3), 0.2, 16)
        scene.fill(pose(bowel), echo + rng.uniform(2, 8))


def _renal(scene: Scene, rng, pose: Pose, center, semi_axes, angle: float, echo: float) -> None:
    """A kidney: dark cortex and pyramids, bright capsule and sinus, a dark pelvis."""
    body = shapes.blob(rng, center, semi_axes, angle, 0.1)
    scene.fill(pose(body), echo - rng.uniform(6, 13), texture_db=2.5)
    scene.line(pose(body), rng.uniform(6, 16), 0.9, closed=True, directivity=0.9)
    inner = Pose(center, angle)
    depth = rng.uniform(12, 24)
    for x in np.linspace(-0.62, 0.62, 5) + 0.04 * rng.standard_normal(5):
        for side in (-1, 1):
            if rng.random() < 0.2:
                continue
            y = side * 0.58 * np.sqrt(1 - x * x)
            dot = shapes.ellipse((0, 0), (0.11 * semi_axes[0], 0.16 * semi_axes[1]), count=10)
            at = np.array([x * semi_axes[0], y * semi_axes[1]])
            scene.fill(pose(inner(dot + at)), echo - depth)
    sinus = shapes.blob(rng, (0, 0), (0.5 * semi_axes[0], 0.26 * semi_axes[1]), 0.0, 0.2, 20)
    scene.fill(pose(inner(sinus)), echo + rng.uniform(6, 13), texture_db=3.0)
    pelvis = np.array([0.32 * semi_axes[0], 0.15 * semi_axes[1]]) * rng.uniform(0.6, 1.3)
    pelvis = shapes.ellipse((0, 0), pelvis, count=16)
    scene.fluid(pose(inner(pelvis)), echo_db=rng.uniform(-44, -24))


def spine(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """The spine along its length: two rows of bright centres that meet at the sacrum."""
    length = 2.6 * fetus.fl_mm + 8
    bend = rng.uniform(-0.18, 0.18)
    t = np.linspace(-0.5, 0.5, 30)
    axis = np.stack([t * length, bend * length * (t**2 - 0.1)], -1).astype(np.float32)
    girth = 0.22 * length
    middle = shapes.curve(axis[::6], 20) + np.array([0, 0.5 * girth])
    body = pose(shapes.tube(middle, 1.7 * girth))
    scene.fill(body, LIVER_DB + rng.uniform(-8, 3), texture_db=3.5, streak_db=2.0, opaque=True)
    scene.line(body, rng.uniform(2, 14), 0.9, closed=True, directivity=1.4)
    gap = 0.026 * length * np.interp(t, (-0.5, -0.38, 0.3, 0.5), (0.25, 0.9, 1.0, 1.3))
    count = int(rng.integers(15, 20))
    canal = pose(shapes.tube(axis, 1.5 * gap))
    scene.fill(canal, MUSCLE_DB - rng.uniform(6, 18), texture_db=1.0)
    gain, loss = rng.uniform(15, 25) * fetus.bone_gain, rng.uniform(1, 4)
    where = np.linspace(0, 29, count)
    half = 0.16 * length / count
    for side in (-1, 1):
        x = np.interp(where, np.arange(30), axis[:, 0])
        y = np.interp(where, np.arange(30), axis[:, 1] + side * gap)
        for px, py in zip(x, y, strict=True):
            block = np.array([(px - half, py), (px + half, py)], np.float32)
            block += 0.1 * gap.mean() * rng.standard_normal(2)
            level = gain + rng.uniform(-6, 2)
            scene.line(pose(block), level, 0.014 * length, loss_db=loss, directivity=0.4)


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
    scene.line(pose(sac), rng.uniform(2, 12), 1.0, closed=True, directivity=1.3)
    if rng.random() < 0.65:
        at = (flip * rng.uniform(1.65, 1.9) * size, rng.uniform(-0.25, 0.15) * size)
        head = pose(shapes.ellipse(at, (0.78 * size, 0.68 * size), rng.uniform(0, 3)))
        scene.fill(head, rng.uniform(-18, -8), texture_db=3.0, opaque=True)
        scene.line(head, rng.uniform(16, 26), 1.8, loss_db=rng.uniform(2, 6), closed=True)
    if rng.random() < 0.7:
        at = (flip * rng.uniform(0.1, 0.7) * size, -rng.uniform(0.75, 1.0) * size)
        bladder = pose(shapes.blob(rng, at, (0.75 * size, 0.24 * size), flip * 0.25, 0.2))
        scene.fluid(bladder)
        scene.line(bladder, rng.uniform(5, 16), 1.0, closed=True, directivity=1.3)
    body = np.array([(0.95, -0.42), (0.2, -0.52), (-0.7, -0.5), (-1.05, -0.1)]) * size
    body = np.concatenate([body, body[::-1] * (1, -1)]) * (flip, 1)
    body = pose(shapes.curve(body, 40, closed=True))
    scene.fill(body, TISSUE_DB + rng.uniform(-12, -2), texture_db=3.0, streak_db=2.5)
    scene.line(body, rng.uniform(3, 13), 1.0, closed=True, directivity=1.2)
    bow = rng.uniform(-0.12, 0.12) * size
    canal = np.array([(0.85, 0), (0.3, 0.5), (-0.3, 0.9), (-0.95, 0.3)]) * (flip * size, bow)
    canal = shapes.curve(canal, 14)
    halo = shapes.tube(canal, rng.uniform(0.15, 0.3) * size)
    scene.fill(pose(halo), TISSUE_DB - rng.uniform(10, 20), texture_db=1.5)
    scene.line(pose(canal), rng.uniform(7, 17), 0.9, directivity=0.4)
