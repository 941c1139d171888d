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

from fetalclip_jax.model import Model
from fetalclip_jax.models import flops
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer

# Twenty words.
CAPTION = (
    "Ultrasound image of the fetal brain in the trans-thalamic plane at 20 weeks and 3 days, "
    "pixel spacing 0.53 mm/pixel"
)
_CONTEXT = 117


def product_rate(dtype: str) -> float:
    """Operations per second of this device's matrix product, the best of the libraries' own."""
    size = 2048
    host = np.random.default_rng(0).random((size, size), np.float32)
    ours = jnp.asarray(host, dtype)
    theirs = torch.tensor(host, dtype=getattr(torch, dtype), device=_torch_device())
    product = jax.jit(jnp.matmul)
    runs = [
        lambda: product(ours, ours).block_until_ready(),
        lambda: (theirs @ theirs)[0, 0].item(),
    ]
    if _torch_device() == "cpu":
        runs.append(lambda: host @ host)
    for run in runs:
        run()
    return max(rate(run, 2 * size**3) for run in runs for _ in range(3))


def _torch_device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def rate(run: Callable[[], object], count: int) -> float:
    """Items per second of one call that handles `count`."""
    time.sleep(0.5)  # the threads of the library that was timed before may still spin
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def paired(ours, theirs, count: int, rounds: int, dtype: str) -> dict[str, float]:
    """Medians over rounds in which ours, theirs and the matrix product take turns."""
    ours(), theirs()
    fast, slow, product = [], [], []
    for _ in range(rounds):
        fast.append(rate(ours, count))
        slow.append(rate(theirs, count))
        product.append(product_rate(dtype))
    return {
        "ours": statistics.median(fast),
        "theirs": statistics.median(slow),
        "ratio": statistics.median(a / b for a, b in zip(fast, slow, strict=True)),
        "per_product": statistics.median(a / b for a, b in zip(fast, product, strict=True)),
        "product": statistics.median(product),
    }


def benchmark(name: str, batch: int, text_batch: int, rounds: int) -> None:
    """Prints the rows of one model."""
    fields = reference.fields(name)
    fields = fields | {"text_cfg": fields["text_cfg"] | {"context_length": _CONTEXT}}
    config = CLIPConfig.from_dict(fields)
    theirs = reference.model(fields)
    gpu = jax.default_backend() == "gpu"
    model = CLIP(config, dtype=jnp.bfloat16 if gpu else jnp.float32)
    ours = Model(model, reference.import_weights(theirs, config), ClipBPETokenizer(_CONTEXT))
    size = config.vision_cfg.image_size
    images = np.random.default_rng(0).standard_normal((batch, size, size, 3)).astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    tokens = ours.tokenize([CAPTION] * text_batch)
    ids = open_clip.get_tokenizer("ViT-B-32", context_length=_CONTEXT)([CAPTION] * text_batch)
    assert (ids.numpy() == tokens).all()
    if gpu:
        theirs = theirs.to("cuda", torch.bfloat16)
        theirs.encode_image = torch.compile(theirs.encode_image, mode="max-autotune")
        theirs.encode_text = torch.compile(theirs.encode_text, mode="max-autotune")
        pixels, ids = pixels.to("cuda", torch.bfloat16), ids.to("cuda")

    def their_images():
        with torch.inference_mode():
            return theirs.encode_image(pixels).float().cpu()

    def their_texts():
        with torch.inference_mode():
            return theirs.encode_text(ids).float().cpu()

    dtype = "bfloat16" if gpu else "float32"
    found = paired(lambda: ours.encode_image(images), their_images, batch, rounds, dtype)
    share = found["per_product"] * flops.of_image(config.vision_cfg, config.embed_dim)
    print(
        f"| {name}, images, batch {batch} | {found['ours']:.2f}/s | {found['theirs']:.2f}/s | "
        f"{found['ratio']:.2f} | {share:.0%} of {found['product'] / 1e9:.0f} GFLOP/s |",
        flush=True,
    )
    found = paired(lambda: ours.encode_text(tokens), their_texts, text_batch, rounds, dtype)
    print(
        f"| {name}, texts of 20 words, batch {text_batch} | {found['ours']:.1f}/s | "
        f"{found['theirs']:.1f}/s | {found['ratio']:.2f} | |",
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
    print("| what | fetalclip_jax | open_clip | ratio | share of the matrix product's rate |")
    print("|---|---|---|---|---|")
    for name in arguments.models:
        benchmark(name, arguments.batch, arguments.text_batch, arguments.rounds)


if __name__ == "__main__":
    main()
