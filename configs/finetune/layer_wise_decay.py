"""Full fine-tuning, slower from each block to the one below it.

    fetalclip train --config configs/finetune/layer_wise_decay.py --workdir runs/decayed \
        --config.init_from=runs/quickstart --config.data.root=FETAL_PLANES_DB
"""

from fetalclip_jax.config import default_config
from fetalclip_jax.models import presets
from fetalclip_jax.training.parameter_table import layer_wise_decay


def get_config(model="ViT-Mi-16-96-conv"):
    """`model` is a preset, that of `config.init_from`."""
    config = default_config()
    towers = presets.get(model)
    config.model = towers.to_dict()
    config.data.source = "fetal_planes_db"
    config.captions.positives = "facts"
    config.train.steps = 200
    config.train.global_batch_size = 64
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.learning_rate_factors = (
        *layer_wise_decay("visual", towers.vision_cfg.layers, 0.75),
        *layer_wise_decay("text", towers.text_cfg.layers, 0.75),
    )
    return config.lock()
