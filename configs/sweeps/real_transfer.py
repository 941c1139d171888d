"""What makes a model of simulated images read real ones: one change at a time.

    fetalclip sweep --config configs/sweeps/real_transfer.py:FETAL_PLANES_DB \
        --workdir runs/real_transfer

Every point is trained on the built-in phantom alone and judged, zero-shot, on official *training*
patients of FETAL_PLANES_DB (the folder after the colon): planes among nine candidates, and brain
planes. The base is the recipe of `configs/phantom_base.py`, shorter; each other setting leaves one
part out, or changes one: grain, zoom, rotation and shift, or all of them, vertical flips, the
consistency of two pictures of one anatomy, what counts as positive, pixels, temperature, the image
tower. The best of many settings scores higher on the patients it was chosen by than on others, and
what is best in few steps may not be in many.

    fetalclip sweep --config configs/sweeps/real_transfer.py:FETAL_PLANES_DB,seeds=3 ...

has three seeds of each, for a choice that hangs on one of them; `seeds=1` is the default.

Hardware: two CPU cores, 3 GiB. Expect four to eight minutes a point.
"""

from fetalclip_jax import sweeps
from fetalclip_jax.config import default_config
from fetalclip_jax.data.appearance import OTHER_MACHINES
from fetalclip_jax.data.augment import SIMULATED_TO_REAL
from fetalclip_jax.evaluation.sources import DataSet


def get_config(argument):
    config = default_config()
    config.train.steps = 1000
    config.train.global_batch_size = 64
    config.train.checkpoint_every = 500
    config.train.ema_decay = 0.998
    config.optimizer.warmup_steps = 100
    config.optimizer.learning_rate = 1e-3
    config.augment.update(SIMULATED_TO_REAL)
    config.compute.scan_layers = False
    return config.lock()


def sweep(argument):
    root, _, seeds = argument.partition(",seeds=")
    grainy, closer = {"augment.speckle": 0.2}, {"augment.zoom": 0.3}
    moved = {"augment.rotate_degrees": 15.0, "augment.translate": 0.1}
    settings = [
        {},
        {f"augment.{field}": 0.0 for field in OTHER_MACHINES},
        grainy,
        closer,
        moved,
        grainy | closer | moved,
        {"augment.flip_vertical": 0.5},
        {"train.ema_decay": 0.0},
        {"loss.consistency_weight": 0.5},
        {"loss.consistency_weight": 0.5, "loss.consistency": "contrastive"},
        {"captions.positives": "facts"},
        {"model.vision_cfg.image_size": 128},
        *sweeps.values("temperature", [0.02, 0.07]),
        {"model.vision_cfg.width": 192, "model.vision_cfg.layers": 3},
        {"model.vision_cfg.stem": "patch"},
    ]
    return sweeps.Sweep(
        sweeps.product(settings, sweeps.values("seed", range(int(seeds or 1)))),
        studies=("zero_shot.planes", "zero_shot.brain"),
        judged_on=DataSet("fetal_planes_db", root, splits={"validation": "official_train"}),
    )
