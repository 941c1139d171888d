"""Speckle: random scatterers seen through a point spread that changes with depth."""

import cv2
import numpy as np
from jaxtyping import Float


def _kernel(sigma: float) -> np.ndarray:
    radius = max(1, int(np.ceil(2.5 * sigma)))
    return cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)


def point_spread(
    field: Float[np.ndarray, "depth lines c"],
    axial_sigma: float,
    lateral_sigmas: tuple[float, float],
    defocus: Float[np.ndarray, "depth"],
) -> tuple[Float[np.ndarray, "depth lines c"], Float[np.ndarray, "depth"]]:
    """Convolves a complex field (2 channels) with a separable, depth-dependent point spread.

    The lateral profile is a depth-weighted mix of a focused and a defocused Gaussian.

    Args:
      field: real and imaginary part of the scatterers.
      axial_sigma: pulse length in samples.
      lateral_sigmas: beam width in lines, at the focus and far from it.
      defocus: weight of the wide beam at every depth, 0 to 1.

    Returns:
      The field, scaled so that white scatterers of variance 1 keep variance 1 at every depth, and
      the gain that a constant (coherent) field gets at every depth.
    """
    axial = _kernel(axial_sigma)
    narrow, wide = (_kernel(s) for s in lateral_sigmas)
    focused = cv2.sepFilter2D(field, -1, narrow, axial)
    defocused = cv2.sepFilter2D(field, -1, wide, axial)
    pad = (len(wide) - len(narrow)) // 2
    overlap = float((np.pad(narrow[:, 0], pad) * wide[:, 0]).sum())
    w = defocus.astype(np.float32)
    energy = (1 - w) ** 2 * float((narrow**2).sum()) + w**2 * float((wide**2).sum())
    energy += 2 * w * (1 - w) * overlap
    gain = 1 / np.sqrt(energy * float((axial**2).sum()))
    near = ((1 - w) * gain).astype(np.float32)[:, None, None]
    far = (w * gain).astype(np.float32)[:, None, None]
    return focused * near + defocused * far, gain.astype(np.float32)


def scatterers(rng: np.random.Generator, shape: tuple[int, int]) -> Float[np.ndarray, "d l 2"]:
    """Circular complex Gaussian scatterers with mean square magnitude 1."""
    return rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))


def envelope(field: Float[np.ndarray, "depth lines 2"]) -> Float[np.ndarray, "depth lines"]:
    """Magnitude of the complex field: Rayleigh distributed for fully developed speckle."""
    return cv2.magnitude(field[..., 0], field[..., 1])
