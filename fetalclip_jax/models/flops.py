"""Floating point operations that a model of given sizes stands for; a multiply-add is two.

Products of matrices alone, as is usual for model FLOPs utilisation: what a program computes twice
(rematerialisation) or leaves out (the last block of tokens that nobody reads) changes nothing.
"""

from fetalclip_jax.models.presets import CLIPConfig, TextConfig, VisionConfig

# Backward twice the forward: the gradient of a product is two products.
_TRAINING_OVER_FORWARD = 3
# (share of the image's side, channels in, channels out, kernel) of the convolutional stem's layers
# but the last, see `models.vision.ConvStem`.
_STEM = ((4, 3, 48, 4), (8, 48, 96, 3), (8, 96, 96, 3))


def of_image(config: VisionConfig, embed_dim: int, *, training: bool = False) -> int:
    """Forward pass of one image.

    Args:
      training: patches are dropped as the configuration says.
    """
    patches = (config.image_size // config.patch_size) ** 2
    stem = 2 * patches * config.width * 3 * config.patch_size**2
    if config.stem == "conv":
        sides = [config.image_size // share for share, *_ in _STEM]
        stem = sum(
            2 * side**2 * before * after * kernel**2
            for side, (_, before, after, kernel) in zip(sides, _STEM, strict=True)
        )
        stem += 2 * patches * _STEM[-1][2] * config.width * 9
    kept = patches
    if training and config.patch_dropout:
        kept = max(1, int(patches * (1 - config.patch_dropout)))
    blocks = config.layers * _block(kept + 1, config.width, config.mlp_ratio)
    return stem + blocks + 2 * config.width * embed_dim


def of_text(config: TextConfig, embed_dim: int, length: int) -> int:
    """Forward pass of one text of `length` tokens, padding included."""
    blocks = config.layers * _block(length, config.width, config.mlp_ratio)
    return blocks + 2 * config.width * embed_dim


def of_training_pair(config: CLIPConfig, text_length: int, images: int = 1) -> int:
    """Forward and backward pass of one text and its image or images, both towers trained."""
    forward = images * of_image(config.vision_cfg, config.embed_dim, training=True)
    forward += of_text(config.text_cfg, config.embed_dim, text_length)
    return _TRAINING_OVER_FORWARD * forward


def _block(tokens: int, width: int, mlp_ratio: float | int) -> int:
    """Four projections, two of the MLP, and the two products of attention."""
    return 2 * tokens * width * (4 * width + 2 * int(width * mlp_ratio)) + (4 * tokens**2 * width)
