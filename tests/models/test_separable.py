"""The layers of separable convolutions against XLA's own convolutions and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.models import separable


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def convolved(x, kernel, bias):
    channels = x.shape[-1]
    return bias + jax.lax.conv_general_dilated(
        x,
        kernel.reshape(3, 3, 1, channels),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def transposed(x, kernel, bias):
    """A convolution of the image with zeros put between and around its pixels."""
    channels = x.shape[-1]
    return bias + jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1].reshape(2, 2, 1, channels),
        (1, 1),
        ((1, 1), (1, 1)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def plain_normalised_relu(x, scale, bias):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return jax.nn.relu((x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias)


def transposed_pointwise(x, kernel, bias, mixing, mixing_bias):
    return transposed(x, kernel, bias) @ mixing + mixing_bias


CASES = {
    # Neither square nor of a round number of channels.
    "depthwise": (separable.depthwise, convolved, [(2, 5, 7, 3), (3, 3, 3), (3,)]),
    "one pixel": (separable.depthwise, convolved, [(1, 1, 1, 2), (3, 3, 2), (2,)]),
    "doubled": (separable.doubled, transposed, [(2, 3, 4, 3), (2, 2, 3), (3,)]),
    "doubled_pointwise": (
        separable.doubled_pointwise,
        transposed_pointwise,
        [(2, 3, 4, 3), (2, 2, 3), (3,), (3, 5), (5,)],
    ),
    "normalised_relu": (
        lambda *arguments: separable.normalised_relu(*arguments)[0],
        plain_normalised_relu,
        [(2, 4, 3, 5), (5,), (5,)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_and_its_gradients_equal_the_obvious_ones(case):
    ours, obvious, shapes = CASES[case]
    arguments = drawn(*shapes)
    out, pull = jax.vjp(jax.jit(ours), *arguments)
    expected, pull_expected = jax.vjp(jax.jit(obvious), *arguments)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    (cotangent,) = drawn(out.shape)
    for one, other in zip(pull(cotangent), pull_expected(cotangent), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_layers_of_several_runs_equal_those_of_each():
    x, kernels, biases = drawn((2, 3, 5, 4, 3), (2, 3, 3, 3), (2, 3))

    def both(x, kernel, bias):
        def loss(x, kernel, bias):
            y = separable.depthwise(x, kernel, bias)
            return jnp.square(separable.normalised_relu(y, kernel[0, 0], bias)[0]).sum()

        return jax.grad(loss, argnums=(0, 1, 2))(x, kernel, bias)

    together = jax.vmap(both)(x, kernels, biases)
    for run in range(2):
        for one, other in zip(together, both(x[run], kernels[run], biases[run]), strict=True):
            np.testing.assert_allclose(one[run], other, rtol=1e-4, atol=1e-4)


def test_sums_of_half_precision_are_float32():
    x = jnp.full((8, 64, 64, 1), 300, jnp.bfloat16) + jnp.bfloat16(2)
    y, mean, variance = separable.normalised_relu(x, jnp.ones(1), jnp.ones(1))
    assert (y.dtype, mean.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose([mean[0], variance[0]], [302, 0], atol=1e-3)
    kernel = jnp.zeros((3, 3, 1), jnp.bfloat16)
    of_kernel = jax.grad(lambda k: separable.depthwise(x, k, k[0, 0]).astype(jnp.float32).sum())
    # 302 for each pixel; sums in bfloat16 would stop growing at 65,536.
    np.testing.assert_allclose(of_kernel(kernel)[1, 1, 0], 302 * 8 * 64 * 64, rtol=0.01)
