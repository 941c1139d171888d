"""Batch size against the temperature that training starts from, on the built-in phantom.

    fetalclip sweep --config configs/sweeps/batch_temperature.py --workdir runs/sweep --jobs 2

3 batch sizes x 3 temperatures x 2 seeds. Every point sees 19,200 images, so that what differs is
how many of them are told apart at a time, and how sharply; a larger batch takes fewer steps.
Points are judged on the validation patients.

    fetalclip sweep --config configs/sweeps/batch_temperature.py:full --workdir runs/sweep_full

also has learning rates, temperatures that stay as they are, and a third seed: 108 points.

Hardware: two CPU cores, 3 GiB. Expect half an hour for the 18 points.
"""

from fetalclip_jax import sweeps
from fetalclip_jax.config import default_config

_IMAGES = 19200
_BATCH_SIZES = (32, 64, 128)


def get_config(size="small"):
    config = default_config()
    config.train.checkpoint_every = 400
    config.optimizer.learning_rate = 1e-3
    config.augment.update({"rotate_degrees": 0.0, "translate": 0.0, "jitter": 0.1, "zoom": 0.05})
    config.compute.scan_layers = False
    return config.lock()


def sweep(size="small"):
    axes = [
        sweeps.zipped(
            sweeps.values("train.global_batch_size", _BATCH_SIZES),
            sweeps.values("train.steps", [_IMAGES // size for size in _BATCH_SIZES]),
            # A tenth of the training.
            sweeps.values(
                "optimizer.warmup_steps", [_IMAGES // size // 10 for size in _BATCH_SIZES]
            ),
        ),
        sweeps.values("temperature", [0.02, 0.07, 0.2]),
    ]
    if size == "full":
        axes.append(sweeps.values("temperature_learned", [True, False]))
        axes.append(sweeps.values("optimizer.learning_rate", [5e-4, 1e-3]))
    seeds = sweeps.values("seed", range(3 if size == "full" else 2))
    return sweeps.Sweep(
        sweeps.product(*axes, seeds), studies=("zero_shot.planes", "zero_shot.brain")
    )
