"""What each process of the job in test_processes.py does: python -m tests.parallel.program ..."""

import json
import pathlib
import sys

import numpy as np

from fetalclip_jax.parallel import distributed, job
from tests.tiny import tiny_experiment

# Meshes of 2 x 4 devices, and which part of a batch each process is to supply: in the last two
# the devices of both processes hold the same rows.
MESHES = [
    ({"data": 8}, [(0, 2), (1, 2)]),
    ({"data": 1, "fsdp": 4, "tensor": 2}, [(0, 2), (1, 2)]),
    ({"data": 2, "tensor": 4}, [(0, 2), (1, 2)]),
    ({"data": 1, "tensor": 8}, [(0, 1), (0, 1)]),
]


def experiment(**changes):
    config = tiny_experiment()
    config.train.update({"steps": 20, "checkpoint_every": 10, "log_every": 1})
    config.update_from_flattened_dict(changes)
    return config


def wrong_ones(me: int) -> dict[str, dict]:
    """What cannot work, by name."""
    return {
        "batch": {"train.global_batch_size": 12},
        "devices": {"mesh.tensor": 16},
        "axis": {"mesh": {"model": 2}},
        "config": {"seed": me},
        "data": {"data.phantom.train_images": 25},
    }


def judged(workdir: pathlib.Path, output: pathlib.Path) -> dict[str, np.ndarray]:
    """Writes a study of a run, and gives features of texts and of a batch that is not divided."""
    import fetalclip_jax
    from fetalclip_jax.evaluation import studies
    from fetalclip_jax.evaluation.evaluate import Planned, evaluate

    model = fetalclip_jax.load(workdir)
    study = studies.create("zero_shot.planes", resamples=20)
    evaluate({"run": lambda: model}, {}, [Planned(study)], output, batch_size=8, workers=0)
    texts = model.tokenize(["a fetal head", "a fetal abdomen at 20 weeks"])
    return {
        "texts": model.encode_text(texts),
        "images": model.encode_image(np.zeros((3, 32, 32, 3), np.float32)),
    }


def main(output: pathlib.Path) -> None:
    # Imported in the job, as commands do.
    import jax

    from fetalclip_jax.parallel import mesh as meshes
    from fetalclip_jax.parallel import sharding
    from fetalclip_jax.training import loop

    me, _ = distributed.place()
    said = {"refused": {}, "parts": [], "whole": []}
    for name, changes in wrong_ones(me).items():
        try:
            config = experiment()
            with config.unlocked():
                config.update_from_flattened_dict(changes)
            loop.train(config, output / name)
        except ValueError as error:
            said["refused"][name] = str(error)
    rows = np.arange(32, dtype=np.int32).reshape(16, 2)
    for axes, _ in MESHES:
        mesh = meshes.make_mesh(**axes)
        index, count = sharding.batch_part(mesh)
        said["parts"].append((index, count))
        mine = np.split(rows, count)[index]
        together = sharding.global_batch({"x": mine}, mesh)["x"]
        whole = jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))(together)
        said["whole"].append(np.asarray(whole).tolist())

    # Shards of parameters lie on both hosts.
    loop.train(experiment(**{"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2}), output / "two")
    np.savez(output / f"{me}.npz", **judged(output / "two", output / "judged_by_two"))
    (output / f"{me}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    with job.job("test"):
        main(pathlib.Path(sys.argv[1]))
