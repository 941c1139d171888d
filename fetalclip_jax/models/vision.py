"""The image tower: a Vision Transformer."""

import math

import flax.linen as nn
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
        grid = c.image_size // c.patch_size
        patches = images.astype(self.dtype).reshape(batch, grid, c.patch_size, grid, c.patch_size, 3)
        patches = patches.swapaxes(2, 3).reshape(
            batch, grid * grid, c.patch_size, c.patch_size, 3
        )  # B N P P 3
        # A convolution whose stride is its width is one matrix product over patches.
        patch = (c.patch_size, c.patch_size, 3)
        x = Projection(
            patch,
            (c.width,),
            (None, None, None, "embed"),
            math.prod(patch) ** -0.5,
            self.dtype,
            use_bias=False,
            name="patch_embedding",
        )(patches)  # B N D
        scale = c.width**-0.5
        class_embedding = self.param(
            "class_embedding", logical(nn.initializers.normal(scale), "embed"), (c.width,)
        )
        positions = self.param(
            "positional_embedding",
            logical(nn.initializers.normal(scale), None, "embed"),
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
        x = layer_norm("ln_post")(x[:, 0]).astype(self.dtype)  # B D
        projection = self.param(
            "projection",
            logical(nn.initializers.normal(scale), "embed", "joint"),
            (c.width, self.embed_dim),
        )
        return x @ projection.astype(self.dtype)
