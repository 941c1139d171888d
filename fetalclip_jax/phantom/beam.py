"""The probe's own sampling grid, and what a scene looks like on it."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float

from fetalclip_jax.phantom.scene import Interface, Region, Scene

_SHIFT = 4  # cv2 draws on a grid of 1/16 sample
_MAX_LOSS_DB = 45.0
# Of the width of the scan, what a shadow takes to reach its depth.
_FLANK_SHARE = 22


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Scan lines x depth samples, of a curved or a linear probe.

    Attributes:
      apex_mm: where the scan lines of a curved probe meet; None for a linear probe.
      lateral: first and last line, as angles in radians (curved) or x in mm (linear).
      depth_mm: first and last sample, as distance from the apex (curved) or y (linear).
      shape: (depth samples, scan lines).
    """

    apex_mm: tuple[float, float] | None
    lateral: tuple[float, float]
    depth_mm: tuple[float, float]
    shape: tuple[int, int]

    @property
    def sample_mm(self) -> float:
        return (self.depth_mm[1] - self.depth_mm[0]) / (self.shape[0] - 1)

    def line_mm(self, fraction: float = 0.5) -> float:
        """Distance of neighbouring lines at a fraction of the depth range."""
        step = (self.lateral[1] - self.lateral[0]) / (self.shape[1] - 1)
        if self.apex_mm is None:
            return step
        return step * (self.depth_mm[0] + fraction * (self.depth_mm[1] - self.depth_mm[0]))

    def to_grid(
        self, x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(line, sample) coordinates of points in mm."""
        if self.apex_mm is not None:
            dx, dy = x - self.apex_mm[0], y - self.apex_mm[1]
            x, y = np.arctan2(dx, dy), np.hypot(dx, dy)
        line = (x - self.lateral[0]) * ((self.shape[1] - 1) / (self.lateral[1] - self.lateral[0]))
        return line, (y - self.depth_mm[0]) * (1 / self.sample_mm)

    def scan_conversion(
        self, height: int, width: int, spacing_mm: float
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
        """cv2.remap maps of a display of square pixels centred on the origin."""
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * np.float32(spacing_mm)
        y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) * np.float32(spacing_mm)
        xx, yy = np.meshgrid(x, y)
        if self.apex_mm is None:
            lines, samples = self.to_grid(xx.ravel(), yy.ravel())
            lines, samples = lines.reshape(height, width), samples.reshape(height, width)
        else:
            dx, dy = xx - np.float32(self.apex_mm[0]), yy - np.float32(self.apex_mm[1])
            radius, angle = cv2.cartToPolar(dy, dx)
            angle = np.where(angle > np.pi, angle - np.float32(2 * np.pi), angle)
            scale = (self.shape[1] - 1) / (self.lateral[1] - self.lateral[0])
            lines = (angle - np.float32(self.lateral[0])) * np.float32(scale)
            samples = (radius - np.float32(self.depth_mm[0])) * np.float32(1 / self.sample_mm)
        return lines.astype(np.float32), samples.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Echoes:
    """A scene on the probe's grid, all float32 [depth, lines].

    Attributes:
      diffuse_db: mean echo of the scatterers.
      texture_db, streak_db: how blotchy and how layered the tissue is.
      specular: amplitude of reflecting interfaces (reference tissue = 1).
      loss_db: attenuation summed along the beam.
    """

    diffuse_db: Float[np.ndarray, "depth lines"]
    texture_db: Float[np.ndarray, "depth lines"]
    streak_db: Float[np.ndarray, "depth lines"]
    specular: Float[np.ndarray, "depth lines"]
    loss_db: Float[np.ndarray, "depth lines"]


def paint(scene: Scene, geometry: Geometry) -> Echoes:
    """Rasterises a scene on the scan grid."""
    regions = np.zeros(geometry.shape, np.uint8)
    specular = np.zeros(geometry.shape, np.float32)
    bone = np.zeros(geometry.shape, np.float32)
    table = [(0.0, 0.0, 2.0, 2.0)]
    # All outlines at once: numpy's cost here is the call, not the points.
    points = np.concatenate([np.empty((0, 2)), *(layer.points for layer in scene.layers)])
    lengths = np.array([len(layer.points) for layer in scene.layers], int)
    stops = np.cumsum(lengths)
    starts = stops - lengths
    following = np.arange(1, len(points) + 1)
    following[stops - 1] = starts
    grid = _fixed_point(points, geometry)
    squareness = _squareness(points, points[following], geometry)
    for layer, start, stop in zip(scene.layers, starts, stops, strict=True):
        fixed = grid[start:stop]
        if isinstance(layer, Region):
            cv2.fillPoly(regions, [fixed], len(table), shift=_SHIFT)
            if layer.opaque:
                cv2.fillPoly(specular, [fixed], 0.0, shift=_SHIFT)
                cv2.fillPoly(bone, [fixed], 0.0, shift=_SHIFT)
            table.append((layer.echo_db, layer.attenuation, layer.texture_db, layer.streak_db))
        else:
            _reflect(specular, bone, layer, fixed, squareness[start:stop], geometry)
    echo, attenuation, texture, streak = np.array(table, np.float32).T
    step_cm = np.float32(geometry.sample_mm / 10)
    # Beams are wide: shadows have soft flanks.
    flank = max(3, geometry.shape[1] // _FLANK_SHARE)
    absorbed = cv2.blur((attenuation[regions] + bone) * step_cm, (flank, 1))
    absorbed = cv2.blur(absorbed, (flank, 1))
    loss = np.cumsum(absorbed, axis=0)
    return Echoes(
        cv2.GaussianBlur(echo[regions], (0, 0), 0.7),
        texture[regions],
        streak[regions],
        specular,
        np.clip(loss, -8.0, _MAX_LOSS_DB),
    )


def _fixed_point(points: Float[np.ndarray, "n 2"], geometry: Geometry) -> np.ndarray:
    """Points in mm as int32 [n, 2] (line, sample) in cv2's fixed point."""
    limit = 8.0 * max(geometry.shape)
    corners = np.stack(geometry.to_grid(points[:, 0], points[:, 1]), -1).clip(-limit, limit)
    return np.rint(corners * (1 << _SHIFT)).astype(np.int32)


def _squareness(points: np.ndarray, following: np.ndarray, geometry: Geometry) -> np.ndarray:
    """How squarely the beam meets the way from each point to its following one, 0 to 1."""
    along = following - points
    if geometry.apex_mm is None:
        crossing = np.abs(along[:, 0])
    else:
        beam = points - np.array(geometry.apex_mm, np.float32)
        beam /= np.maximum(np.hypot(beam[:, 0], beam[:, 1]), 1e-3)[:, None]
        crossing = np.abs(along[:, 0] * beam[:, 1] - along[:, 1] * beam[:, 0])
    return crossing / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)


def _reflect(specular, bone, layer: Interface, fixed, square, geometry: Geometry) -> None:
    """Draws one interface: bright where square to the beam, lossy where it is bone."""
    thickness = max(1, round(layer.thickness_mm / geometry.sample_mm))
    drop = 24.0 * layer.directivity * (1 - square)
    amplitudes = (10 ** ((layer.echo_db - drop) / 20)).tolist()
    corners = fixed.tolist()
    ends = corners[1:] + corners[:1] if layer.closed else corners[1:]
    for start, end, value in zip(corners, ends, amplitudes, strict=False):
        cv2.line(specular, start, end, value, thickness, cv2.LINE_8, _SHIFT)
    if layer.loss_db:
        per_cm = layer.loss_db / (thickness * geometry.sample_mm / 10)
        cv2.polylines(bone, [fixed], layer.closed, per_cm, thickness, cv2.LINE_8, _SHIFT)
