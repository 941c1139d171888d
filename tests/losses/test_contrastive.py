"""The losses are what their definitions and open_clip say."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fetalclip_jax.losses import sigmoid_contrastive, softmax_contrastive
from fetalclip_jax.models.clip import unit_length
from fetalclip_jax.parallel.mesh import make_mesh

SCALE = jnp.float32(9.0)


def features(batch=16, dim=5, seed=0):
    image, text = jax.random.normal(jax.random.key(seed), (2, batch, dim))
    return unit_length(image), unit_length(text)


def reference(image, text, scale, ids):
    """The definition, row by row in float64."""
    logits = float(scale) * np.asarray(image, np.float64) @ np.asarray(text, np.float64).T
    total = 0.0
    for matrix in (logits, logits.T):
        for i, row in enumerate(matrix):
            log_probability = row - np.log(np.exp(row).sum())
            total -= log_probability[ids == ids[i]].mean()
    return total / (2 * len(ids))


@pytest.mark.parametrize("ids", [np.arange(16), np.arange(16) // 3, np.zeros(16, int)])
def test_equals_the_definition(ids):
    image, text = features()
    loss, _ = softmax_contrastive(image, text, SCALE, caption_ids=jnp.asarray(ids))
    np.testing.assert_allclose(loss, reference(image, text, SCALE, ids), rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("block_size", [None, 5])
def test_open_clip_has_the_same_value_and_gradients(name, block_size):
    golden = json.loads((pathlib.Path(__file__).parent / "open_clip.json").read_text())
    takes = ["image", "text", "scale", "bias"][: 3 + (name == "sigmoid")]
    loss = {"softmax": softmax_contrastive, "sigmoid": sigmoid_contrastive}[name]
    (value, _), gradients = jax.value_and_grad(
        lambda *inputs: loss(*inputs, block_size=block_size),
        argnums=tuple(range(len(takes))),
        has_aux=True,
    )(*(jnp.asarray(golden[taken], jnp.float32) for taken in takes))
    np.testing.assert_allclose(value, golden[name]["loss"], rtol=1e-6)
    for taken, gradient in zip(takes, gradients, strict=True):
        expected = np.asarray(golden[name]["gradients"][taken])
        assert np.linalg.norm(gradient - expected) < 1e-5 * np.linalg.norm(expected), taken


@pytest.mark.parametrize("ids", [np.arange(16), np.arange(16) // 3, np.zeros(16, int)])
def test_sigmoid_judges_every_pair_by_itself(ids):
    image, text = features()
    bias = jnp.float32(-2.0)
    loss, _ = sigmoid_contrastive(image, text, SCALE, bias, caption_ids=jnp.asarray(ids))
    logits = float(SCALE) * np.asarray(image, np.float64) @ np.asarray(text, np.float64).T - 2.0
    sign = np.where(ids[:, None] == ids, 1.0, -1.0)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-sign * logits)).sum() / 16, rtol=1e-6)


def test_ids_in_parts_are_equal_where_all_parts_are():
    image, text = features()
    ids = np.arange(16) // 3
    parts = np.stack([ids % 2, ids // 2], axis=1).astype(np.uint32)
    # Either half alone would make false pairs.
    assert len(np.unique(parts[:, 0])) < len(np.unique(ids)) > len(np.unique(parts[:, 1]))
    whole, metrics = softmax_contrastive(image, text, SCALE, caption_ids=jnp.asarray(ids))
    halves, same = softmax_contrastive(image, text, SCALE, caption_ids=jnp.asarray(parts))
    assert whole == halves
    assert metrics == same


def test_without_ids_every_caption_is_its_own():
    image, text = features()
    plain, _ = softmax_contrastive(image, text, SCALE)
    spelled, _ = softmax_contrastive(image, text, SCALE, caption_ids=jnp.arange(16))
    assert plain == spelled


def test_repeated_captions_are_not_pushed_apart():
    image, _ = features()
    text = jnp.broadcast_to(image[:1], image.shape)
    ids = jnp.zeros(16, int)
    gradient = jax.grad(lambda t: softmax_contrastive(image, t, SCALE, caption_ids=ids)[0])(text)
    # All columns are equally right: moving one text at the expense of another gains nothing.
    np.testing.assert_allclose(gradient - gradient.mean(0), 0, atol=1e-6)


def test_metrics_count_duplicates_and_hits():
    image = jnp.eye(4)
    _, metrics = softmax_contrastive(image, image, SCALE, caption_ids=jnp.array([7, 7, 1, 2]))
    assert metrics["duplicate_caption_share"] == 0.5
    assert metrics["image_to_text_accuracy"] == 1.0
    _, metrics = softmax_contrastive(image, image[::-1], SCALE)
    assert metrics["image_to_text_accuracy"] == 0.0


def test_bfloat16_features_do_not_quantise_the_loss():
    image, text = (x.astype(jnp.bfloat16) for x in features())
    loss, _ = softmax_contrastive(image, text, SCALE)
    exact = reference(image.astype(jnp.float32), text.astype(jnp.float32), SCALE, np.arange(16))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact, rtol=1e-6)


def test_value_and_gradients_are_the_same_on_eight_devices():
    image, text = features()
    ids = jnp.arange(16) // 2
    function = jax.value_and_grad(
        lambda i, t, s: softmax_contrastive(i, t, s, caption_ids=ids)[0], argnums=(0, 1, 2)
    )
    one = jax.jit(function)(image, text, SCALE)
    mesh = make_mesh(data=4, fsdp=2)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    eight = jax.jit(function)(jax.device_put(image, split), jax.device_put(text, split), SCALE)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
