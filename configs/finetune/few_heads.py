"""Sixteen real heads for a model of simulated images: ages that lose nothing of what it knows.

    fetalclip train --config configs/finetune/few_heads.py --workdir runs/heads \\
        --config.init_from=runs/base --config.data.root=HC18

16 patients of HC18 (`config.data.train_patients`), of the half of its ids that
`configs/eval/real_transfer.py:test` does not judge. Alone they would be learnt by heart, and ages
of other heads forgotten; here three quarters of every batch are simulated, shown as in
`configs/phantom_base.py`, the rate is small, and parameters are averaged.

    fetalclip evaluate --config configs/eval/real_transfer.py:test --output results/heads \\
        --config.models.heads.path=runs/heads --config.models.base.path=runs/base \\
        --config.data.fetal_planes_db.root=FPDB --config.data.hc18.root=HC18

Hardware: two CPU cores, 3 GiB. Expect two minutes of training.
"""

from fetalclip_jax.config import default_config
from fetalclip_jax.data.appearance import OTHER_MACHINES


def get_config():
    config = default_config()
    config.init_model = True  # the model is that of config.init_from
    config.data.source = "hc18"
    config.data.hc18.test_share = 0.5
    config.data.train_patients = 16
    config.data.mixture = (("phantom", "", 0.75),)
    config.augment.update({"rotate_degrees": 10.0, "translate": 0.0, "jitter": 0.1, "zoom": 0.1})
    config.augment.update(OTHER_MACHINES)
    config.train.steps = 150
    config.train.global_batch_size = 64
    config.train.ema_decay = 0.98
    config.train.keep_best = ""
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 20
    return config.lock()
