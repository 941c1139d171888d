"""Attention as it is written out here, and the choice of a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.models import attention
from fetalclip_jax.models.attention import attend, attend_at_even_length, has_cudnn_kernel


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("logits", [1_000, 20])
def test_attention_equals_the_reference_kernel(monkeypatch, causal, logits):
    # With 20 the seven queries go in three groups.
    monkeypatch.setattr(attention, "_LOGITS_PER_PRODUCT", logits)
    query, key, value = jax.random.normal(jax.random.key(0), (3, 2, 7, 4, 8))
    np.testing.assert_allclose(
        attend(query, key, value, causal=causal),
        jax.nn.dot_product_attention(query, key, value, is_causal=causal),
        atol=1e-6,
    )


def test_the_way_follows_the_platform_that_is_compiled_for(monkeypatch):
    taken = []
    monkeypatch.setattr(attention, "attend_written_out", lambda *_: taken.append("cpu") or _[0])
    tokens = jnp.ones((1, 3, 2, 8))
    tpu = jax.sharding.AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    axes = (jax.sharding.AxisType.Auto,)
    for device in (None, tpu):
        mesh = jax.sharding.AbstractMesh((2,), ("data",), axes, abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):
            jax.eval_shape(lambda x: attend(x, x, x, causal=False), tokens)
    assert taken == ["cpu"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [6, 7])
def test_a_token_that_fills_up_changes_nothing(causal, length):
    tokens = jax.random.normal(jax.random.key(0), (3, 2, length, 4, 8))
    target = jax.random.normal(jax.random.key(1), tokens.shape[1:])

    def distance(attention, tokens):
        return jnp.sum((attention(*tokens, is_causal=causal) - target) ** 2)

    def filled(*tokens, is_causal):
        return attend_at_even_length(*tokens, causal=is_causal, implementation="xla")

    expected = jax.value_and_grad(lambda x: distance(jax.nn.dot_product_attention, x))(tokens)
    found = jax.value_and_grad(lambda x: distance(filled, x))(tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "head_width", "expected"),
    [
        ("gpu", "9.0", jnp.bfloat16, 64, True),
        ("gpu", "8.0", jnp.float16, 128, True),
        ("gpu", "9.0", jnp.float32, 64, False),
        ("gpu", "7.5", jnp.bfloat16, 64, False),
        ("gpu", "9.0", jnp.bfloat16, 20, False),
        ("gpu", "gfx942", jnp.bfloat16, 64, False),
        ("tpu", "", jnp.bfloat16, 64, False),
    ],
)
def test_the_fused_kernel_is_chosen_where_it_exists(
    platform, capability, dtype, head_width, expected
):
    assert has_cudnn_kernel(platform, capability, dtype, head_width) == expected
