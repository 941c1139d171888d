"""Data efficiency of pretraining: how many images, and how many labelled patients afterwards.

    fetalclip sweep --config configs/sweeps/pretraining_size.py --workdir runs/pretraining_size \
        --jobs 2

Pretraining sees 450 to 7,200 images of the built-in phantom, each a part of the next larger set,
for equally many steps: what differs is the data, not the computation. Probes are then trained on
2 to 32 labelled patients and judged on test patients, who are the same for all: a curve that is to
be shown, by which nothing is chosen. Three seeds a size give its band, which leaves out the
choice of images: `config.data.seed` is fixed, so all three learn from the same ones.

Hardware: two CPU cores, 3 GiB. Expect half an hour for the 15 points.
"""

from fetalclip_jax import sweeps
from fetalclip_jax.config import default_config


def get_config():
    config = default_config()
    config.train.steps = 400
    config.train.global_batch_size = 64
    config.train.checkpoint_every = 400
    config.optimizer.warmup_steps = 40
    config.optimizer.learning_rate = 1e-3
    config.augment.update({"rotate_degrees": 0.0, "translate": 0.0, "jitter": 0.1, "zoom": 0.05})
    config.compute.scan_layers = False
    return config.lock()


def sweep():
    points = sweeps.product(
        sweeps.values("data.train_images", [450, 900, 1800, 3600, 7200]),
        sweeps.values("seed", range(3)),
    )
    return sweeps.Sweep(points, studies=("few_shot.planes", "zero_shot.planes"), patients="test")
