"""The Dice loss against loops over NumPy arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.losses.dice import dice_loss, dice_sums, loss_of_sums


def by_loops(logits, masks):
    losses = []
    for c in range(logits.shape[-1]):
        intersection = total = true = 0.0
        for logit, mask in zip(logits[..., c].ravel(), masks[..., c].ravel(), strict=True):
            probability = 1 / (1 + np.exp(-float(logit)))
            intersection += probability * mask
            total += probability + mask
            true += mask
        losses.append(1 - 2 * intersection / max(total, 1e-7) if true else 0.0)
    return np.mean(losses)


def drawn(*shape):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(np.float32) * 3, rng.random(shape) > 0.7


@pytest.mark.parametrize("classes", [1, 3])
def test_equals_loops(classes):
    logits, masks = drawn(3, 4, 5, classes)
    np.testing.assert_allclose(dice_loss(jnp.asarray(logits), masks), by_loops(logits, masks), 1e-5)


def test_an_absent_class_costs_nothing_and_still_counts():
    logits, masks = drawn(3, 4, 5, 2)
    masks[..., 1] = False
    loss, gradient = jax.value_and_grad(dice_loss)(jnp.asarray(logits), masks)
    np.testing.assert_allclose(loss, by_loops(logits, masks), rtol=1e-5)
    np.testing.assert_allclose(loss, by_loops(logits[..., :1], masks[..., :1]) / 2, rtol=1e-5)
    assert (gradient[..., 1] == 0).all()
    assert (gradient[..., 0] != 0).all()


def test_nothing_at_all_is_no_nan():
    logits, masks = jnp.full((2, 3, 3, 1), -200.0), np.zeros((2, 3, 3, 1), bool)
    loss, gradient = jax.value_and_grad(dice_loss)(logits, masks)
    assert loss == 0
    assert (gradient == 0).all()


def test_a_missed_mask_costs_1_and_a_perfect_one_0():
    _, masks = drawn(2, 4, 4, 1)
    np.testing.assert_allclose(dice_loss(jnp.where(masks, 50.0, -50.0), masks), 0, atol=1e-6)
    loss, gradient = jax.value_and_grad(dice_loss)(jnp.full(masks.shape, -200.0), masks)
    assert loss == 1
    assert np.isfinite(gradient).all()


def test_sums_of_batches_add_up_to_those_of_all_images():
    logits, masks = drawn(5, 4, 4, 2)
    logits = jnp.asarray(logits)
    # The third image comes twice and is left out once.
    first = dice_sums(logits[:3], masks[:3])
    second = dice_sums(logits[2:], masks[2:], jnp.array([0.0, 1.0, 1.0]))
    loss = loss_of_sums(jax.tree.map(jnp.add, first, second))
    np.testing.assert_allclose(loss, dice_loss(logits, masks), rtol=1e-5)
