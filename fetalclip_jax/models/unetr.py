"""A UNETR-style decoder: block outputs of an image tower and the image itself to masks.

After Hatamizadeh et al. 2022 (UNETR), with the depthwise separable blocks of FetalCLIP's
segmentation. Every map is channels last.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fetalclip_jax.models.separable import (
    depthwise,
    doubled,
    doubled_pointwise,
    exact,
    normalised_relu,
    pointwise,
    rescaled_relu,
)

SCALE = 16  # the decoder doubles its grid of tokens four times
TAPS = 4

_MOMENTUM = 0.1  # the share of the newest batch in the running statistics


class UNETRDecoder(nn.Module):
    """Tokens of four blocks and the image to logits of every pixel.

    Parameters start as PyTorch's layers start by default, and batch normalisation counts as
    PyTorch's: running statistics (collection `batch_stats`) take a tenth of each batch, of its
    variance the unbiased one.

    Attributes:
      classes: masks to make, each its own yes or no.
      width: channels at full resolution; 8, 4 and 2 times as many at an eighth, a quarter, a half.
      dtype: of maps between layers; statistics and logits are float32 at least.
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
                jnp.asarray(one, self.dtype),
                (batch, grid, grid, channels),
                "bilinear",
                antialias=False,
            )
            for one in tokens
        )

        def blocks(name, x, *widths, doubling=False):
            for number, width in enumerate(widths, 1):
                x = Block(width, doubling, self.dtype, name=f"{name}_{number}")(x, train)
            return x

        def up(name, x, width):
            return Up(width, self.dtype, name=name)(x)

        def joined(*parts):
            return jnp.concatenate(parts, axis=-1)

        image = blocks("image", jnp.asarray(images, self.dtype), f, f)
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
        x = exact(x)
        return pointwise(x, *Weights((f, self.classes), x.dtype, name="head")())


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
        channels = x.shape[-1]
        if self.doubling:
            x = doubled(x, *Weights((2, 2, channels), self.dtype, name="doubling")())
        x = depthwise(x, *Weights((3, 3, channels), self.dtype, name="depthwise")())
        x = BatchNormReLU(name="norm_1")(x, train)
        shape = channels, self.width
        x = pointwise(x, *Weights(shape, self.dtype, name="pointwise")())
        return BatchNormReLU(name="norm_2")(x, train)


class Up(nn.Module):
    """Twice as many rows and columns, then channels at every pixel."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W D"]:
        channels = x.shape[-1]
        doubling = Weights((2, 2, channels), self.dtype, name="doubling")()
        shape = channels, self.width
        mixing = Weights(shape, self.dtype, name="pointwise")()
        return doubled_pointwise(x, *doubling, *mixing)


class Weights(nn.Module):
    """Kernel and bias of a layer."""

    shape: tuple[int, ...]
    dtype: DTypeLike

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "..."], Float[Array, "D"]]:
        def drawn(key, shape):
            bound = _bound(self.shape)
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        kernel = self.param("kernel", drawn, self.shape)
        bias = self.param("bias", drawn, self.shape[-1:])
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class BatchNormReLU(nn.Module):
    """Batch normalisation that keeps PyTorch's running statistics, and ReLU.

    flax's keeps the biased variance, which for few small images is another number.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (channels,))
        if not train:
            return rescaled_relu(x, scale, bias, running_mean.value, running_variance.value)
        x, mean, variance = normalised_relu(x, scale, bias)
        if not self.is_initializing():
            count = x.size // channels
            unbiased = variance * (count / max(count - 1, 1))
            running_mean.value += _MOMENTUM * (mean - running_mean.value)
            running_variance.value += _MOMENTUM * (unbiased - running_variance.value)
        return x


def initial_variables(
    decoder: UNETRDecoder, image_size: int, token_shape: tuple[int, int, int], seed: int
) -> dict:
    """What `decoder.init` makes, drawn by NumPy: of so many draws XLA compiles for half a minute.

    Args:
      image_size: of the images it will see; in pixels.
      token_shape: of a tap of one image, [G, G, W].
      seed: of the draws.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    tokens = (jax.ShapeDtypeStruct((1, *token_shape), jnp.float32),) * TAPS
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), images, tokens)
    generator = np.random.default_rng(seed)

    def drawn(tree):
        if "kernel" in tree:
            bound = _bound(tree["kernel"].shape)
            return {
                name: generator.uniform(-bound, bound, tree[name].shape).astype(np.float32)
                for name in ("kernel", "bias")
            }
        start = {"scale": np.ones, "variance": np.ones, "bias": np.zeros, "mean": np.zeros}
        return {
            name: start[name](leaf.shape, np.float32) if name in start else drawn(leaf)
            for name, leaf in tree.items()
        }

    return drawn(shapes)


def _bound(kernel: tuple[int, ...]) -> float:
    """PyTorch draws kernel and bias from U(-bound, bound), 1/sqrt(fan_in)."""
    return math.prod(kernel[:-1]) ** -0.5
