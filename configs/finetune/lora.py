"""LoRA: low-rank adapters of the attention of both towers, everything else as it was.

    fetalclip train --config configs/finetune/lora.py --workdir runs/lora \
        --config.init_from=runs/quickstart --config.data.root=FETAL_PLANES_DB
"""

from fetalclip_jax.config import default_config


def get_config():
    config = default_config()
    config.init_model = True  # the model is that of config.init_from
    config.data.source = "fetal_planes_db"
    config.lora.update(
        {
            "targets": ("(visual|text)/transformer/.*/(query|value)",),
            "rank": 8,
            "alpha": 16.0,
        }
    )
    # Captions of few facts: images of one plane are positives of one another.
    config.captions.positives = "facts"
    config.train.steps = 200
    config.train.global_batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.0
    return config.lock()
