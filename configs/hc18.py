"""Real head images: HC18 in its original layout."""

from fetalclip_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "hc18"
    config.train.steps = 600
    config.compute.scan_layers = False
    return config.lock()
