"""Transverse planes of the fetal head. Local x runs to the forehead, y towards the far side."""

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.growth import Fetus
from fetalclip_jax.phantom.scene import Scene
from fetalclip_jax.phantom.shapes import Pose


def _jitter(rng: np.random.Generator, spread: float = 0.08) -> float:
    return float(1 + spread * np.clip(rng.standard_normal(), -2, 2))


def _far_side(pose: Pose) -> float:
    """The sign of local y on the side that is turned away from the probe."""
    return 1.0 if pose.at(0, 1)[1] > pose.center[1] else -1.0


def skull(
    scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, opened: float = 0.0
) -> None:
    """Scalp, brain tissue and the bone ellipse whose outer edge is the head circumference.

    Args:
      opened: half the angle in radians that the bone leaves open at the back of the head.
    """
    a, b = fetus.head_semi_axes_mm
    thickness = (0.8 + 0.024 * a * fetus.bone_gain) * rng.uniform(0.5, 1.1)
    scalp = pose(shapes.ellipse((0, 0), (1.05 * a + 0.6, 1.05 * b + 0.6), count=56))
    scene.fill(scalp, rng.uniform(-12, -3), texture_db=2.0, streak_db=1.0, opaque=True)
    outline = pose(shapes.ellipse((0, 0), (a, b), count=96))
    scene.fill(outline, fetus.brain_db, texture_db=rng.uniform(2.5, 4.5), attenuation=0.2)
    scene.outline("head", outline)
    if rng.random() < 0.7:
        # Reverberation from the bone veils the half next to the probe, or hides it.
        reach = rng.uniform(0.25, 1.0)
        veil = shapes.arc((0, 0), (a, b), 0.1, np.pi - 0.1, 28)
        veil[:, 1] = -_far_side(pose) * np.maximum(veil[:, 1], (1 - reach) * b)
        level = fetus.brain_db + rng.uniform(-6, 7)
        scene.fill(pose(veil), level, texture_db=2.0, streak_db=2.5)
    inset = thickness / 2
    axes = (a - inset, b - inset)
    bone = shapes.ellipse((0, 0), axes, count=72)
    if opened:
        bone = shapes.arc((0, 0), axes, opened - np.pi, np.pi - opened, 64)
    # Bone mineralises: what lies in a late head is dark.
    loss = fetus.bone_gain * max(0.17 * a - 3.0, 0.3) * rng.uniform(0.3, 1.3)
    scene.line(
        pose(bone),
        rng.uniform(18, 27),
        thickness,
        loss_db=loss,
        directivity=rng.uniform(0.6, 3.4),
        closed=not opened,
    )
    _edge_shadows(scene, rng, outline)
    if rng.random() < 0.3:
        # The skin shows as a second, fainter line.
        skin = pose(shapes.ellipse((0, 0), (1.06 * a + 0.8, 1.06 * b + 0.8), count=48))
        scene.line(skin, rng.uniform(4, 14), 0.9, directivity=1.4, closed=True)


def _edge_shadows(scene: Scene, rng: np.random.Generator, outline: np.ndarray) -> None:
    """The bone bends sound that grazes it away: it is dark behind both sides of the head."""
    for middle in (outline[:, 0].argmin(), outline[:, 0].argmax()):
        if rng.random() < 0.3:
            continue
        around = np.arange(-rng.integers(3, 9), rng.integers(4, 10)) + middle
        loss = rng.uniform(0.5, 5.0)
        grazed = outline[around % len(outline)]
        scene.line(grazed, -60.0, rng.uniform(1.5, 4.0), loss_db=loss, directivity=0.0)


def _flecks(
    scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, middle: float, count: int
) -> None:
    """Short echoes of vessels, sulci and septa around local (`middle`, 0), in half lengths."""
    a, b = fetus.head_semi_axes_mm
    gain = rng.uniform(8, 20)
    turns = rng.uniform(0, 2 * np.pi, count)
    reach = (0.85 - abs(middle)) * rng.random(count) ** 0.6
    ways = rng.normal(0, 0.45, count)
    half = np.abs(rng.normal(0.045, 0.025, count)) * a
    levels = fetus.brain_db + gain + rng.normal(0, 4, count)
    for turn, r, way, length, level in zip(turns, reach, ways, half, levels, strict=True):
        center = np.array([(middle + r * np.cos(turn)) * a, r * b * np.sin(turn)])
        along = length * np.array([np.cos(way), np.sin(way)])
        bend = 0.35 * rng.normal() * along[::-1]
        knots = np.array([center - along, center + bend, center + along])
        scene.line(pose(knots), level, 0.4 + 0.008 * a, directivity=1.0)


def _folds(
    scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, flecked: float = 1.0
) -> None:
    """Uneven tissue, insula and a few cortical folds: short bright arcs, more of them later.

    Args:
      flecked: share of the usual number of flecks.
    """
    a, b = fetus.head_semi_axes_mm
    if rng.random() < 0.6:
        _core(scene, rng, fetus, pose)
    for _ in range(int(rng.integers(0, 3))):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
        at = (reach * a * np.cos(turn), reach * b * np.sin(turn))
        size = np.array([a, b]) * rng.uniform(0.1, 0.4, 2)
        patch = shapes.blob(rng, at, size, 0.0, 0.25, 24)
        scene.fill(pose(patch), fetus.brain_db + rng.uniform(-5, 6), texture_db=4.0)
    level = fetus.brain_db + rng.uniform(8, 18)
    for side in (-1, 1):
        if rng.random() < 0.5:
            continue
        at = (rng.normal(0.1, 0.06) * a, side * rng.uniform(0.28, 0.38) * b)
        start = rng.uniform(0.6, 1.0)
        insula = shapes.arc(at, (0.32 * a, side * 0.34 * b), start, start + 1.4, 9)
        scene.line(pose(insula), level + rng.uniform(-2, 5), 0.8, directivity=0.8)
    # Fissures and walls run along the midline in every plane: lines alone make no ventricle.
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(-0.45, 0.45), rng.choice((-1, 1)) * rng.uniform(0.12, 0.65)
        half = min(rng.uniform(0.08, 0.3), 0.85 * np.sqrt(1 - y * y) - abs(x))
        if half > 0.05:
            ends = np.array([(x - half, y), (x, y + 0.05 * rng.standard_normal()), (x + half, y)])
            ends[:, 1] += 0.12 * rng.standard_normal() * (ends[:, 0] - x)
            line = shapes.curve(ends * (a, b), 7)
            scene.line(pose(line), level + rng.uniform(-5, 6), 0.7, directivity=0.9)
    for _ in range(int(rng.integers(1, 5) + 0.5 * max(fetus.ga_weeks - 20, 0))):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.88)
        start = rng.uniform(-0.5, 0.5)
        radius = rng.uniform(0.05, 0.12) * a
        at = (reach * a * np.cos(turn), reach * b * np.sin(turn))
        fold = shapes.arc(at, (radius, radius), turn + start - 0.9, turn + start + 0.9, 6)
        scene.line(pose(fold), level + rng.uniform(-6, 4), 0.7, directivity=0.6)
    count = int(flecked * (rng.integers(4, 22) + max(fetus.ga_weeks - 20, 0)))
    _flecks(scene, rng, fetus, pose, 0.0, count)


def _core(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """The brighter middle of the brain, whose far edge shows; dark fluid and cortex around it."""
    a, b = fetus.head_semi_axes_mm
    size = np.array([rng.uniform(0.5, 0.8) * a, rng.uniform(0.35, 0.65) * b])
    core = shapes.blob(rng, (rng.normal(0, 0.08) * a, 0), size, 0.0, 0.2, 40)
    level = fetus.brain_db + rng.uniform(1, 8)
    scene.fill(pose(core), level, texture_db=rng.uniform(3, 5))
    far = _far_side(pose)
    edge = core[core[:, 1] * far > 0.4 * size[1]]
    if len(edge) > 5 and rng.random() < 0.8:
        # In the order of x: the outline may begin in the middle of this edge.
        edge = edge[np.argsort(edge[:, 0])]
        start = int(rng.integers(0, len(edge) // 2))
        stop = start + int(rng.integers(4, len(edge)))
        gain = rng.uniform(8, 20)
        scene.line(pose(edge[start:stop]), level + gain, 0.8, directivity=0.7)


def _falx(scene: Scene, rng, fetus: Fetus, pose: Pose, gaps: list[tuple[float, float]]) -> None:
    """The midline echo from forehead to occiput, open at `gaps` (fractions of the half length)."""
    a, b = fetus.head_semi_axes_mm
    level = fetus.brain_db + rng.uniform(13, 27)
    shift = 0.05 * b * np.clip(rng.standard_normal(), -2, 2)
    # The echo fades where the beam or the plane misses it.
    ends = rng.uniform(0.55, 0.92, 2)
    missed = rng.uniform(-0.8, 0.8)
    gaps = [*gaps, (missed - 0.06, missed + 0.06)]
    at = ends[0]
    for stop, start in [*sorted(gaps, reverse=True), (-ends[1], -ends[1])]:
        start, stop = (stop, start) if start < stop else (start, stop)
        if at - start > 0.03:
            x = np.linspace(at, start, 7, dtype=np.float32)
            y = shift + 0.012 * b * rng.standard_normal(7).astype(np.float32)
            thickness = (0.4 + 0.010 * a) * rng.uniform(0.8, 1.4)
            scene.line(pose(np.stack([x * a, y], -1)), level, thickness, directivity=0.5)
        at = min(at, stop)


def _cavum(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose, x: float) -> None:
    """Cavum septi pellucidi: a dark box between two short parallel bars."""
    a, b = fetus.head_semi_axes_mm
    length, half = 0.15 * a * _jitter(rng, 0.25), 0.075 * b * _jitter(rng, 0.2)
    box = [(x * a - length, -half), (x * a + length, -half), (x * a + length, half)]
    box = np.array([*box, (x * a - length, half)], np.float32)
    scene.fluid(pose(box), echo_db=rng.uniform(-42, -28))
    level = fetus.brain_db + rng.uniform(14, 26)
    for side in (-1, 1):
        slip = 0.04 * a * rng.standard_normal()
        bar = np.array([(x * a - length + slip, side * half), (x * a + length + slip, side * half)])
        scene.line(pose(bar), level + rng.uniform(-5, 3), 0.5 + 0.012 * a, directivity=0.6)


def _thalami(scene: Scene, rng, fetus: Fetus, pose: Pose, size: float, clarity: float) -> None:
    """Two lobes either side of the midline, a little darker than the tissue that rims them."""
    a, b = fetus.head_semi_axes_mm
    clarity = clarity * rng.uniform(0.0, 0.6)
    shift = 0.03 * a * rng.standard_normal()
    length, width = 0.25 * a * size * _jitter(rng, 0.12), 0.36 * b * size * _jitter(rng, 0.12)
    halo = shapes.blob(rng, (shift - 0.04 * a, 0), (1.5 * length, 1.4 * width), 0.0, 0.15)
    scene.fill(pose(halo), fetus.brain_db + rng.uniform(3, 10) * clarity, texture_db=3.5)
    for side in (-1, 1):
        knots = np.array([(1.0, 0.06), (0.25, 0.72), (-0.35, 1.0), (-1.0, 0.55), (-0.8, 0.06)])
        knots = knots * (1 + 0.08 * rng.standard_normal(knots.shape))
        knots = knots * (length, side * width) + (shift, 0)
        lobe = pose(shapes.curve(knots, 26, closed=True))
        scene.fill(lobe, fetus.brain_db - rng.uniform(8, 16) * clarity, texture_db=2.0)
        rim = lobe[: int(rng.integers(10, 27))]
        scene.line(rim, fetus.brain_db + rng.uniform(6, 14) * clarity, 0.7, directivity=0.7)
    third = np.array([(shift - 0.5 * length, 0), (shift + 0.7 * length, 0)], np.float32)
    scene.line(pose(third), fetus.brain_db + rng.uniform(6, 18), 0.6, directivity=0.5)


def _frontal_horns(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    a, b = fetus.head_semi_axes_mm
    for side in (-1, 1):
        if rng.random() < 0.3:
            continue
        horn = np.array([(0.34, 0.10), (0.46, 0.16), (0.60, 0.32)]) * (a, side * b)
        line = pose(shapes.curve(horn, 7))
        scene.fill(shapes.tube(line, 0.09 * b), fetus.brain_db - 14, texture_db=0.5)
        level = fetus.brain_db + rng.uniform(8, 18)
        scene.line(line + np.array([0, 0.045 * b]), level, 0.7, directivity=0.6)


def transthalamic(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Thalami, cavum septi pellucidi and a midline broken by both."""
    skull(scene, rng, fetus, pose)
    _folds(scene, rng, fetus, pose, flecked=0.4)
    cavum = 0.48 + 0.04 * rng.standard_normal()
    _falx(scene, rng, fetus, pose, [(cavum - 0.17, cavum + 0.17), (-0.28, 0.26)])
    _thalami(scene, rng, fetus, pose, 1.0, 1.0)
    if rng.random() < 0.85:
        _cavum(scene, rng, fetus, pose, cavum)
    if rng.random() < 0.5:
        _frontal_horns(scene, rng, fetus, pose)
    if rng.random() < 0.06:
        # A cut a little higher or oblique meets the edge of a ventricle.
        _ventricle(scene, rng, fetus, pose, float(rng.choice((-1, 1))), 0.3)


def transcerebellar(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Cerebellum (a dumbbell) in front of a dark cisterna magna; thalami and cavum further on."""
    a, b = fetus.head_semi_axes_mm
    # A cut this low may pass below the occipital bone.
    opened = rng.uniform(0.15, 0.75) if rng.random() < 0.6 else 0.0
    skull(scene, rng, fetus, pose, opened)
    if opened:
        reach = 1.2 * opened
        nape = shapes.arc((0, 0), (1.04 * a, 1.02 * b), np.pi - reach, np.pi + reach, 14)
        scene.line(pose(nape), rng.uniform(4, 18), rng.uniform(1.0, 4.0), directivity=0.3)
    _folds(scene, rng, fetus, pose)
    cavum = 0.52 + 0.04 * rng.standard_normal()
    _falx(scene, rng, fetus, pose, [(cavum - 0.17, cavum + 0.17), (-0.92, 0.30)])
    _thalami(scene, rng, fetus, pose, 0.75, 0.4)
    if rng.random() < 0.7:
        _cavum(scene, rng, fetus, pose, cavum)
    half = min(0.62 * fetus.cerebellum_mm * _jitter(rng, 0.06), 0.62 * b)
    depth = 0.42 * half * _jitter(rng, 0.12)
    x = -a * rng.uniform(0.5, 0.62)
    # Tentorium and brain stem make the back of the cut bright and uneven, the front stays dark.
    back = shapes.blob(rng, (-0.42 * a, 0), (0.42 * a, 1.25 * half), 0.0, 0.15)
    scene.fill(pose(back), fetus.brain_db + rng.uniform(4, 11), texture_db=4.0)
    _stipple(scene, rng, fetus, pose)
    _cisterna(scene, rng, fetus, pose, x, half)
    level = fetus.brain_db + rng.uniform(4, 13)
    rim = fetus.brain_db + rng.uniform(17, 26)
    far = _far_side(pose)
    for side in (-1, 1):
        # The half next to the probe lies in the veil of the bone.
        clarity = 1.0 if side == far else rng.uniform(0.5, 1.0)
        tilt = -side * rng.uniform(0.05, 0.45)
        lobe = shapes.blob(rng, (x, side * 0.52 * half), (depth, 0.52 * half), tilt, 0.14)
        scene.fill(pose(lobe), fetus.brain_db + (level - fetus.brain_db) * clarity, texture_db=3.5)
        for _ in range(int(rng.integers(1, 4))):
            at = (x + 0.4 * depth * rng.standard_normal(), side * 0.52 * half)
            start = rng.uniform(-0.9, 0.3)
            folium = shapes.arc(at, (0.6 * depth, 0.42 * half), start, start + 1.0, 6)
            scene.line(pose(folium), level + rng.uniform(2, 10) * clarity, 0.6, directivity=0.6)
        first, length = int(rng.integers(0, 36)), int(rng.integers(24, 37))
        edge = np.roll(lobe, -first, axis=0)[:length]
        scene.line(pose(edge), rim - 12 * (1 - clarity), 0.9, directivity=0.6)
    # Tentorium and the margins of the lobes: arcs across the midline, one behind the other.
    for _ in range(int(rng.integers(1, 6))):
        reach, span = rng.uniform(0.35, 0.85), rng.uniform(0.3, 0.9)
        turn = np.pi + rng.normal(0, 0.2)
        size = (reach * a, 1.2 * reach * b)
        line = shapes.arc((0, 0), size, turn - span, turn + rng.uniform(0.2, 1.0) * span, 10)
        echo_db = fetus.brain_db + rng.uniform(10, 24)
        scene.line(pose(line), echo_db, 0.5 + 0.01 * a, directivity=rng.uniform(0, 0.8))
    vermis = shapes.blob(rng, (x, 0), (0.75 * depth, 0.22 * half), 0.0, 0.15, 20)
    scene.fill(pose(vermis), fetus.brain_db + rng.uniform(8, 18), texture_db=2.0)


def _stipple(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Folia, vessels and cisterns of the posterior fossa: many short echoes side by side."""
    a, b = fetus.head_semi_axes_mm
    count = int(rng.integers(15, 70))
    gain = rng.uniform(10, 24)
    front, height = rng.uniform(-0.3, 0.1), rng.uniform(0.55, 0.85)
    for _ in range(count):
        x = rng.uniform(-0.82, front)
        y = rng.uniform(-1, 1) * height * np.sqrt(max(1 - x * x, 0.1))
        way = rng.normal(np.pi / 2, 0.7)
        length = rng.uniform(0.015, 0.06) * a
        along = length * np.array([np.cos(way), np.sin(way)])
        center = np.array([x * a, y * b])
        level = fetus.brain_db + gain + rng.normal(0, 5)
        ends = pose(np.array([center - along, center + along]))
        scene.line(ends, level, 0.4 + 0.008 * a, directivity=0.3)


def _cisterna(scene: Scene, rng, fetus: Fetus, pose: Pose, x: float, half: float) -> None:
    """Cisterna magna: from the back of the cerebellum to the occipital bone."""
    a, b = fetus.head_semi_axes_mm
    edge = np.arcsin(min(0.95, 0.85 * half / b))
    bone = shapes.arc((0, 0), (0.93 * a, 0.93 * b), np.pi - edge, np.pi + edge, 13)
    front = np.array([(x, -0.8 * half), (x, 0.8 * half)], np.float32)
    scene.fluid(pose(np.concatenate([bone, front])), echo_db=rng.uniform(-44, -32))
    if rng.random() < 0.6:
        # The fold of skin at the neck.
        fold = shapes.arc((0, 0), (1.1 * a, 1.08 * b), np.pi - edge, np.pi + edge, 11)
        scene.line(pose(fold), rng.uniform(8, 20), 1.2, directivity=0.7)


def _ventricle(scene: Scene, rng, fetus: Fetus, pose: Pose, side: float, clarity: float) -> None:
    """A lateral ventricle: dark, between bright walls, around its choroid plexus."""
    a, b = fetus.head_semi_axes_mm
    # Early brains are mostly ventricle filled with choroid plexus.
    early = float(np.clip((21.0 - fetus.ga_weeks) / 6.0, 0, 1))
    spine = np.array([(-0.74, 0.42), (-0.45, 0.43), (-0.1, 0.32), (0.22, 0.24)])
    spine = spine + 0.03 * rng.standard_normal(spine.shape)
    line = shapes.curve(spine * (a, side * b * _jitter(rng, 0.06)), 14)
    widths = np.interp(np.linspace(0, 1, 14), (0, 0.35, 0.7, 1), (0.6, 1.0, 0.7, 0.3))
    wide = rng.uniform(0.24, 0.42) + 0.14 * early
    body = shapes.tube(line, widths * b * wide)
    scene.fill(pose(body), fetus.brain_db - rng.uniform(16, 30) * clarity, texture_db=0.8)
    level = fetus.brain_db + rng.uniform(12, 22) - 12 * (1 - clarity)
    for wall in (body[2:14], body[16:24]):
        start = int(rng.integers(0, 4))
        stop = len(wall) - int(rng.integers(0, 3))
        scene.line(pose(wall[start:stop]), level + rng.uniform(-6, 2), 0.8, directivity=0.9)
    # The plexus hangs in the back part and shrinks against the head as it grows.
    first = int(rng.integers(1, 4))
    count = min(int(rng.integers(4, 8)) + round(3 * early), 14 - first)
    plexus = shapes.tube(
        line[first : first + count] + np.array([0, 0.04 * side * b]),
        np.interp(np.linspace(0, 7, count), np.arange(8), _PLEXUS)
        * b
        * (rng.uniform(0.17, 0.36) + 0.18 * early),
    )
    brightness = fetus.brain_db + rng.uniform(12, 25) * clarity
    scene.fill(pose(plexus), brightness, texture_db=rng.uniform(1.0, 3.0))


# Relative width of the choroid plexus from back to front: a drop that tapers forwards.
_PLEXUS = np.array([0.6, 0.9, 1.0, 1.0, 0.9, 0.75, 0.55, 0.3])


def transventricular(scene: Scene, rng: np.random.Generator, fetus: Fetus, pose: Pose) -> None:
    """Lateral ventricle with its bright choroid plexus, in the far half (and faintly the near)."""
    skull(scene, rng, fetus, pose)
    _folds(scene, rng, fetus, pose)
    cavum = 0.46 + 0.04 * rng.standard_normal()
    _falx(scene, rng, fetus, pose, [(cavum - 0.17, cavum + 0.17)])
    if rng.random() < 0.12:
        _thalami(scene, rng, fetus, pose, 0.8, 0.3)
    if rng.random() < 0.8:
        _cavum(scene, rng, fetus, pose, cavum)
    if rng.random() < 0.6:
        _frontal_horns(scene, rng, fetus, pose)
    far = _far_side(pose)
    if rng.random() < 0.5:
        _ventricle(scene, rng, fetus, pose, -far, rng.uniform(0.3, 0.7))
    _ventricle(scene, rng, fetus, pose, far, rng.uniform(0.75, 1.05))


BUILDERS = {
    "trans-thalamic": transthalamic,
    "trans-cerebellum": transcerebellar,
    "trans-ventricular": transventricular,
}
