"""What lies around the structure: maternal layers, uterine wall, placenta, fluid, other parts.

Every plane gets the same kinds of surroundings, so that they do not tell the plane.
"""

import dataclasses

import numpy as np

from fetalclip_jax.phantom import shapes
from fetalclip_jax.phantom.scene import LIVER_DB, MUSCLE_DB, PLACENTA_DB, TISSUE_DB, Scene


@dataclasses.dataclass(frozen=True)
class Window:
    """The displayed window: width and height in mm, centred on the origin."""

    width: float
    height: float

    @property
    def top(self) -> float:
        return -self.height / 2


def _across(window: Window, y: float, rng: np.random.Generator, sway: float) -> np.ndarray:
    """A gently waving curve from the left of the window to the right."""
    x = np.linspace(-0.75, 0.75, 6) * window.width
    knots = np.stack([x, y + sway * rng.standard_normal(6)], -1)
    return shapes.curve(knots, 24)


def maternal(scene: Scene, rng: np.random.Generator, window: Window, bottom: float) -> None:
    """Skin, fat and muscle from the probe down to `bottom`: streaky layers."""
    count = int(rng.integers(2, 5))
    cuts = window.top + (bottom - window.top) * np.sort(rng.uniform(0.1, 1.0, count))
    floor = np.array([[0.75 * window.width, window.height], [-0.75 * window.width, window.height]])
    for y in cuts:
        layer = _across(window, y, rng, 0.012 * window.height)
        below = np.concatenate([layer, floor.astype(np.float32)])
        echo = TISSUE_DB + rng.uniform(-16.0, 2.0)
        texture, streak = rng.uniform(1.5, 5.0), rng.uniform(2.0, 6.0)
        scene.fill(below, echo, texture_db=texture, streak_db=streak)
        if rng.random() < 0.6:
            scene.line(layer, rng.uniform(0.0, 16.0), 0.8, directivity=1.5)


def limb(scene: Scene, rng: np.random.Generator, center, radius: float) -> None:
    """A limb cut across or along: a soft blob with a bright bone and its shadow."""
    stretch = rng.uniform(0.8, 1.9)
    angle = rng.uniform(0, np.pi)
    outline = shapes.blob(rng, center, (radius * stretch, radius), angle, 0.12, 24)
    scene.fill(outline, MUSCLE_DB + rng.uniform(-2, 6), texture_db=3.0, opaque=True)
    scene.line(outline, rng.uniform(2, 10), 0.8, closed=True)
    if rng.random() < 0.7:
        half = radius * (stretch - 0.55) * np.array([np.cos(angle), np.sin(angle)])
        ends = np.array([center - half, center + half], np.float32)
        gain, loss = rng.uniform(12, 24), rng.uniform(2, 9)
        scene.line(shapes.curve(ends, 5), gain, 0.3 * radius, loss_db=loss, directivity=0.6)


def uterus(
    scene: Scene,
    rng: np.random.Generator,
    window: Window,
    center: tuple[float, float],
    radius: float,
) -> None:
    """Everything behind and around a structure of about `radius` mm at `center`."""
    wall_y = min(center[1] - radius * rng.uniform(1.0, 1.15), window.top + 0.5 * window.height)
    wall_y = max(wall_y, window.top + 0.04 * window.height)
    maternal(scene, rng, window, wall_y)
    # The cavity: as wide as the window or closely around the structure; fluid or crowded.
    wide = rng.uniform(1.05, 2.2)
    tall = rng.uniform(1.02, 1.5)
    middle = (center[0] + 0.3 * radius * rng.standard_normal(), center[1] + 0.1 * radius)
    cavity = shapes.blob(rng, middle, (radius * wide * 1.1, radius * tall * 1.1), 0.0, 0.14)
    scene.line(cavity, rng.uniform(0, 16), 1.2, closed=True, directivity=1.4)
    if rng.random() < 0.5:
        scene.fluid(cavity, echo_db=rng.uniform(-44, -24))
    else:
        scene.fill(cavity, TISSUE_DB + rng.uniform(-16, 0), texture_db=4.0, streak_db=2.0)
    if rng.random() < 0.5:
        _placenta(scene, rng, middle, radius * wide * 1.1, radius * tall * 1.1)
    for _ in range(int(rng.integers(0, 5))):
        turn = rng.uniform(0, 2 * np.pi)
        reach = radius * rng.uniform(1.0, 1.6)
        at = np.array([center[0] + reach * np.cos(turn), center[1] + reach * np.sin(turn)])
        limb(scene, rng, at, radius * rng.uniform(0.12, 0.32))


def _placenta(scene: Scene, rng: np.random.Generator, center, a: float, b: float) -> None:
    start = rng.uniform(0, 2 * np.pi)
    stop = start + rng.uniform(0.8, 2.2)
    outer = shapes.arc(center, (1.15 * a, 1.15 * b), start, stop, 18)
    depth = rng.uniform(0.25, 0.5)
    bulge = (1.15 - depth * np.sin(np.linspace(0, np.pi, 18)))[::-1, None]
    inner = (outer[::-1] - center) / 1.15 * bulge + center
    scene.fill(
        np.concatenate([outer, inner]).astype(np.float32),
        PLACENTA_DB + rng.uniform(-5, 1),
        texture_db=2.0,
    )


def body_part(scene: Scene, rng: np.random.Generator, center, semi_axes, angle: float) -> None:
    """A piece of trunk next to the structure."""
    outline = shapes.blob(rng, center, semi_axes, angle, 0.1)
    scene.fill(outline, LIVER_DB + rng.uniform(-3, 2), texture_db=3.0, opaque=True)
    scene.line(outline, rng.uniform(2, 9), 0.9, closed=True)
