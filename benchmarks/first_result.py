"""How long does a new process take to its first image features, and how much of it is compiling?

    python benchmarks/first_result.py [--model FetalCLIP]

Random weights are written once; then three processes load them and encode one image: without a
compilation cache, filling one, and finding one filled. Peak memory is beside the file's size.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

_PROCESS = """
import json, resource, sys, time
start = time.perf_counter()
import numpy as np
import fetalclip_jax
seconds = {"import": 0.0}
def lap(name, since):
    seconds[name] = time.perf_counter() - since
    return time.perf_counter()
now = lap("import", start)
model = fetalclip_jax.load(sys.argv[1], sys.argv[2])
now = lap("load", now)
size = model.config.vision_cfg.image_size
image = np.zeros((1, size, size, 3), np.float32)
model.encode_image(image)
now = lap("first image", now)
model.encode_image(image)
lap("second image", now)
lap("whole", start)
seconds["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
print(json.dumps(seconds))
"""


def measure(weights: pathlib.Path, model: str, cache: str | None) -> dict[str, float]:
    """Seconds of each part of a new process."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache or ""}
    command = [sys.executable, "-c", _PROCESS, str(weights), model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def write_weights(path: pathlib.Path, model: str) -> None:
    """Random weights of a preset, in a process of its own."""
    code = (
        "import sys, fetalclip_jax, pathlib; from fetalclip_jax.weights import export;"
        "m = fetalclip_jax.load(sys.argv[1]);"
        "export.export(pathlib.Path(sys.argv[2]), m.params, m.config)"
    )
    subprocess.run([sys.executable, "-c", code, model, str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="FetalCLIP", help="preset (default: FetalCLIP)")
    parser.add_argument("--weights", type=pathlib.Path, help=".pt or .safetensors of that model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights
        if weights is None:
            write_weights(pathlib.Path(folder) / "weights", arguments.model)
            weights = pathlib.Path(folder) / "weights" / "open_clip_model.safetensors"
        print(f"{weights.suffix} of {weights.stat().st_size / 1e9:.2f} GB")
        cache = str(pathlib.Path(folder) / "cache")
        print("| process | import | load | first image | second image | whole | peak memory |")
        print("|---|---|---|---|---|---|---|")
        for name, where in (("no cache", None), ("fills it", cache), ("finds it filled", cache)):
            s = measure(weights, arguments.model, where)
            print(
                f"| {name} | {s['import']:.1f} s | {s['load']:.1f} s | {s['first image']:.1f} s | "
                f"{s['second image']:.1f} s | {s['whole']:.1f} s | {s['peak_gb']:.2f} GB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
