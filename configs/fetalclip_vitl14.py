"""FetalCLIP itself: ViT-L/14 at 224 pixels with a context of 117 tokens, on a slice of TPUs.

    fetalclip plan --config configs/fetalclip_vitl14.py:chips=256,batch=32768 --topology v5e:16x16
    fetalclip train --config configs/fetalclip_vitl14.py:chips=256,batch=32768 \
        --config.data.root=gs://bucket/pairs --workdir gs://bucket/runs/fetalclip

`chips` is how many there are, `chip` of which kind (v5e, v5p, v6e; v5e if left out) and `batch` the
global batch size (1,024 if left out). They decide how many examples a device encodes at a time, so
that the step fits into its memory: `fetalclip plan` says how well. Only the v5e slices of the table
in docs/scaling.md have been compiled.

The recipe is a PROXY: the paper does not publish its own. It is the one that the same group gives
for MobileFetalCLIP, trained on the same data: AdamW at 1e-5 with 500 steps of warm-up, 20 epochs of
210,035 pairs in batches of 1,024. A larger batch keeps the epochs and the learning rate; nothing is
published of how it should grow.

Data are folders of images with a table of captions (docs/data_set.md). Hardware: 16 TPU chips or
more. Expect nothing yet: this configuration has been compiled for the slices of the table, not run.
"""

from fetalclip_jax.config import default_config
from fetalclip_jax.models import presets

PAIRS, EPOCHS = 210_035, 20
# Examples that a device encodes at a time. The v5e's have been compiled (docs/scaling.md); the
# others' are guessed from their memory: ask `fetalclip plan` before you rely on them.
AT_A_TIME = {"v5e": 16, "v6e": 32, "v5p": 128}


def get_config(argument: str = "chips=256"):
    given = {"chips": "256", "chip": "v5e", "batch": "1024"} | _fields(argument)
    chips, batch = _number(given, "chips"), _number(given, "batch")
    if given["chip"] not in AT_A_TIME:
        raise ValueError(f"chip={given['chip']} is not one of {', '.join(AT_A_TIME)}")
    if batch % chips:
        raise ValueError(f"batch={batch} is not a multiple of chips={chips}")
    config = default_config()
    config.model = presets.get("FetalCLIP").to_dict()
    config.tokenizer.kind = "clip_bpe"
    config.data.source = "image_text"
    config.augment.update(
        {"rotate_degrees": 7.0, "translate": 0.05, "jitter": 0.15, "flip": 0.0, "zoom": 0.0}
    )
    config.train.global_batch_size = batch
    config.train.steps = EPOCHS * PAIRS // batch
    config.train.micro_batches = _micro_batches(batch // chips, AT_A_TIME[given["chip"]])
    config.train.checkpoint_every = 200
    warmup_steps = min(500, config.train.steps // 2)
    config.optimizer.update({"learning_rate": 1e-5, "warmup_steps": warmup_steps})
    config.optimizer.update({"beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 0.1})
    config.compute.update({"dtype": "bfloat16", "scan_layers": True, "remat": "dots"})
    # Parameters and moments take 5 GiB on each device: less than what splitting them would cost in
    # memory of gathered ones, and nothing is sent for them but their gradients.
    config.mesh.update({"data": -1, "fsdp": 1, "tensor": 1})
    config.loss.update({"block_size": 2048, "exchange": "gather"})
    return config.lock()


def _micro_batches(local: int, at_a_time: int) -> int:
    """The fewest equal parts of `local` examples of at most `at_a_time`."""
    return next(n for n in range(1, local + 1) if local % n == 0 and local // n <= at_a_time)


def _fields(argument: str) -> dict[str, str]:
    found = dict(field.partition("=")[::2] for field in argument.split(","))
    if unknown := set(found) - {"chips", "chip", "batch"}:
        raise ValueError(f"{min(unknown)!r} is not one of chips=N, chip=NAME and batch=N")
    return found


def _number(given: dict[str, str], name: str) -> int:
    if not given[name].isdecimal() or int(given[name]) < 1:
        raise ValueError(f"{name}={given[name]} is not a number from 1")
    return int(given[name])
