"""The image tower: a Vision Transformer."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fetalclip_jax.models.presets import VisionConfig
from fetalclip_jax.models.transformer import Projection, Transformer, layer_norm, logical


class VisionTransformer(nn.Module):
    """Images to one projected feature each (Dosovitskiy et al. 2021, as CLIP uses it)."""

    config: VisionConfig
    embed_dim: int
    quick_gelu: bool = False
    scan_layers: bool = True
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B embed_dim"]:
        """Encodes normalised NHWC images of `config.image_size`.

        Raises:
          ValueError: images of another size.
        """
        c = self.config
        batch, *shape = images.shape
        if shape != [c.image_size, c.image_size, 3]:
            raise ValueError(
                f"images are {images.shape}, the model takes [n, {c.image_size}, {c.image_size}, 3]"
            )
        images = images.astype(self.dtype)
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
        x = layer_norm("ln_pre")(x).astype(self.dtype)
        x = Transformer(
            layers=c.layers,
            heads=c.heads,
            mlp_width=int(c.width * c.mlp_ratio),
            causal=False,
            quick_gelu=self.quick_gelu,
            scan_layers=self.scan_layers,
            remat=self.remat,
            dtype=self.dtype,
            name="transformer",
        )(x)
        if c.pool_type == "tok":
            x = layer_norm("ln_post")(x[:, 0])  # B D
        else:
            x = layer_norm("ln_post")(x[:, 1:]).mean(axis=1)  # B D
        x = x.astype(self.dtype)
        projection = self.param(
            "projection",
            logical(nn.initializers.normal(scale), "embed", "joint"),
            (c.width, self.embed_dim),
        )
        return x @ projection.astype(self.dtype)


def split_patches(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B N P P 3"]:
    """Squares of `size` pixels in row order.

    A convolution whose stride is its width is one matrix product over these.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // size, width // size
    patches = images.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    return patches.reshape(batch, rows * columns, size, size, channels)


class ConvStem(nn.Module):
    """Four stride-2 convolutions, with residual blocks between them: a grid of H/16 x W/16."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B H/16 W/16 D"]:
        # CLIP's normalisation centres photographs; ultrasound is darker, and an offset common to
        # all images would fill the features of an untrained network.
        x = 1.1 * x + 0.9
        x = self._convolution(16, 2, "down_1")(x)
        x = nn.relu(self._norm("norm_1")(x))
        for level, channels in ((2, 32), (3, 64)):
            x = self._convolution(channels, 2, f"down_{level}")(x)
            y = nn.relu(self._norm(f"norm_{level}a")(x))
            y = self._convolution(channels, 1, f"conv_{level}a")(y)
            y = nn.relu(self._norm(f"norm_{level}b")(y))
            x = x + self._convolution(channels, 1, f"conv_{level}b")(y)
        return self._convolution(self.width, 2, "down_4")(x)

    def _convolution(self, channels: int, stride: int, name: str) -> nn.Conv:
        return nn.Conv(
            channels,
            (3, 3),
            (stride, stride),
            dtype=self.dtype,
            kernel_init=logical(nn.initializers.lecun_normal(), None, None, None, None),
            bias_init=logical(nn.initializers.zeros, None),
            name=name,
        )

    def _norm(self, name: str) -> nn.GroupNorm:
        return nn.GroupNorm(
            8,
            dtype=self.dtype,
            scale_init=logical(nn.initializers.ones, None),
            bias_init=logical(nn.initializers.zeros, None),
            name=name,
        )


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
