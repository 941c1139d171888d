"""A linear head on labelled planes: first the head alone, then the image tower with it.

    fetalclip train --config configs/finetune/probe_then_finetune.py:probe \
        --workdir runs/probe --config.init_from=runs/quickstart \
        --config.data.root=FETAL_PLANES_DB
    fetalclip train --config configs/finetune/probe_then_finetune.py:finetune \
        --workdir runs/tuned --config.init_from=runs/probe \
        --config.data.root=FETAL_PLANES_DB
"""

from fetalclip_jax.config import default_config

_PHASES = ("probe", "finetune")


def get_config(phase):
    if phase not in _PHASES:
        raise ValueError(f"{phase!r} is not one of {', '.join(_PHASES)}")
    config = default_config()
    config.init_model = True  # the model is that of config.init_from
    config.data.source = "fetal_planes_db"
    config.loss.kind = "classify"
    config.loss.labels = "planes"
    config.train.global_batch_size = 64
    config.train.steps = 200
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.01
    if phase == "probe":
        config.optimizer.learning_rate = 3e-3
        config.optimizer.learning_rate_factors = (("(?!head/).*", 0.0),)
    else:
        config.optimizer.learning_rate = 3e-4
    return config.lock()
