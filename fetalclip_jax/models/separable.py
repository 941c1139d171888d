"""The layers of separable convolutions, channels last, with the gradients a CPU computes fast.

XLA computes grouped convolutions, and more so their gradients, many times slower on a CPU than the
memory they touch would take. Here they are sums of shifted images. Their gradients and those of
batch normalisation are written out, for what automatic differentiation keeps of each of nine
shifts would fill gigabytes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5  # of batch normalisation


@jax.custom_vjp
def depthwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C"], bias: Float[Array, "C"]
) -> Float[Array, "B H W C"]:
    """A 3 x 3 convolution of each channel with zeros around the image."""
    return _shifted_sum(_padded(x), kernel) + bias


def _depthwise_forward(x, kernel, bias):
    padded = _padded(x)
    return _shifted_sum(padded, kernel) + bias, (padded, kernel)


def _depthwise_backward(kept, gradient):
    padded, kernel = kept
    batch, height, width, channels = gradient.shape
    # Rows as one axis: the inner loop is then over columns and channels, however few those are.
    lanes = width * channels
    rows = padded.reshape(batch, height + 2, lanes + 2 * channels)
    over = gradient.reshape(batch, height, lanes)
    products = [
        exact(rows[:, i : i + height, j * channels : j * channels + lanes] * over)
        for i in range(3)
        for j in range(3)
    ]
    # One pass over both arrays makes all nine sums.
    sums = jax.lax.reduce(
        products,
        [jnp.zeros((), products[0].dtype)] * 9,
        lambda one, other: [a + b for a, b in zip(one, other, strict=True)],
        (0, 1),
    )
    of_kernel = jnp.stack(sums).reshape(3, 3, width, channels).sum(2)
    return (
        _shifted_sum(_padded(gradient), kernel[::-1, ::-1]),
        of_kernel.astype(kernel.dtype),
        _sum(gradient).astype(kernel.dtype),
    )


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def doubled(
    x: Float[Array, "B H W C"], kernel: Float[Array, "2 2 C"], bias: Float[Array, "C"]
) -> Float[Array, "B 2*H 2*W C"]:
    """A 2 x 2 transposed convolution of each channel with stride 2: each pixel becomes four."""
    batch, height, width, channels = x.shape
    x = x[:, :, None, :, None] * kernel[:, None] + bias  # B H 2 W 2 C
    return x.reshape(batch, 2 * height, 2 * width, channels)


def pointwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "C D"], bias: Float[Array, "D"]
) -> Float[Array, "B H W D"]:
    """The same linear map of the channels at every pixel."""
    *shape, channels = x.shape
    return (x.reshape(-1, channels) @ kernel + bias).reshape(*shape, -1)


def doubled_pointwise(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "2 2 C"],
    bias: Float[Array, "C"],
    mixing: Float[Array, "C D"],
    mixing_bias: Float[Array, "D"],
) -> Float[Array, "B 2*H 2*W D"]:
    """`pointwise` of `doubled`, as one linear map of each pixel to four."""
    batch, height, width, channels = x.shape
    joint = jnp.moveaxis(kernel[..., None] * mixing, 2, 0)  # C 2 2 D
    x = x.reshape(-1, channels) @ joint.reshape(channels, -1)
    x = x.reshape(batch, height, width, 2, 2, -1).swapaxes(2, 3)  # B H 2 W 2 D
    return x.reshape(batch, 2 * height, 2 * width, -1) + (bias @ mixing + mixing_bias)


def normalised_relu(
    x: Float[Array, "B H W C"], scale: Float[Array, "C"], bias: Float[Array, "C"]
) -> tuple[Float[Array, "B H W C"], Float[Array, "C"], Float[Array, "C"]]:
    """Batch normalisation and ReLU; also the mean and (biased) variance, without gradients."""
    y, mean, variance = _normalised_relu(x, scale, bias)
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance)


@jax.custom_vjp
def _normalised_relu(x, scale, bias):
    return _normalised_relu_forward(x, scale, bias)[0]


def _normalised_relu_forward(x, scale, bias):
    mean = _sum(x) / (x.size // x.shape[-1])
    # The deviations are squared, not the values: no cancellation of a large mean.
    variance = _sum(jnp.square(x - mean)) / (x.size // x.shape[-1])
    y = rescaled_relu(x, scale, bias, mean, variance)
    return (y, mean, variance), (x, scale, bias, mean, variance)


def _normalised_relu_backward(kept, gradients):
    x, scale, bias, mean, variance = kept
    inverse = jax.lax.rsqrt(variance + EPSILON)
    centred = (x - mean) * inverse
    gradient = jnp.where(centred * scale + bias > 0, gradients[0], 0)
    of_bias, of_scale = _sum(gradient), _sum(gradient * centred)
    count = x.size // x.shape[-1]
    of_x = (scale * inverse) * (gradient - of_bias / count - centred * (of_scale / count))
    return of_x.astype(x.dtype), of_scale, of_bias


_normalised_relu.defvjp(_normalised_relu_forward, _normalised_relu_backward)


def rescaled_relu(
    x: Float[Array, "B H W C"],
    scale: Float[Array, "C"],
    bias: Float[Array, "C"],
    mean: Float[Array, "C"],
    variance: Float[Array, "C"],
) -> Float[Array, "B H W C"]:
    """Batch normalisation by given statistics, and ReLU."""
    factor = scale * jax.lax.rsqrt(variance + EPSILON)
    return jax.nn.relu((x - mean) * factor + bias).astype(x.dtype)


def exact(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Half precision as float32, the precision of sums and logits; others as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _padded(x):
    # Made once, in memory: inside a fusion the bounds of every shift would be tested for each
    # number, and whatever made `x` computed nine times.
    return jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _shifted_sum(padded, kernel):
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    return sum(
        padded[:, i : i + height, j : j + width] * kernel[i, j] for i in range(3) for j in range(3)
    )


def _sum(x):
    return exact(x).sum((0, 1, 2))
