"""The smallest model with every kind of parameter, and the smallest experiment around it."""

from ml_collections import ConfigDict

from fetalclip_jax.config import default_config
from fetalclip_jax.models import presets

TINY = presets.CLIPConfig(
    embed_dim=12,
    vision_cfg=presets.VisionConfig(image_size=16, patch_size=8, width=32, layers=3, head_width=16),
    text_cfg=presets.TextConfig(context_length=10, vocab_size=50, width=16, heads=2, layers=2),
)


def tiny_experiment() -> ConfigDict:
    """A run of seconds: 24 phantom images of 32 pixels, two towers of a few thousand parameters."""
    config = default_config()
    config.model = TINY.to_dict()
    config.model.vision_cfg.image_size = 32
    config.model.text_cfg.update({"context_length": 48, "vocab_size": 1024})
    config.data.workers = 0
    config.data.phantom.update({"train_images": 24, "pool_images": 12, "test_images": 12})
    config.train.update(
        {"steps": 12, "global_batch_size": 8, "checkpoint_every": 4, "log_every": 2}
    )
    config.optimizer.warmup_steps = 2
    return config.lock()
