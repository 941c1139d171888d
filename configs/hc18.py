"""Real head images: HC18 in its original layout (zenodo.org/records/1327317).

    fetalclip train --config configs/hc18.py --config.data.root=HC18 --workdir runs/hc18
    fetalclip evaluate --model runs/hc18 --data hc18=HC18 --study age --output results/hc18

Patients are divided into train, validation and test (`config.data.hc18.validation_share` and
`test_share`); the validation loss of the log is that of the validation patients.

Add `--config.init_from=runs/quickstart` to start from a model pretrained on the phantom; the
model and the tokenizer must be those of that run, as they are by default.

Hardware: two CPU cores, 3 GiB. Expect seven to ten minutes of training.
"""

from fetalclip_jax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "hc18"
    config.train.steps = 600
    config.train.global_batch_size = 64
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 40
    # Few images: each is seen at many magnifications, with the pixel spacing it then has.
    config.augment.zoom = 0.3
    config.compute.scan_layers = False
    return config.lock()
