"""A FetalCLIP of simulated images that is to read real ones.

    fetalclip train --config configs/phantom_base.py --workdir runs/base

Training images look as other machines would show them (`data.appearance.OTHER_MACHINES`) and lie
where other operators would have them. What each part is worth on real patients is asked by
configs/sweeps/real_transfer.py.

Hardware: two CPU cores, 4 GiB. Expect 75 minutes: 14,000 steps of 0.28 s, counted from the
quickstart's step and what changing the images costs beside it.

    fetalclip plan --config configs/phantom_base.py:gpu --topology H100
    fetalclip train --config configs/phantom_base.py:gpu --workdir runs/base_gpu

is the larger sibling, for one GPU: 160 pixels, towers of ten times the parameters, 180,000
simulated images. It has been planned and not run: 21 of the 79 GiB of an H100, and by what is
published of it at least 85 ms a step, half an hour in all.
"""

from fetalclip_jax.config import default_config
from fetalclip_jax.data.appearance import OTHER_MACHINES
from fetalclip_jax.models import presets

HARDWARE = ("cpu", "gpu")


def get_config(hardware="cpu"):
    if hardware not in HARDWARE:
        raise ValueError(f"{hardware!r} is not one of {', '.join(HARDWARE)}")
    config = default_config()
    config.augment.update({"rotate_degrees": 15.0, "translate": 0.1, "jitter": 0.1, "zoom": 0.15})
    config.augment.update(OTHER_MACHINES)
    config.optimizer.learning_rate = 1e-3
    if hardware == "gpu":
        return _gpu(config).lock()
    config.data.phantom.train_images = 36_000
    config.train.steps = 14_000
    config.train.global_batch_size = 64
    config.train.checkpoint_every = 1000
    config.optimizer.warmup_steps = 100
    config.compute.scan_layers = False
    return config.lock()


def _gpu(config):
    config.model = presets.get("ViT-S-16-160-conv").to_dict()
    config.data.phantom.train_images = 180_000
    config.data.workers = 8
    config.data.loader_workers = 8
    config.train.steps = 20_000
    config.train.global_batch_size = 512
    config.train.checkpoint_every = 1000
    config.train.log_every = 50
    config.optimizer.warmup_steps = 1000
    config.compute.dtype = "bfloat16"
    return config
