"""CLIP: two towers and one learned temperature (Radford et al. 2021), or a bias beside it."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from fetalclip_jax.models.lora import LoRA
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.models.text import TextTransformer
from fetalclip_jax.models.vision import VisionTransformer


class CLIP(nn.Module):
    """A functional CLIP: `init` and `apply`, float32 parameters, compute in `dtype`.

    Attributes:
      config: the towers.
      scan_layers: see `models.transformer.Transformer`.
      remat: a key of `models.transformer.REMAT_POLICIES`.
      dtype: compute type of the matrix products; normalisations and logits stay float32.
      lora: low-rank adapters that are trained beside the parameters, see `models.lora`.
      classes: of a linear head on the image features, for fine-tuning on labels; 0: no head.
    """

    config: CLIPConfig
    scan_layers: bool = True
    remat: str = "none"
    dtype: DTypeLike = jnp.float32
    lora: LoRA | None = None
    classes: int = 0

    def setup(self):
        shared = {
            "embed_dim": self.config.embed_dim,
            "quick_gelu": self.config.quick_gelu,
            "scan_layers": self.scan_layers,
            "remat": self.remat,
            "dtype": self.dtype,
        }
        self.visual = VisionTransformer(self.config.vision_cfg, **shared)
        self.text = TextTransformer(self.config.text_cfg, **shared)
        # Stored as its logarithm, so that the scale itself stays positive.
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(self.config.init_logit_scale), ()
        )
        if self.config.init_logit_bias is not None:
            self.logit_bias = self.param(
                "logit_bias", nn.initializers.constant(self.config.init_logit_bias), ()
            )
        if self.classes:
            self.head = self.param("head", _zero_head, self.config.embed_dim, self.classes)

    def encode_image(
        self,
        images: Float[Array | np.ndarray, "B H W 3"],
        taps: Sequence[int] = (),
        keys: Key[Array, "B"] | None = None,
        offsets: Mapping[int, Float[Array, "B L D"]] | None = None,
    ) -> Float[Array, "B E"] | tuple[Float[Array, "B E"], tuple[Float[Array, "B L D"], ...]]:
        """Projected image features, float32, not normalised.

        Args:
          taps: numbers of transformer blocks, the first being 1, whose outputs are returned too.
          keys: a random key for each image, in training: see `models.vision.VisionTransformer`.
          offsets: what is added to the outputs of blocks, by their numbers, to differentiate by.

        Returns:
          The features; with `taps` a pair of them and a tuple of what these blocks made of all
          tokens, the class token first, in `dtype`.

        Raises:
          ValueError: images of another size than the model's; a tap or an offset of no block.
        """
        if not taps:
            return self.visual(images, keys=keys, offsets=offsets).astype(jnp.float32)
        features, outputs = self.visual(images, taps, keys, offsets)
        return features.astype(jnp.float32), outputs

    def encode_text(self, tokens: Int[Array | np.ndarray, "B L"]) -> Float[Array, "B D"]:
        """Projected text features, float32, not normalised."""
        return self.text(tokens).astype(jnp.float32)

    def classify(
        self,
        images: Float[Array | np.ndarray, "B H W 3"],
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B {self.classes}"]:
        """Logits of the head's classes, float32, from features that are not normalised.

        Args:
          keys: as of `encode_image`.
        """
        features = self.encode_image(images, keys=keys)
        return jnp.matmul(features, self.head["kernel"], precision="highest") + self.head["bias"]

    def __call__(
        self,
        images: Float[Array | np.ndarray, "B H W 3"],
        tokens: Int[Array | np.ndarray, "B L"],
        keys: Key[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B D"], Float[Array, "B D"], Float[Array, ""]]:
        """Unit-length image and text features and the exponentiated logit scale.

        Args:
          keys: a random key for each image, in training; None for evaluation.
        """
        return (
            unit_length(self.encode_image(images, keys=keys)),
            unit_length(self.encode_text(tokens)),
            jnp.exp(self.logit_scale.astype(jnp.float32)),
        )


def _zero_head(_key, embed_dim: int, classes: int) -> dict[str, nn.LogicallyPartitioned]:
    kernel, bias = jnp.zeros((embed_dim, classes)), jnp.zeros(classes)
    return {
        "kernel": nn.LogicallyPartitioned(kernel, ("joint", None)),
        "bias": nn.LogicallyPartitioned(bias, (None,)),
    }


def unit_length(features: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Divides each row by its Euclidean norm (at least 1e-12)."""
    norm = jnp.sqrt(jnp.maximum(jnp.sum(features**2, axis=-1, keepdims=True), 1e-24))
    return features / norm
