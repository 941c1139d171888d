"""How much of an accelerator's arithmetic do the image towers use? Needs neither torch nor images.

    python benchmarks/mfu.py [--models FetalCLIP ViT-B-16] [--batch 64 256 1024] [--dtype bfloat16]

Model FLOPs utilisation is the floating point operations that a model of these sizes stands for,
times images a second, over the published peak of the device. Beside it stands the share of what
the device's own product of two large matrices reaches in this process. What this package leaves
out (the last block of tokens that nobody reads) is counted as if it were done.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fetalclip_jax.models import flops, presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.training import telemetry
from fetalclip_jax.training.state import initial_params


def seconds_per_call(run: Callable[[], jax.Array], rounds: int) -> float:
    """Median over rounds, each of as many calls as fill a quarter of a second."""
    jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    calls = max(1, int(0.25 / (time.perf_counter() - start)))
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            last = run()
        jax.block_until_ready(last)
        found.append((time.perf_counter() - start) / calls)
    return statistics.median(found)


def product_rate(dtype: str, size: int, rounds: int) -> float:
    """Operations a second of the product of two square matrices."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / seconds_per_call(lambda: product(a, a), rounds)


def benchmark(name: str, batches: list[int], dtype: str, rounds: int, product: float, peak) -> None:
    """Prints the rows of one model; `product` and `peak` in operations a second."""
    config = presets.get(name)
    model = CLIP(config, dtype=jnp.dtype(dtype))
    params = nn.meta.unbox(jax.jit(lambda: initial_params(model, jax.random.key(0)))())
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    encode = jax.jit(lambda p, x: model.apply({"params": p}, x, method=CLIP.encode_image))
    size = config.vision_cfg.image_size
    for batch in batches:
        images = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
        run = functools.partial(encode, params, images)
        rate = batch / seconds_per_call(run, rounds)
        operations = rate * flops.of_image(config.vision_cfg, config.embed_dim)
        share = f"{operations / peak:.0%}" if peak else ""
        print(
            f"| {name} | {batch} | {rate:.4g} | {operations / 1e12:.3g} | "
            f"{operations / product:.0%} | {share} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["FetalCLIP", "ViT-B-16"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--product-size", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    kind = jax.devices()[0].device_kind
    product = product_rate(arguments.dtype, arguments.product_size, arguments.rounds)
    peak = telemetry.peak_flops(kind, arguments.dtype)
    print(
        f"{kind}, jax {jax.__version__}, {arguments.dtype}: its product of matrices runs at "
        f"{product / 1e12:.3g} TFLOP/s; published peak "
        f"{f'{peak / 1e12:.0f} TFLOP/s' if peak else 'not known here'}"
    )
    print("| model | batch | images/s | TFLOP/s | of the product | MFU |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        benchmark(name, arguments.batch, arguments.dtype, arguments.rounds, product, peak)


if __name__ == "__main__":
    main()
