"""A small FetalCLIP pretrained on the built-in phantom.

    fetalclip train --config configs/phantom_quickstart.py --workdir runs/quickstart

Hardware: two CPU cores, 3 GiB. Expect five minutes of training.
"""

from fetalclip_jax.config import default_config


def get_config():
    config = default_config()
    config.train.steps = 1300
    config.train.global_batch_size = 64
    config.train.checkpoint_every = 100
    # The average reads images of other machines better than the parameters of any one step.
    config.train.ema_decay = 0.998
    config.train.keep_best = "ema_val_loss"
    config.optimizer.warmup_steps = 40
    config.optimizer.learning_rate = 1e-3
    # Another magnification is another size in pixels and another spacing in the caption: what a
    # short run has to learn of the age.
    config.augment.update({"rotate_degrees": 0.0, "translate": 0.0, "jitter": 0.1, "zoom": 0.05})
    config.compute.scan_layers = False  # a few small layers compile quickly and run faster unrolled
    return config.lock()
