"""Speckle: random scatterers seen through a point spread that changes with depth."""

import cv2
import numpy as np
from jaxtyping import Float

# Where the scatterers of each look lie, as shares of the grid: differences far apart and distinct.
_LOOKS = ((0.0, 0.0), (0.23, 0.41), (0.61, 0.17), (0.37, 0.73), (0.83, 0.57))


def _kernel(sigma: float) -> np.ndarray:
    radius = max(1, int(np.ceil(2.5 * sigma)))
    return cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)


class PointSpread:
    """A separable point spread; its lateral profile mixes a focused and a defocused Gaussian.

    Attributes:
      gain: what a constant (coherent) field is multiplied by at every depth, float32 [depth].
    """

    def __init__(
        self,
        axial_sigma: float,
        lateral_sigmas: tuple[float, float],
        defocus: Float[np.ndarray, "depth"],
    ) -> None:
        """Sets the shape.

        Args:
          axial_sigma: pulse length in samples.
          lateral_sigmas: beam width in lines, at the focus and far from it.
          defocus: weight of the wide beam at every depth, 0 to 1.
        """
        self._axial = _kernel(axial_sigma)
        self._narrow, self._wide = (_kernel(s) for s in lateral_sigmas)
        narrow, wide, axial = self._narrow[:, 0], self._wide[:, 0], self._axial[:, 0]
        pad = (len(wide) - len(narrow)) // 2
        overlap = float(narrow @ wide[pad : pad + len(narrow)])
        w = defocus.astype(np.float32)
        energy = (1 - w) ** 2 * float(narrow @ narrow) + w**2 * float(wide @ wide)
        energy += 2 * w * (1 - w) * overlap
        self.gain = (1 / np.sqrt(energy * float(axial @ axial))).astype(np.float32)
        self._near = ((1 - w) * self.gain)[:, None, None]
        self._far = (w * self.gain)[:, None, None]

    def __call__(
        self, field: Float[np.ndarray, "depth lines 2"]
    ) -> Float[np.ndarray, "depth lines 2"]:
        """Convolves a complex field, real and imaginary part in the last axis.

        White scatterers of variance 1 keep variance 1 at every depth.
        """
        focused = cv2.sepFilter2D(field, -1, self._narrow, self._axial)
        defocused = cv2.sepFilter2D(field, -1, self._wide, self._axial)
        focused *= self._near
        defocused *= self._far
        focused += defocused
        return focused


def scatterers(rng: np.random.Generator, shape: tuple[int, int]) -> Float[np.ndarray, "d l 2"]:
    """Circular complex Gaussian scatterers with mean square magnitude 1."""
    noise = rng.standard_normal((*shape, 2), dtype=np.float32)
    noise *= np.float32(np.sqrt(0.5))
    return noise


def other_look(noise: Float[np.ndarray, "d l 2"], look: int) -> Float[np.ndarray, "d l 2"]:
    """The same random numbers elsewhere: cheaper than new ones, and as good point by point.

    No two looks are moved alike, so that the sum over looks repeats nothing at any one distance.
    """
    depth, lines, _ = noise.shape
    down, across = _LOOKS[look]
    return np.roll(noise, (round(down * depth), round(across * lines)), axis=(0, 1))


def power(field: Float[np.ndarray, "depth lines 2"]) -> Float[np.ndarray, "depth lines"]:
    """Squared magnitude; its root is Rayleigh distributed for fully developed speckle."""
    squares = np.square(field)
    return squares[..., 0] + squares[..., 1]
