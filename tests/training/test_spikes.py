"""On curves like those of training: a steep start, a long slow end, noise."""

import math

import numpy as np
import pytest

from fetalclip_jax.training.spikes import Spikes


def curve(seed, steps=900, noise=0.12):
    """From ln 64 to about 1, as a contrastive loss falls, with noise that the batches make."""
    rng = np.random.default_rng(seed)
    step = np.arange(steps)
    return 1.0 + 3.16 * np.exp(-step / 90) + noise * rng.standard_normal(steps)


def spikes(losses):
    found = Spikes()
    return [step for step, loss in enumerate(losses) if found.add(float(loss))]


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.12, 0.3])
def test_neither_a_steep_start_nor_noise_is_a_spike(noise):
    for seed in range(5):
        assert spikes(curve(seed, noise=noise)) == []


@pytest.mark.parametrize("at", [40, 200, 850])
def test_a_jump_is_found_where_it_begins(at):
    losses = curve(0)
    losses[at] += 6.0
    assert spikes(losses) == [at]


def test_a_few_losses_say_nothing_of_their_noise():
    losses = np.full(60, 2.0)
    losses[[20, 50]] = 5.0
    assert spikes(losses) == [50]


def test_what_lasts_is_one_spike_and_the_next_is_another():
    losses = curve(1)
    losses[300:310] += 4.0
    losses[500] += 4.0
    assert spikes(losses) == [300, 500]


def test_a_loss_that_stays_high_becomes_usual():
    losses = curve(2)
    losses[400:] += 4.0
    losses[700] += 4.0
    assert spikes(losses) == [400, 700]


def test_what_is_not_finite_is_passed_over():
    found = Spikes(count=2)
    for loss in curve(3, 50):
        found.add(float(loss))
        found.add(math.nan)
        found.add(math.inf)
    assert found.count == 2
    median, deviation = found.add(9.0)
    assert 2.5 < median < 4.0
    assert 0.0 < deviation < 1.0
    assert found.count == 3
