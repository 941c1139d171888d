"""Machine styles: how a scanner shapes, compresses and decorates the picture."""

import dataclasses

import numpy as np

from fetalclip_jax.phantom.beam import Geometry

# height / width of the displayed window
_ASPECTS = (0.675, 0.69, 0.75, 0.8, 1.0)
# How far below white reference tissue lies, of the brightest and of the darkest machine.
WHITE_DB = (23.0, 31.0)
_LAYOUTS = ("wide", "zoomed", "endocavity", "linear")
_TEXTS = ("lines", "numbers", "boxes", "none")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Settings that mostly stay the same over the images of one patient.

    Attributes:
      aspect: height / width of the display.
      layout: "wide" shows the whole sector with the probe's face, "zoomed" a window of it,
        "endocavity" a tightly curved probe, "linear" parallel lines.
      axial_mm, lateral_mm: standard deviations of pulse and of beam at the focus.
      dynamic_range_db: what log compression spreads over black to white.
      white_db: how far reference tissue lies below white before the grey curve.
      grey_gamma: exponent of the grey curve; most machines show soft tissue dark.
      smoothing: speckle reduction, in pixels of a 96-pixel display.
      sharpening: strength of edge enhancement.
      compounding: strength of speckle averaging before compression, 0 to 1.
      looks: independent views averaged into one picture (spatial and frequency compounding).
      noise_db: electronic noise against reference tissue.
      noise_rise_db: how much louder the noise is at the bottom than at the top.
      ticks: "left", "right" or "none": depth marks every 10 mm.
      tick_length: of a depth mark, in marks.
      grey_bar: width of the grey scale bar at the upper left, in marks; 0 for none.
      text: what stands at the upper right: "lines" of settings, two large "numbers", black
        "boxes" over two corners where text was removed, or "none".
      band: share of the display's height that is left black at the bottom.
    """

    aspect: float
    layout: str
    axial_mm: float
    lateral_mm: float
    dynamic_range_db: float
    white_db: float
    grey_gamma: float
    smoothing: float
    sharpening: float
    compounding: float
    looks: int
    noise_db: float
    noise_rise_db: float
    ticks: str
    tick_length: int
    grey_bar: int
    text: str
    band: float


def draw_machine(rng: np.random.Generator) -> Machine:
    """A machine with one of a handful of layouts and continuous settings."""
    frequency = rng.uniform(0.75, 1.4)
    # A few machines show a hazy picture: less contrast, louder noise at depth.
    hazy = rng.random() < 0.25
    return Machine(
        aspect=float(rng.choice(_ASPECTS, p=(0.34, 0.34, 0.16, 0.1, 0.06))),
        layout=str(rng.choice(_LAYOUTS, p=(0.62, 0.32, 0.03, 0.03))),
        axial_mm=float(0.36 / frequency),
        lateral_mm=float(rng.uniform(0.45, 0.85) / frequency),
        dynamic_range_db=float(rng.uniform(50.0, 68.0)),
        white_db=float(rng.uniform(*WHITE_DB)),
        grey_gamma=float(rng.uniform(1.2, 1.8) if hazy else rng.uniform(1.4, 2.5)),
        smoothing=float(rng.choice((0.0, 0.3, 0.5), p=(0.5, 0.25, 0.25)) * rng.uniform(0.8, 1.2)),
        sharpening=float(rng.choice((0.0, 0.3, 0.6, 0.9))),
        compounding=float(rng.uniform(0.15, 0.65)),
        looks=int(rng.integers(3, 6)),
        noise_db=float(rng.uniform(-34.0, -22.0) if hazy else rng.uniform(-46.0, -32.0)),
        noise_rise_db=float(rng.uniform(4.0, 14.0)),
        ticks=str(rng.choice(("left", "right", "none"), p=(0.6, 0.2, 0.2))),
        tick_length=int(rng.choice((1, 2))),
        grey_bar=int(rng.choice((0, 1, 5), p=(0.35, 0.45, 0.2))),
        text=str(rng.choice(_TEXTS, p=(0.45, 0.25, 0.1, 0.2))),
        band=float(rng.uniform(0.08, 0.13) if rng.random() < 0.25 else 0.0),
    )


def draw_geometry(
    rng: np.random.Generator,
    machine: Machine,
    size_mm: tuple[float, float],
    spacing_mm: float,
) -> Geometry:
    """The scan grid that covers a window of `size_mm` (height, width)."""
    height, width = size_mm
    top, bottom = -height / 2, height / 2
    step = 0.75 * spacing_mm
    lines = round(width / spacing_mm * 1.15)
    if machine.layout == "linear":
        half = width / 2 * rng.uniform(0.92, 1.0)
        return Geometry(None, (-half, half), (top, bottom), (round(height / step), lines))
    if machine.layout == "zoomed":
        apex = top - rng.uniform(70.0, 130.0)
        first = max(20.0, top - apex - rng.uniform(0.0, 0.25) * height)
        half_angle = np.arctan(width / 2 / -apex) * rng.uniform(0.7, 1.2)
    elif machine.layout == "endocavity":
        radius = rng.uniform(10.0, 14.0)
        face = top + rng.uniform(0.0, 0.04) * height
        apex, first = face - radius, radius
        half_angle = rng.uniform(0.75, 1.15)
    else:
        radius = rng.uniform(38.0, 62.0)
        face = top + rng.uniform(0.0, 0.07) * height
        apex, first = face - radius, radius
        half_angle = rng.uniform(0.42, 0.66)
    apex_x = float(rng.normal(0.0, 0.05) * width)
    last = bottom - apex
    shape = (round((last - first) / step), lines)
    return Geometry((apex_x, float(apex)), (-half_angle, half_angle), (first, last), shape)
