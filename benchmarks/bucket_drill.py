"""Does a run whose workdir is a bucket, which fails now and then, end as one on a local disk?

    pip install -e '.[test]'
    python benchmarks/bucket_drill.py --buckets gs s3 --every 40

A small experiment on the phantom is trained on the disk, undisturbed, and in a bucket of an
emulator on this machine: there it is killed, started again, evaluated and reported. Every n-th
request fails, by the answer 503 or a reset connection. Parameters, optimiser state, logged losses
and results of the two must be bitwise the same; the exit status says whether they are.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fetalclip_jax import storage
from fetalclip_jax.training import bucket_checkpoints, checkpoint
from tests.storage import emulators

_CONFIG = """
from fetalclip_jax.config import default_config

def get_config():
    config = default_config()
    config.model.vision_cfg.update({"image_size": 32, "width": 32, "layers": 2, "head_width": 16})
    config.model.text_cfg.update({"width": 32, "heads": 2, "layers": 2})
    config.data.workers = 0
    config.data.phantom.update({"train_images": 48, "pool_images": 48, "test_images": 24})
    config.train.update({
        "steps": 40, "global_batch_size": 16, "checkpoint_every": 10, "log_every": 5,
        "ema_decay": 0.9,
    })
    config.optimizer.warmup_steps = 2
    return config.lock()
"""
_STUDY = "zero_shot.planes"
# The run is killed once this step is saved.
_SAVED = 20
_EMULATORS = {"gs": emulators.google, "s3": emulators.amazon}


def fetalclip(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "fetalclip_jax.cli", *map(str, arguments)]
    return subprocess.Popen(command)


def finish(*arguments: object) -> None:
    begin = time.time()
    if status := fetalclip(*arguments).wait():
        raise SystemExit(f"fetalclip {arguments[0]} ended with status {status}")
    print(f"-- {arguments[0]}: {time.time() - begin:.0f} s", flush=True)


def day(experiment: pathlib.Path, place: storage.Path, *, killed: bool) -> dict[str, object]:
    """Trains, evaluates and reports under `place`; what came of it."""
    run, results = place / "run", place / "results"
    train = ("train", "--config", experiment, "--workdir", run)
    if killed:
        process = fetalclip(*train)
        while (checkpoint.latest_step(run) or 0) < _SAVED:
            if process.poll() is not None:
                raise SystemExit("training ended before it was killed")
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"-- killed; saved: step {checkpoint.latest_step(run)}", flush=True)
    finish(*train)
    finish("evaluate", "--model", run, "--study", _STUDY, "--resamples", 100, "--output", results)
    finish("report", run, results, "--output", place / "report" / "report.html")
    assert "<html" in (place / "report" / "report.html").read_text()
    return outcome(run, next(results.rglob(f"{_STUDY}.json")))


def outcome(run: storage.Path, result: storage.Path) -> dict[str, object]:
    folder = bucket_checkpoints.readable(run / "checkpoints" / str(checkpoint.latest_step(run)))
    with ocp.StandardCheckpointer() as reader:
        parts = ("params", "ema", "optimizer")
        digests = {part: _digest(reader.restore(folder.absolute() / part)) for part in parts}
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    return digests | {"losses": losses, "metrics": json.loads(result.read_text())["metrics"]}


def _digest(tree) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--buckets", nargs="+", choices=_EMULATORS, default=list(_EMULATORS))
    parser.add_argument("--every", type=int, default=40, help="which requests fail (0: none)")
    arguments = parser.parse_args()
    same = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "experiment.py").write_text(_CONFIG)
        os.environ["FETALCLIP_CACHE"] = str(folder / "cache")
        expected = day(folder / "experiment.py", folder / "disk", killed=False)
        for scheme in arguments.buckets:
            with _EMULATORS[scheme]() as (proxy, environment):
                os.environ.update(environment)
                proxy.every = arguments.every
                place = storage.path(f"{scheme}://{emulators.BUCKET}/lab")
                found = day(folder / "experiment.py", place, killed=True)
                print(f"{scheme}://: {proxy.count} requests, {proxy.failed} of them failed")
            for part, value in expected.items():
                agrees = found[part] == value
                same &= agrees
                shown = value if isinstance(value, str) else f"{len(value)} numbers"
                print(f"{scheme}:// {part}: {shown}: {'the same' if agrees else 'DIFFERENT'}")
    print("bitwise the same" if same else "DIFFERENT")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
