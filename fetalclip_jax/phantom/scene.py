"""A scene: what the beam will meet, as outlines in millimetres, painted in order.

The origin is the centre of the displayed window, x to the right, y away from the probe.
"""

import dataclasses

import numpy as np

from fetalclip_jax.phantom.shapes import Number, Points

# Mean echo of tissues in dB against reference soft tissue.
FLUID_DB, TISSUE_DB, MUSCLE_DB, LIVER_DB, LUNG_DB, PLACENTA_DB = -42.0, 0.0, -7.0, -4.0, -2.0, 2.0


@dataclasses.dataclass(frozen=True)
class Region:
    """A filled outline of diffuse scatterers.

    Attributes:
      points: closed outline, mm.
      echo_db: mean echo against reference tissue.
      attenuation: loss in dB per cm of depth beyond what the gain curve makes up for.
      texture_db, streak_db: spread of blotchy and of layered brightness.
      opaque: hides the interfaces painted before it.
    """

    points: np.ndarray
    echo_db: Number
    attenuation: Number
    texture_db: Number
    streak_db: Number
    opaque: bool


@dataclasses.dataclass(frozen=True)
class Interface:
    """A reflecting curve.

    Attributes:
      points: polyline, mm; closed if `closed`.
      echo_db: echo against reference tissue where the beam meets it squarely.
      thickness_mm: drawn thickness.
      loss_db: loss behind one crossing.
      directivity: 0 reflects alike in all directions, 2 fades fast away from the square.
    """

    points: np.ndarray
    echo_db: Number
    thickness_mm: Number
    loss_db: Number
    directivity: Number
    closed: bool


class Scene:
    """Regions and interfaces in painting order, and the outlines of the truth masks."""

    def __init__(self) -> None:
        self.layers: list[Region | Interface] = []
        self.outlines: dict[str, list[np.ndarray]] = {}

    def fill(
        self,
        points: Points,
        echo_db: Number,
        *,
        attenuation: Number = 0.0,
        texture_db: Number = 2.0,
        streak_db: Number = 0.0,
        opaque: bool = False,
        mask: str | None = None,
    ) -> None:
        """Paints a region; `mask` also adds it to the truth mask of that name."""
        self.layers.append(Region(points, echo_db, attenuation, texture_db, streak_db, opaque))
        if mask:
            self.outline(mask, points)

    def fluid(self, points: Points, *, mask: str | None = None, echo_db: Number = FLUID_DB) -> None:
        """Paints an echo-free region, bright behind because it does not attenuate."""
        self.fill(points, echo_db, attenuation=-0.9, texture_db=0.0, mask=mask)

    def line(
        self,
        points: Points,
        echo_db: Number,
        thickness_mm: Number = 1.0,
        *,
        loss_db: Number = 0.0,
        directivity: Number = 1.0,
        closed: bool = False,
    ) -> None:
        """Paints an interface."""
        self.layers.append(Interface(points, echo_db, thickness_mm, loss_db, directivity, closed))

    def outline(self, mask: str, points: Points) -> None:
        """Adds an outline to a truth mask without painting anything."""
        self.outlines.setdefault(mask, []).append(points)
