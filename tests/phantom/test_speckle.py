"""Speckle statistics before compression."""

import math

import numpy as np
import pytest

from fetalclip_jax.phantom import speckle


@pytest.fixture(scope="module")
def amplitude() -> np.ndarray:
    rng = np.random.default_rng(3)
    defocus = np.linspace(0, 1, 600) ** 2
    field = speckle.scatterers(rng, (600, 600))
    field = speckle.PointSpread(1.2, (1.0, 2.4), defocus)(field)
    return np.sqrt(speckle.power(field))[10:-10, 10:-10]


def test_fully_developed_speckle_is_rayleigh(amplitude):
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.91, rel=0.05)
    # Quantiles of a Rayleigh amplitude of unit mean square: sqrt(-ln(1 - p)).
    for p in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(amplitude, p) == pytest.approx(np.sqrt(-np.log(1 - p)), rel=0.05)


def test_mean_power_stays_one_at_every_depth(amplitude):
    power = (amplitude**2).reshape(20, -1).mean(1)
    np.testing.assert_allclose(power, 1.0, rtol=0.15)


def test_beam_is_wider_out_of_focus(amplitude):
    def lateral_correlation(rows: np.ndarray) -> float:
        return np.corrcoef(rows[:, 3:].ravel(), rows[:, :-3].ravel())[0, 1]

    assert lateral_correlation(amplitude[-150:]) > lateral_correlation(amplitude[:150]) + 0.15


def test_interfaces_keep_their_strength():
    field = np.zeros((40, 40, 2), np.float32)
    field[..., 0] = 1.0
    spread = speckle.PointSpread(1.0, (1.0, 2.2), np.linspace(0, 1, 40))
    np.testing.assert_allclose(spread(field)[..., 0] / spread.gain[:, None], 1.0, rtol=1e-4)


def compounded(seed: int) -> np.ndarray:
    """Amplitude of four looks."""
    spread = speckle.PointSpread(1.2, (1.0, 2.4), np.zeros(400))
    noise = speckle.scatterers(np.random.default_rng(seed), (400, 400))
    looks = [speckle.power(spread(speckle.other_look(noise, look))) for look in range(4)]
    return np.sqrt(np.mean(looks, axis=0))[10:-10, 10:-10]


def test_looks_are_independent_point_by_point():
    amplitude = compounded(4)
    # Four independent looks: a Nakagami amplitude of shape 4.
    shape = 4
    mean = math.gamma(shape + 0.5) / math.gamma(shape) / math.sqrt(shape)
    expected = mean / math.sqrt(1 - mean**2)
    assert amplitude.mean() / amplitude.std() == pytest.approx(expected, rel=0.03)


def test_compounded_texture_repeats_nowhere_near():
    picture = compounded(5)
    picture = picture - picture.mean()
    spectrum = np.abs(np.fft.fft2(picture)) ** 2
    correlation = np.fft.ifft2(spectrum).real / picture.size / picture.var()
    near = correlation[:60, :60].copy()
    near[:10, :12] = 0  # the speckle's own size
    assert np.abs(near).max() < 0.1
