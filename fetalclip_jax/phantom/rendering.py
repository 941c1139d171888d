"""From a scene to a picture: scatterers, beam, compression, scan conversion, decoration."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from fetalclip_jax.phantom import speckle
from fetalclip_jax.phantom.beam import Geometry, paint
from fetalclip_jax.phantom.machine import Machine
from fetalclip_jax.phantom.scene import Scene

_DECIBEL = np.float32(np.log(10.0) / 20.0)
_TICK_MM = 10.0
# How many neighbourhoods of compounding lie side by side.
_NEIGHBOURHOODS = 50


def _texture(rng: np.random.Generator, geometry: Geometry, cell_mm: tuple[float, float]):
    """Smooth unit-variance noise with cells of (depth, lateral) mm; float32 [depth, lines]."""
    depth, lines = geometry.shape
    rows = max(3, round(depth * geometry.sample_mm / cell_mm[0]))
    columns = max(3, round(lines * geometry.line_mm() / cell_mm[1]))
    noise = rng.standard_normal((rows, columns), dtype=np.float32)
    # Cubic interpolation loses about a third of the spread of white noise.
    return cv2.resize(noise, (lines, depth), interpolation=cv2.INTER_CUBIC) * np.float32(1.4)


def _defocus(rng: np.random.Generator, depth: int) -> np.ndarray:
    """Weight of the wide beam at every depth: none at the focus, growing away from it."""
    position = np.linspace(0, 1, depth, dtype=np.float32)
    focus, zone = rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.6)
    return np.clip(((position - focus) / zone) ** 2, 0, 1)


def backscatter(
    scene: Scene, geometry: Geometry, machine: Machine, rng: np.random.Generator
) -> Float[np.ndarray, "depth lines"]:
    """Received amplitude on the scan grid before compression (reference tissue: mean power 1)."""
    echoes = paint(scene, geometry)
    blotches = _texture(rng, geometry, (3.0, 4.0)) + 0.7 * _texture(rng, geometry, (12.0, 16.0))
    streaks = _texture(rng, geometry, (1.8, 14.0))
    level = echoes.diffuse_db + echoes.texture_db * blotches + echoes.streak_db * streaks
    amplitude = np.exp(level * _DECIBEL)

    depth = geometry.shape[0]
    axial = max(0.55, machine.axial_mm / geometry.sample_mm)
    narrow = max(0.55, machine.lateral_mm / geometry.line_mm())
    spread = speckle.PointSpread(axial, (narrow, 2.2 * narrow), _defocus(rng, depth))
    # Undo the gain that the point spread gives to anything constant.
    coherent = echoes.specular * np.exp(np.float32(0.35) * blotches) / spread.gain[:, None]
    interfaces = cv2.merge([coherent, _reverberation(coherent, rng, geometry)])
    amplitudes = cv2.merge([amplitude, amplitude])
    # Each look insonifies from another angle or at another frequency: other scatterers of the same
    # tissue. Interfaces are coherent and look the same from everywhere.
    noise = speckle.scatterers(rng, geometry.shape)
    power = np.zeros(geometry.shape, np.float32)
    for look in range(machine.looks):
        field = speckle.other_look(noise, look) * amplitudes
        field += interfaces
        power += speckle.power(spread(field))
    received = np.sqrt(power / machine.looks) * np.exp(-echoes.loss_db * _DECIBEL)

    # Electronic noise is not focused: the same random numbers, out of step with the tissue.
    rise = machine.noise_rise_db * np.linspace(-0.5, 0.5, depth, dtype=np.float32)
    floor = np.exp((machine.noise_db + rise) * _DECIBEL)
    hiss = np.roll(noise[..., 0], depth // 2, axis=0) * floor[:, None]
    return np.sqrt(received * received + hiss * hiss)


def _reverberation(coherent: np.ndarray, rng: np.random.Generator, geometry: Geometry):
    """Weak late copies of strong interfaces: the haze behind the near skull."""
    depth = len(coherent)
    late = np.zeros_like(coherent)
    for delay_mm in rng.uniform(2.0, 16.0, 3):
        delay = min(depth - 1, max(1, round(delay_mm / geometry.sample_mm)))
        strength = np.float32(10 ** (rng.uniform(-42.0, -25.0) / 20))
        late[delay:] += strength * coherent[: depth - delay]
    return late


def gain_curve(rng: np.random.Generator, depth: int) -> Float[np.ndarray, "depth"]:
    """The operator's imperfect time-gain compensation in dB: overall, slope, a wave, a dark end."""
    z = np.linspace(-0.5, 0.5, depth, dtype=np.float32)
    overall, slope, wave, phase = rng.standard_normal(4)
    curve = 2.5 * overall + (2.5 + 4.5 * slope) * z + 2.0 * wave * np.sin(5 * z + 3 * phase)
    reach, fall = rng.uniform(-0.2, 0.5), rng.exponential(8.0)
    return (curve - fall * np.maximum(z - reach, 0) ** 2 * 4).astype(np.float32)


def _operator_gain(amplitude: np.ndarray, gain_db: np.ndarray) -> np.float32:
    """What the operator turns the overall gain by, in dB, until the brighter tissue shows."""
    level = np.log(amplitude[::6, ::6] + 1e-6) / _DECIBEL + gain_db[::6, ::6]
    return np.float32(np.clip(0.6 * (-3.0 - np.percentile(level, 75)), -6.0, 16.0))


def contact(rng: np.random.Generator, lines: int) -> Float[np.ndarray, "lines"]:
    """How well the probe touches the skin along its face, in dB.

    It fades at the ends, varies, and is lost behind gas, ribs or hair.
    """
    x = np.linspace(-1, 1, lines, dtype=np.float32)
    left, right = rng.uniform(-3.0, 14.0, 2).clip(0)
    wave, phase = rng.standard_normal(2)
    curve = 1.5 * wave * np.sin(4 * x + 3 * phase) - np.where(x < 0, left, right) * np.abs(x) ** 3
    for _ in range(int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1)))):
        # Mostly at the sides: operators keep the structure in the clear.
        middle = rng.choice((-1, 1)) * rng.beta(2.5, 1.2)
        depth, width = rng.uniform(4.0, 24.0), rng.uniform(0.06, 0.3)
        curve = curve - depth * np.exp(-(((x - middle) / width) ** 2))
    return curve.astype(np.float32)


def compress(
    amplitude: Float[np.ndarray, "depth lines"], gain_db: np.ndarray, machine: Machine
) -> Float[np.ndarray, "depth lines"]:
    """Speckle reduction and log compression to grey levels 0 to 1; `gain_db` broadcasts."""
    # Compounding pulls every sample towards its neighbourhood.
    share = np.float32(machine.compounding)
    reach = max(3, round(amplitude.shape[1] / _NEIGHBOURHOODS))
    around = cv2.blur(amplitude, (reach, 3))
    log = (1 - share) * np.log(amplitude + 1e-6) + share * np.log(around + 1e-6)
    decibel = log / _DECIBEL + gain_db
    # White is where it is whatever the dynamic range.
    grey = np.clip(1 + (decibel - machine.white_db) / machine.dynamic_range_db, 0, 1)
    return grey ** np.float32(machine.grey_gamma)


def render(
    scene: Scene,
    geometry: Geometry,
    machine: Machine,
    rng: np.random.Generator,
    shape: tuple[int, int],
    spacing_mm: float,
) -> UInt8[np.ndarray, "h w"]:
    """The displayed picture of `shape` (height, width) at `spacing_mm` per pixel."""
    amplitude = backscatter(scene, geometry, machine, rng)
    gain_db = gain_curve(rng, geometry.shape[0])[:, None] + contact(rng, geometry.shape[1])
    # From careful settings and full contact to the opposite.
    gain_db *= np.float32(rng.uniform(0.0, 1.2))
    gain_db += _operator_gain(amplitude, gain_db)
    grey = compress(amplitude, gain_db, machine)
    lines, samples = geometry.scan_conversion(*shape, spacing_mm)
    picture = cv2.remap(grey, lines, samples, cv2.INTER_LINEAR, borderValue=0)
    scale = max(shape) / 96
    if machine.smoothing > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), machine.smoothing * scale**0.5)
    if machine.sharpening:
        soft = cv2.GaussianBlur(picture, (0, 0), 1.2 * scale**0.5)
        picture = picture + machine.sharpening * (picture - soft)
        picture[(lines < 0) | (lines > geometry.shape[1] - 1)] = 0
    image = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    _decorate(image, machine, rng, spacing_mm, geometry)
    return image


def _decorate(image, machine: Machine, rng, spacing_mm: float, geometry: Geometry) -> None:
    """Black band, text, grey bar and depth marks every 10 mm; drawn in place."""
    height, width = image.shape
    unit = max(1, round(width / 110))
    if machine.band:
        image[height - round(machine.band * height) :] = 0
    _write(image, machine, rng)
    if machine.grey_bar:
        length = round((0.3 if machine.grey_bar == 1 else 0.13) * height)
        ramp = np.linspace(255, 30, length).astype(np.uint8)[:, None]
        thickness = round(1.5 * unit) if machine.grey_bar == 1 else machine.grey_bar * unit
        image[2 * unit : 2 * unit + length, :thickness] = ramp
    if machine.ticks != "none":
        top = -height * spacing_mm / 2
        start = top if geometry.apex_mm is None else geometry.apex_mm[1] + geometry.depth_mm[0]
        first = _TICK_MM - (top - start) % _TICK_MM
        rows = np.arange(first, height * spacing_mm, _TICK_MM) / spacing_mm
        length = machine.tick_length * unit
        for row in np.rint(rows).astype(int):
            left = 3 * unit if machine.ticks == "left" else width - 4 * unit
            image[row : row + unit, left : left + length] = 215


def _write(image: np.ndarray, machine: Machine, rng: np.random.Generator) -> None:
    """Settings in small or large letters at the upper right, or the boxes that removed them."""
    height, width = image.shape
    boxes = rng.uniform(0.08, 0.22, 4)
    if machine.text == "boxes":
        image[: round(boxes[0] * height), width - round(boxes[1] * width) :] = 0
        image[height - round(boxes[2] * height) :, width - round(1.2 * boxes[3] * width) :] = 0
        return
    if machine.text == "none":
        return
    large = machine.text == "numbers"
    letter = max(1, round(width / (60 if large else 110)))
    rows, columns = (2, 8) if large else (int(rng.integers(4, 9)), int(rng.integers(10, 18)))
    ink = np.zeros((2 * rows, columns), np.float32)
    ink[::2] = rng.random((rows, columns)) * (255 if large else 170)
    ink[::2][np.arange(columns) < rng.integers(0, columns - 3, (rows, 1))] = 0
    block = np.kron(ink, np.ones((letter, letter))).astype(np.uint8)
    block = block[: height // 2, : width // 2]
    corner = image[letter : letter + len(block), width - block.shape[1] - letter : width - letter]
    np.maximum(corner, block, out=corner)
    if not large:
        name = (rng.random((2 * letter, 5 * letter)) * 160).astype(np.uint8)
        left = round(rng.uniform(0.04, 0.2) * width)
        image[letter : 3 * letter, left : left + 5 * letter] = name


def mask(
    outlines: list[np.ndarray], shape: tuple[int, int], spacing_mm: float
) -> Bool[np.ndarray, "h w"]:
    """A truth mask: pixels covered by about a third or more.

    Slightly generous, to stand between the two usual ways of measuring: a contour through pixel
    centres loses half a pixel all around, moments of the pixels lose nothing.
    """
    height, width = shape
    factor = 4
    canvas = np.zeros((height * factor, width * factor), np.uint8)
    offset = np.array([width, height]) * factor / 2 - 0.5
    for points in outlines:
        fixed = np.rint((points * (factor / spacing_mm) + offset) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], 255, shift=4)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) >= 92
