"""The smallest model with every kind of parameter."""

from fetalclip_jax.models import presets

TINY = presets.CLIPConfig(
    embed_dim=12,
    vision_cfg=presets.VisionConfig(
        image_size=16, patch_size=8, width=32, layers=3, head_width=16
    ),
    text_cfg=presets.TextConfig(context_length=10, vocab_size=50, width=16, heads=2, layers=2),
)
