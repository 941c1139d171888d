"""Sweeps of tiny runs as files, the way a user writes them."""

from fetalclip_jax.sweeps import plan

HEAD = """
from fetalclip_jax import sweeps
from fetalclip_jax.evaluation import sources
from tests.tiny import tiny_experiment

def get_config():
    config = tiny_experiment()
    config.data.phantom.update({"train_images": 48, "pool_images": 96, "test_images": 60})
    config.train.update({"steps": 4, "keep_best": "", "log_every": 1})
    config.optimizer.warmup_steps = 1
    config.compute.scan_layers = False
    return config

def sweep():
"""
BATCH_TEMPERATURE = """
    return sweeps.product(
        sweeps.zipped(
            sweeps.values("train.global_batch_size", [8, 16]),
            sweeps.values("train.steps", [4, 2]),
        ),
        sweeps.values("temperature", [0.05, 0.1]),
        sweeps.values("seed", range(2)),
    )
"""


def write(folder, body: str = BATCH_TEMPERATURE):
    """The path of a file with this body of `sweep()`."""
    path = folder / "sweep.py"
    path.write_text(HEAD + body)
    return str(path)


def read(folder, body: str = BATCH_TEMPERATURE) -> plan.Plan:
    return plan.read(write(folder, body))


def one(folder, overrides: str) -> plan.Plan:
    """A sweep of points that are written as a list."""
    return read(folder, f"    return {overrides}\n")
