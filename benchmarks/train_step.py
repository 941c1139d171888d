"""How fast is a whole training step, beside open_clip's own in the same run?

    pip install -e '.[parity]'
    python benchmarks/train_step.py [--model ViT-S-16] [--batch 32] [--rounds 5]
    python benchmarks/train_step.py --alone --model ViT-L-14 --batch 256 --dtype bfloat16 --largest

Models of the same sizes take turns with batches of the same shape, each in a fresh process, for
their threads and memory would be in each other's way: both towers forward and backward, the
contrastive loss and AdamW; captions have 20 words. This package's texts pass through what training
cuts them with. The gradient cache (`--micro-batches`) is timed beside the plain step. `--alone`
needs no torch; `--largest` doubles the batch until the device is full.
"""

import argparse
import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fetalclip_jax.models import flops, presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import feeding, objective, state, step
from fetalclip_jax.training.telemetry import peak_flops

# Twenty words.
CAPTION = (
    "Ultrasound image of the fetal brain in the trans-thalamic plane at 20 weeks and 3 days, "
    "pixel spacing 0.53 mm/pixel"
)
# As many tokens as it has, begin and end of text included.
_TOKENS = 33
# Steps timed in each turn.
_TIMED = 2
_LOSS = {
    "kind": "softmax",
    "block_size": 0,
    "exchange": "gather",
    "consistency_weight": 0.0,
    "consistency": "cosine",
}


class Ours:
    """This package's step with its state, on one batch."""

    def __init__(self, config, arguments, batch: int, micro_batches: int):
        self._mesh, seed = make_mesh(), 0
        model = CLIP(
            config,
            scan_layers=arguments.scan_layers,
            remat=arguments.remat,
            dtype=jnp.dtype(arguments.dtype),
        )
        rule = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(1e-3, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.1),
        )
        _, shardings = state.abstract_state(model, rule, self._mesh, seed)
        self._state = state.create_state(model, rule, self._mesh, seed)
        self._step = step.make_train_step(
            objective.create(_LOSS, model, self._mesh),
            rule,
            self._mesh,
            shardings,
            seed=seed,
            micro_batches=micro_batches,
        )
        self._batch = self._placed(config, batch)

    def _placed(self, config, batch: int):
        size, text = config.vision_cfg.image_size, config.text_cfg
        rng = np.random.default_rng(0)
        tokens = np.zeros((batch, text.context_length), np.int32)
        tokens[:, :_TOKENS] = rng.integers(1, text.vocab_size - 1, (batch, _TOKENS))
        tokens[:, _TOKENS - 1] = text.vocab_size - 1  # the end of text is the largest id
        local = {
            "image": rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
            "tokens": tokens,
            "caption_ids": np.arange(batch, dtype=np.int32),
            "record": np.arange(batch, dtype=np.int32),
        }
        return feeding.cut_texts(local, self._mesh)

    def __call__(self) -> float:
        self._state, metrics = self._step(self._state, self._batch)
        return float(metrics["loss"])


def theirs(fields: dict, batch: int) -> Callable[[], float]:
    """open_clip's step on one batch."""
    import open_clip
    import reference  # beside this file
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    model = reference.model(fields).to(device).train()
    size, context = fields["vision_cfg"]["image_size"], fields["text_cfg"]["context_length"]
    images = torch.randn(batch, 3, size, size, device=device)
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=context)([CAPTION] * batch)
    tokens, loss_of = tokens.to(device), open_clip.loss.ClipLoss()
    rule = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1
    )

    def run() -> float:
        rule.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(*model(images, tokens)[:3])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        return loss.item()

    return run


def _length(config) -> int:
    """What training cuts these texts to."""
    lengths = feeding.text_lengths(config.text_cfg.context_length)
    return next(length for length in lengths if length >= _TOKENS)


def seconds(arguments, micro_batches: int) -> float:
    """Seconds of a step in a fresh process, after one to warm up.

    Args:
      micro_batches: of this package's step; 0 for open_clip's.
    """
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_time, args=(there, arguments, micro_batches), daemon=True)
    child.start()
    there.close()
    found = here.recv()
    child.join()
    return found


def _time(pipe, arguments, micro_batches: int) -> None:
    if micro_batches:
        run = Ours(_config(arguments), arguments, arguments.batch, micro_batches)
    else:
        run = theirs(_fields(arguments), arguments.batch)
    run()
    start = time.perf_counter()
    for _ in range(_TIMED):
        run()
    pipe.send((time.perf_counter() - start) / _TIMED)


def _fields(arguments) -> dict:
    import reference  # beside this file

    fields = reference.fields(arguments.model)
    fields["text_cfg"].setdefault("context_length", 77)
    fields["vision_cfg"].setdefault("image_size", 224)
    return fields


def _config(arguments) -> presets.CLIPConfig:
    if arguments.alone:
        return presets.get(arguments.model)
    return presets.CLIPConfig.from_dict(_fields(arguments))


def table(
    runs: dict[str, Callable[[], float]], batch: int, rounds: int, mfu: Callable[[float], str]
) -> None:
    """Prints pairs a second of each, in alternating rounds, and the ratio to the first."""
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    first = next(iter(found.values()))
    for name, times in found.items():
        ratio = statistics.median(a / b for a, b in zip(first, times, strict=True))
        rate = batch / statistics.median(times)
        print(f"| {name} | {rate:.2f} | {ratio:.2f} | {mfu(rate)} |", flush=True)


def largest(config, arguments, micro_batch: int | None) -> int:
    """The largest power of two whose step fits; parts of `micro_batch` examples, or whole."""
    batch, fits = micro_batch or 16, 0
    while True:
        try:
            Ours(config, arguments, batch, batch // micro_batch if micro_batch else 1)()
        except Exception as error:  # jaxlib's, whose type is private
            if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
                raise
            return fits
        fits, batch = batch, 2 * batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-S-16", help="open_clip's name, or a preset")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--remat", default="none")
    parser.add_argument("--scan-layers", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without open_clip")
    parser.add_argument("--largest", action="store_true", help="search for the largest batch too")
    arguments = parser.parse_args()
    config, parts = _config(arguments), arguments.micro_batches
    steps = {} if arguments.alone else {"open_clip": 0}
    steps |= {"fetalclip_jax": 1, f"the same in {parts} parts": parts}
    runs = {name: functools.partial(seconds, arguments, count) for name, count in steps.items()}
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {arguments.model}, "
        f"batch {arguments.batch}, {arguments.dtype}"
    )
    kind = jax.devices()[0].device_kind
    peak, pair = peak_flops(kind, arguments.dtype), flops.of_training_pair(config, _length(config))
    print("| step | pairs/s | times the first | MFU |")
    print("|---|---|---|---|")
    table(
        runs,
        arguments.batch,
        arguments.rounds,
        lambda rate: f"{rate * pair / peak / jax.device_count():.1%}" if peak else "",
    )
    if arguments.largest:
        print(f"largest batch, whole: {largest(config, arguments, None)}")
        print(f"largest batch in parts of 64: {largest(config, arguments, 64)}")


if __name__ == "__main__":
    main()
