"""LoRA: low-rank adapters of the attention of both towers, everything else as it was.

    fetalclip train --config configs/finetune/lora.py --workdir runs/lora \
        --config.init_from=runs/quickstart --config.data.root=FETAL_PLANES_DB

FetalCLIP's own weights, on a GPU: `--config.init_from=FetalCLIP_weights.pt
--config.init_config=FetalCLIP --config.compute.dtype=bfloat16 --config.compute.remat=dots`.

Hardware: two CPU cores, 3 GiB, for the quickstart. Expect two minutes of training, and on patients
that were left out (242 images, one seed; docs/finetuning.md) a macro F1 of the zero-shot planes of
0.834, of the linear probe of 0.850; the quickstart without it had 0.598 and 0.830 (pretrained on
version 5 of the phantom).
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
