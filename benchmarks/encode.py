"""How fast are images and texts encoded, beside open_clip in the same run?

    pip install -e '.[parity]'
    python benchmarks/encode.py [--models ViT-B-16 FetalCLIP] [--batch 8] [--rounds 5]

Both libraries get the same random weights and the same batch, and take turns; a ratio is the
median over the rounds. On a CPU both compute in float32. On a GPU this package computes in
bfloat16 and open_clip in what is fastest for it (bfloat16, compiled).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import open_clip
import reference  # beside this file
import torch

from fetalclip_jax.bundle import Bundle
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.presets import CLIPConfig, VisionConfig
from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer

# Twenty words.
CAPTION = (
    "Ultrasound image of the fetal brain in the trans-thalamic plane at 20 weeks and 3 days, "
    "pixel spacing 0.53 mm/pixel"
)
_CONTEXT = 117


def forward_flops(c: VisionConfig) -> float:
    """Floating point operations of one image: a multiplication and an addition are two."""
    tokens, width = c.tokens, c.width
    block = 2 * tokens * width * width * (4 + 2 * c.mlp_ratio) + 4 * tokens * tokens * width
    return c.layers * block + 2 * (tokens - 1) * width * 3 * c.patch_size**2


def product_rate(seconds: float = 3.0) -> float:
    """Floating point operations per second of the best float32 matrix product of this machine."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a = jnp.asarray(np.random.default_rng(0).random((size, size), np.float32))
        product = jax.jit(jnp.matmul)
        host = np.asarray(a)
        tensor = torch.from_numpy(host)
        for run in (
            lambda product=product, a=a: product(a, a).block_until_ready(),
            lambda host=host: host @ host,
            lambda tensor=tensor: tensor @ tensor,
        ):
            run()
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds / 9:
                run()
                count += 1
            best = max(best, 2 * size**3 * count / (time.perf_counter() - start))
    return best


def rate(run: Callable[[], object], count: int) -> float:
    """Items per second of one call that handles `count`."""
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def paired(ours, theirs, count: int, rounds: int) -> tuple[float, float, float]:
    """Median rates and the median of their ratio, the two taking turns after a warm-up."""
    ours(), theirs()
    pairs = [(rate(ours, count), rate(theirs, count)) for _ in range(rounds)]
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
    )


def benchmark(name: str, batch: int, text_batch: int, rounds: int) -> None:
    """Prints the rows of one model."""
    fields = reference.fields(name)
    fields = fields | {"text_cfg": fields["text_cfg"] | {"context_length": _CONTEXT}}
    config = CLIPConfig.from_dict(fields)
    theirs = reference.model(fields)
    gpu = jax.default_backend() == "gpu"
    model = CLIP(config, scan_layers=False, dtype=jnp.bfloat16 if gpu else jnp.float32)
    ours = Bundle(model, reference.import_weights(theirs, config), ClipBPETokenizer(_CONTEXT))
    size = config.vision_cfg.image_size
    images = np.random.default_rng(0).standard_normal((batch, size, size, 3)).astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    tokens = ours.tokenize([CAPTION] * text_batch)
    ids = open_clip.get_tokenizer("ViT-B-32", context_length=_CONTEXT)([CAPTION] * text_batch)
    assert (ids.numpy() == tokens).all()
    if gpu:
        theirs = theirs.to("cuda", torch.bfloat16)
        theirs.encode_image = torch.compile(theirs.encode_image, mode="max-autotune")
        pixels, ids = pixels.to("cuda", torch.bfloat16), ids.to("cuda")

    def their_images():
        with torch.inference_mode():
            return theirs.encode_image(pixels).float().cpu()

    def their_texts():
        with torch.inference_mode():
            return theirs.encode_text(ids).float().cpu()

    peak = product_rate()
    print(f"| {name}, matrix product | {peak / 1e9:.0f} GFLOP/s | | |", flush=True)
    fast, slow, ratio = paired(lambda: ours.encode_image(images), their_images, batch, rounds)
    share = fast * forward_flops(config.vision_cfg) / peak
    print(
        f"| {name}, images, batch {batch} | {fast:.2f}/s | {slow:.2f}/s | {ratio:.2f} | "
        f"{share:.0%} of the product's rate |",
        flush=True,
    )
    fast, slow, ratio = paired(lambda: ours.encode_text(tokens), their_texts, text_batch, rounds)
    print(
        f"| {name}, texts of 20 words, batch {text_batch} | {fast:.1f}/s | {slow:.1f}/s | "
        f"{ratio:.2f} | |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ViT-B-16", "FetalCLIP"])
    parser.add_argument("--batch", type=int, default=8, help="images (default: 8)")
    parser.add_argument("--text-batch", type=int, default=32, help="texts (default: 32)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device = jax.devices()[0].device_kind
    threads = torch.get_num_threads()
    print(f"{device}, jax {jax.__version__}, torch {torch.__version__} on {threads} threads")
    print("| what | fetalclip_jax | open_clip | ratio | |")
    print("|---|---|---|---|---|")
    for name in arguments.models:
        benchmark(name, arguments.batch, arguments.text_batch, arguments.rounds)


if __name__ == "__main__":
    main()
