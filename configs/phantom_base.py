"""A small FetalCLIP of simulated images alone that reads real ones.

    fetalclip train --config configs/phantom_base.py --workdir runs/base
    fetalclip evaluate --config configs/eval/real_transfer.py --output results/base \\
        --config.models.base.path=runs/base \\
        --config.data.fetal_planes_db.root=FPDB --config.data.hc18.root=HC18

The quickstart's model on more images and for longer, shown as other machines would
(`data.augment.SIMULATED_TO_REAL`). `load` takes the average of the parameters. What each of these
gives, and what gave nothing: benchmarks/RESULTS.md.

Hardware: two CPU cores, 4 GiB. Expect half an hour of training, and on real test patients (two
seeds, research use only; README): planes 0.82 macro F1 among nine candidates, brain planes 0.52 and
0.56, valid prediction rate of ages 0.95 and 0.97 on HC18.

    fetalclip plan --config configs/phantom_base.py:gpu --topology H100
    fetalclip train --config configs/phantom_base.py:gpu --workdir runs/base_gpu

is the larger sibling, for one GPU: 160 pixels, towers of ten times the parameters, 180,000
simulated images. It has been planned and not run: 21.4 of the 79 GiB of an H100, and by what is
published of it at least 85 ms a step, half an hour in all.
"""

from fetalclip_jax.config import default_config, model_fields
from fetalclip_jax.data.augment import SIMULATED_TO_REAL
from fetalclip_jax.models import presets

HARDWARE = ("cpu", "gpu")


def get_config(hardware="cpu"):
    if hardware not in HARDWARE:
        raise ValueError(f"{hardware!r} is not one of {', '.join(HARDWARE)}")
    config = default_config()
    config.augment.update(SIMULATED_TO_REAL)
    config.train.keep_best = "ema_val_loss"
    config.optimizer.learning_rate = 1e-3
    if hardware == "gpu":
        return _gpu(config).lock()
    config.data.phantom.train_images = 30_000
    config.train.steps = 6000
    config.train.global_batch_size = 64
    config.train.ema_decay = 0.998
    config.optimizer.warmup_steps = 100
    config.compute.scan_layers = False
    return config.lock()


def _gpu(config):
    config.model = model_fields(presets.get("ViT-S-16-160-conv"))
    config.data.phantom.train_images = 180_000
    config.data.workers = 8
    config.data.loader_workers = 8
    config.train.steps = 20_000
    config.train.global_batch_size = 512
    config.train.checkpoint_every = 1000
    config.train.log_every = 50
    config.train.ema_decay = 0.9995
    config.optimizer.warmup_steps = 1000
    config.compute.dtype = "bfloat16"
    return config
