"""A UNETR-style decoder: block outputs of an image tower and the image itself to masks.

After Hatamizadeh et al. 2022 (UNETR), with the depthwise separable blocks of FetalCLIP's
segmentation. Every map is channels last.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

SCALE = 16  # the decoder doubles its grid of tokens four times
TAPS = 4

_EPSILON = 1e-5  # of every batch normalisation
_MOMENTUM = 0.1  # the share of the newest batch in the running statistics


class UNETRDecoder(nn.Module):
    """Tokens of four blocks and the image to logits of every pixel.

    Parameters start as PyTorch's layers start by default, and batch normalisation counts as
    PyTorch's: running statistics (collection `batch_stats`) take a tenth of each batch, of its
    variance the unbiased one.

    Attributes:
      classes: masks to make, each its own yes or no.
      width: channels at full resolution; 8, 4 and 2 times as many at an eighth, a quarter, a half.
      dtype: of maps between layers; statistics and logits are float32.
    """

    classes: int
    width: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array | np.ndarray, "B S S 3"],
        tokens: Sequence[Float[Array | np.ndarray, "B G G W"]],
        train: bool = False,
    ) -> Float[Array, "B S S {self.classes}"]:
        """Masks as logits.

        Args:
          images: as the tower takes them.
          tokens: outputs of four blocks without the class token, the first block first.
          train: normalise by the statistics of this batch and update the running ones, which must
            then be mutable.

        Raises:
          ValueError: an image size that is no multiple of 16; not four taps.
        """
        size = images.shape[1]
        if size % SCALE:
            raise ValueError(
                f"the decoder takes images of a multiple of {SCALE} pixels, found {size}: choose a "
                f"model of such an image size"
            )
        if len(tokens) != TAPS:
            raise ValueError(f"the decoder takes tokens of {TAPS} blocks, found {len(tokens)}")
        f, grid = self.width, size // SCALE
        batch, _, _, channels = tokens[0].shape
        first, second, third, fourth = (
            # Half-pixel centres, as torch.nn.functional.interpolate without align_corners.
            jax.image.resize(
                one.astype(self.dtype), (batch, grid, grid, channels), "bilinear", antialias=False
            )
            for one in tokens
        )

        def blocks(name, x, *widths, doubling=False):
            for number, width in enumerate(widths, 1):
                x = Block(width, doubling, self.dtype, name=f"{name}_{number}")(x, train)
            return x

        def up(name, x, width):
            return _Up(width, self.dtype, name=name)(x)

        def joined(*parts):
            return jnp.concatenate(parts, axis=-1)

        image = blocks("image", images.astype(self.dtype), f, f)
        first = blocks("first_tap", first, 8 * f, 4 * f, 2 * f, doubling=True)
        second = blocks("second_tap", second, 8 * f, 4 * f, doubling=True)
        third = blocks("third_tap", third, 8 * f, doubling=True)
        x = up("fourth_tap", fourth, 8 * f)  # B S/8 S/8 8f
        x = blocks("eighth", joined(third, x), 8 * f, 8 * f, 8 * f)
        x = up("eighth_up", x, 4 * f)  # B S/4 S/4 4f
        x = blocks("quarter", joined(second, x), 4 * f, 4 * f)
        x = up("quarter_up", x, 2 * f)  # B S/2 S/2 2f
        x = blocks("half", joined(first, x), 2 * f, 2 * f)
        x = up("half_up", x, f)  # B S S f
        x = blocks("full", joined(image, x), f, f)
        return Pointwise(self.classes, jnp.float32, name="head")(x.astype(jnp.float32))


class Block(nn.Module):
    """A separable convolution: every channel for itself, then channels at every pixel.

    Attributes:
      width: channels out.
      doubling: twice as many rows and columns.
    """

    width: int
    doubling: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B _ _ D"]:
        if self.doubling:
            x = Doubling(self.dtype, name="doubling")(x)
        x = Depthwise(self.dtype, name="depthwise")(x)
        x = nn.relu(BatchNorm(name="norm_1")(x, train))
        x = Pointwise(self.width, self.dtype, name="pointwise")(x)
        return nn.relu(BatchNorm(name="norm_2")(x, train))


class _Up(nn.Module):
    """Twice as many rows and columns, then channels at every pixel."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        x = Doubling(self.dtype, name="doubling")(x)
        return Pointwise(self.width, self.dtype, name="pointwise")(x)


class Depthwise(nn.Module):
    """A 3 x 3 convolution of each channel, zeros around the image.

    As a sum of shifted images: XLA's grouped convolutions are slow on a CPU, their gradients more.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        _, height, width, channels = x.shape
        kernel = self.param("kernel", _uniform(9), (3, 3, channels)).astype(self.dtype)
        bias = self.param("bias", _uniform(9), (channels,)).astype(self.dtype)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return bias + sum(
            padded[:, i : i + height, j : j + width] * kernel[i, j]
            for i in range(3)
            for j in range(3)
        )


class Doubling(nn.Module):
    """A 2 x 2 transposed convolution of each channel with stride 2: each pixel becomes four."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", _uniform(4), (2, 2, channels)).astype(self.dtype)
        bias = self.param("bias", _uniform(4), (channels,)).astype(self.dtype)
        x = x[:, :, None, :, None] * kernel[:, None] + bias  # B H 2 W 2 C
        return x.reshape(batch, 2 * height, 2 * width, channels)


class Pointwise(nn.Module):
    """The same linear map of the channels at every pixel."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W {self.width}"]:
        *shape, channels = x.shape
        kernel = self.param("kernel", _uniform(channels), (channels, self.width))
        bias = self.param("bias", _uniform(channels), (self.width,))
        x = x.reshape(-1, channels) @ kernel.astype(self.dtype)
        return (x + bias.astype(self.dtype)).reshape(*shape, self.width)


class BatchNorm(nn.Module):
    """Batch normalisation that keeps PyTorch's running statistics.

    flax's keeps the biased variance, which for few small images is another number.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (channels,))
        mean, variance = running_mean.value, running_variance.value
        if train:
            count = x.size // channels
            values = x.astype(jnp.float32)
            mean = values.mean((0, 1, 2))
            # The deviations are squared, not the values: no cancellation of a large mean.
            variance = jnp.square(values - mean).mean((0, 1, 2))
            if not self.is_initializing():
                unbiased = variance * (count / max(count - 1, 1))
                running_mean.value += _MOMENTUM * (mean - running_mean.value)
                running_variance.value += _MOMENTUM * (unbiased - running_variance.value)
        factor = scale * jax.lax.rsqrt(variance + _EPSILON)
        return (x * factor + (bias - mean * factor)).astype(x.dtype)


def _uniform(fan_in: int):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which PyTorch draws kernels and biases from."""

    def initialise(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialise
