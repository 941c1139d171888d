"""What the evaluation programs share: stored features of a run, its protocol, its results.

A program reads `<workdir>/features/<split>` and writes `<workdir>/results/<name>.json`.
"""

import csv
import os
import pathlib
import time

from ml_collections import ConfigDict

from fetalclip_jax import model as models
from fetalclip_jax.config import load_config
from fetalclip_jax.data.records import RecordDataset
from fetalclip_jax.evaluation import features
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.linear_probe import ProbeConfig
from fetalclip_jax.run import write_json
from fetalclip_jax.training import inputs
from fetalclip_jax.training.metrics import peak_rss_gib


def run_config(workdir: pathlib.Path) -> ConfigDict:
    """The configuration a run was trained with."""
    return load_config(workdir / "config.json")


def store_path(workdir: pathlib.Path, split: str) -> pathlib.Path:
    return workdir / "features" / split


def encode_split(
    workdir: pathlib.Path, split: str, copies: int | None = None, model: models.Model | None = None
) -> FeatureStore:
    """Encodes the records of one split and stores the features, in place of older ones.

    Args:
      copies: augmented copies of each image; None for the run's `probe_copies` on the pool and
        for none elsewhere.
      model: the run's model, where it is loaded already.
    """
    config = run_config(workdir)
    folder = workdir / "records" / split
    # Prepared records are enough; the original data may be elsewhere by now.
    prepared = (folder / "records.json").is_file()
    dataset = RecordDataset(folder) if prepared else inputs.open_records(config, workdir, split)
    if copies is None:
        copies = config.evaluation.probe_copies if split == "pool" else 0
    store = features.encode(
        model or models.load(workdir),
        dataset,
        batch_size=config.evaluation.batch_size,
        copies=copies,
        seed=config.seed,
    )
    store.save(store_path(workdir, split), overwrite=True)
    return store


def current_store(workdir: pathlib.Path, split: str, model: models.Model) -> FeatureStore:
    """Stored features of `model`, encoded first where they are missing or of other parameters."""
    path = store_path(workdir, split)
    if path.is_dir():
        store = FeatureStore.load(path)
        if store.fingerprint["model"] == model.fingerprint:
            return store
        print(f"{path} was made with other parameters; encoding again", flush=True)
    return encode_split(workdir, split, model=model)


def open_store(workdir: pathlib.Path, split: str) -> FeatureStore:
    """Stored features of one split.

    Raises:
      ValueError: there are none; says how to make them.
    """
    path = store_path(workdir, split)
    if not path.is_dir():
        raise ValueError(
            f"{path} does not exist; encode it first: fetalclip features --workdir={workdir} "
            f"--split={split}"
        )
    return FeatureStore.load(path)


def protocol(workdir: pathlib.Path, tuned: ProbeConfig) -> ProbeConfig | None:
    """`tuned`, or None for the published protocol, as the run's configuration asks.

    Raises:
      ValueError: the configuration asks for neither.
    """
    asked = run_config(workdir).evaluation.probe_protocol
    if asked not in ("tuned", "paper"):
        raise ValueError(f"config.evaluation.probe_protocol={asked!r} is not one of tuned, paper")
    return tuned if asked == "tuned" else None


def publish(workdir: pathlib.Path, name: str, result: dict, start: float) -> None:
    """Writes a result as JSON, and its predictions as CSV beside it.

    Args:
      start: when the program began, from `time.time()`.
    """
    predictions = result.pop("predictions", None)
    result |= {"seconds": time.time() - start, "peak_rss_gib": peak_rss_gib()}
    folder = workdir / "results"
    write_json(folder / f"{name}.json", result)
    if not predictions:
        return
    path = folder / f"predictions_{name.removeprefix('zero_shot_')}.csv"
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(predictions[0]))
        writer.writeheader()
        writer.writerows(predictions)
    os.replace(temporary, path)
