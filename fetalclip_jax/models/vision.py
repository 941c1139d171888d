"""The image tower: a Vision Transformer."""

import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from fetalclip_jax.models.layers import Projection, layer_norm, logical
from fetalclip_jax.models.presets import VisionConfig
from fetalclip_jax.models.transformer import Transformer
from fetalclip_jax.parallel.sharding import by_example

# What is kept of each patch where the feature is read from all of them ("grid").
_GRID_CHANNELS = 32


class VisionTransformer(nn.Module):
    """Images to one projected feature each (Dosovitskiy et al. 2021, as CLIP uses it)."""

    config: VisionConfig
    embed_dim: int
    quick_gelu: bool = False
    scan_layers: bool = True
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array | np.ndarray, "B H W 3"],
        taps: Sequence[int] = (),
        keys: Key[Array, "B"] | None = None,
        offsets: Mapping[int, Float[Array, "B L D"]] | None = None,
    ) -> Float[Array, "B E"] | tuple[Float[Array, "B E"], tuple[Float[Array, "B L D"], ...]]:
        """Encodes normalised NHWC images of `config.image_size`.

        Args:
          taps: see `models.transformer.Transformer`.
          keys: a random key for each image, which chooses the patches that training leaves out;
            without them all patches are seen.
          offsets: see `models.transformer.Transformer`.

        Returns:
          Projected features; with `taps` a pair of them and the outputs of these blocks: all
          tokens, the class token first, as the block made them.

        Raises:
          ValueError: images of another size; a tap or an offset of no block.
        """
        c = self.config
        batch, *shape = images.shape
        if shape != [c.image_size, c.image_size, 3]:
            raise ValueError(
                f"images are {images.shape}, the model takes [n, {c.image_size}, {c.image_size}, 3]"
            )
        images = jnp.asarray(images, self.dtype)
        if c.stem == "conv":
            x = ConvStem(c.width, self.dtype, name="stem")(images)  # B G G D
            x = x.reshape(batch, -1, c.width)  # B N D
        else:
            patch = (c.patch_size, c.patch_size, 3)
            x = Projection(
                patch,
                (c.width,),
                (None, None, None, "embed"),
                math.prod(patch) ** -0.5,
                self.dtype,
                use_bias=False,
                name="patch_embedding",
            )(split_patches(images, c.patch_size))  # B N D
        scale = c.width**-0.5
        class_embedding = self.param(
            "class_embedding", logical(nn.initializers.normal(scale), "embed"), (c.width,)
        )
        positions = self.param(
            "positional_embedding",
            logical(_position_initialiser(scale), None, "embed"),
            (c.tokens, c.width),
        )
        first = jnp.broadcast_to(class_embedding.astype(x.dtype), (batch, 1, c.width))
        x = jnp.concatenate([first, x], axis=1) + positions.astype(x.dtype)  # B N+1 D
        if c.patch_dropout and keys is not None:
            x = drop_patches(x, keys, c.patch_dropout)
        x = layer_norm("ln_pre")(x).astype(self.dtype)
        class_token_alone = c.pool_type == "tok" and not c.global_average_pool
        x = Transformer(
            layers=c.layers,
            heads=c.heads,
            mlp_width=int(c.width * c.mlp_ratio),
            causal=False,
            quick_gelu=self.quick_gelu,
            ls_init_value=c.ls_init_value,
            scan_layers=self.scan_layers,
            remat=self.remat,
            dtype=self.dtype,
            name="transformer",
        )(x, (lambda x: x[:, :1]) if class_token_alone else None, taps, offsets)
        x, outputs = x if taps else (x, ())
        if c.global_average_pool:
            x = layer_norm("ln_post")(x.astype(jnp.float32).mean(axis=1))  # B D
        elif c.pool_type == "tok":
            x = layer_norm("ln_post")(x[:, 0])  # B D
        elif c.pool_type == "avg":
            x = layer_norm("ln_post")(x[:, 1:]).mean(axis=1)  # B D
        else:
            x = layer_norm("ln_post")(x[:, 1:])  # B N D
            x = Projection(
                (c.width,), (_GRID_CHANNELS,), ("embed", None), scale, self.dtype, name="squeeze"
            )(x)
            x = x.reshape(batch, -1)  # B N*C
        x = x.astype(self.dtype)
        projection = self.param(
            "projection",
            logical(nn.initializers.normal(x.shape[-1] ** -0.5), "embed", "joint"),
            (x.shape[-1], self.embed_dim),
        )
        x = by_example(x @ projection.astype(self.dtype))
        return (x, outputs) if taps else x


def drop_patches(
    x: Float[Array, "B tokens D"], keys: Key[Array, "B"], share: float | int
) -> Float[Array, "B kept D"]:
    """The first token and another random choice of `1 - share` of the others in each row.

    A row's choice depends on its key alone, whatever other rows there are.
    """
    batch, tokens, _ = x.shape
    kept = max(1, int((tokens - 1) * (1 - share)))
    scores = jax.vmap(lambda key: jax.random.uniform(key, (tokens - 1,)))(keys)  # B tokens-1
    order = jnp.argsort(scores, axis=1)[:, :kept] + 1
    chosen = jnp.concatenate([jnp.zeros((batch, 1), order.dtype), order], axis=1)
    return jnp.take_along_axis(x, chosen[:, :, None], axis=1)


def split_patches(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B N P P 3"]:
    """Squares of `size` pixels in row order.

    A convolution whose stride is its width is one matrix product over these.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // size, width // size
    patches = images.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    return patches.reshape(batch, rows * columns, size, size, channels)


class ConvStem(nn.Module):
    """Squares of 4 pixels, then 3 x 3 convolutions: a grid of H/16 x W/16."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B H//16 W//16 D"]:
        # CLIP's normalisation centres photographs; ultrasound is darker, and an offset common to
        # all images would fill the features of an untrained network.
        x = 1.1 * x + 0.9
        batch, height, width, _ = x.shape
        x = Projection((4, 4, 3), (48,), (None,) * 4, 48**-0.5, self.dtype, name="patch_embedding")(
            split_patches(x, 4)
        )
        x = x.reshape(batch, height // 4, width // 4, -1)  # B H/4 W/4 C
        x = nn.relu(self._norm("norm_1")(x))
        x = self._convolution(96, 2, "down_1")(x)
        y = nn.relu(self._norm("norm_2")(x))
        x = x + self._convolution(96, 1, "residual")(y)
        x = nn.relu(self._norm("norm_3")(x))
        return self._convolution(self.width, 2, "down_2")(x)

    def _convolution(self, channels: int, stride: int, name: str) -> "Convolution":
        return Convolution(channels, stride, self.dtype, name=name)

    def _norm(self, name: str) -> nn.GroupNorm:
        return nn.GroupNorm(
            8,
            dtype=self.dtype,
            scale_init=logical(nn.initializers.ones, None),
            bias_init=logical(nn.initializers.zeros, None),
            name=name,
        )


class Convolution(nn.Module):
    """A 3 x 3 convolution with zero padding, as one matrix product over shifted images.

    The gradient of XLA's own convolution takes about half as long again on a CPU, for which the
    small models are made.
    """

    channels: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"]
    ) -> Float[Array, "B H//{self.stride} W//{self.stride} {self.channels}"]:
        _, height, width, channels = x.shape
        # As "SAME" pads: on both sides, or after the image where every other pixel is left out.
        before = 1 if self.stride == 1 else 0
        padded = jnp.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
        x = jnp.stack(
            [
                padded[:, i : i + height : self.stride, j : j + width : self.stride]
                for i in range(3)
                for j in range(3)
            ],
            axis=-2,
        )  # B H/stride W/stride 9 C
        shape_in = (9, channels)
        return Projection(
            shape_in,
            (self.channels,),
            (None, None, None),
            math.prod(shape_in) ** -0.5,
            self.dtype,
            name="taps",
        )(x)


def _position_initialiser(scale: float):
    """Sines and cosines of row and column, plus noise, so that near patches start out alike.

    From noise alone a Vision Transformer must first find out which patches are neighbours, and on
    a small data set most of a short run goes by before it does.
    """

    def initialise(key, shape, dtype=jnp.float32):
        tokens, width = shape
        noise = 0.1 * scale * jax.random.normal(key, shape, dtype)
        grid = math.isqrt(tokens - 1)
        quarter = width // 4
        frequencies = 1.0 / 100.0 ** (jnp.arange(quarter) / max(quarter - 1, 1))
        angles = jnp.arange(grid)[:, None] * frequencies  # G Q
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)  # G 2Q
        rows = jnp.broadcast_to(waves[:, None], (grid, grid, 2 * quarter))
        columns = jnp.broadcast_to(waves[None, :], (grid, grid, 2 * quarter))
        table = jnp.concatenate([rows, columns], axis=-1).reshape(tokens - 1, -1)  # N 4Q
        return noise.at[1:, : 4 * quarter].add(math.sqrt(2) * scale * table.astype(dtype))

    return initialise
