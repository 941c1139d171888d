"""A stronger model of the built-in phantom, and the sweep of batch size and temperature.

    fetalclip train --config configs/phantom_small.py --workdir runs/small

Hardware: two CPU cores, 4 GiB.
"""

from fetalclip_jax.config import default_config


def get_config():
    config = default_config()
    config.data.phantom.train_images = 18000
    config.train.steps = 3000
    config.compute.scan_layers = False
    config.evaluation.probe_copies = 2
    return config.lock()
