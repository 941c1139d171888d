"""Studies of a model while it trains, on the patients that are kept for validation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fetalclip_jax import storage, tokenizers
from fetalclip_jax.config import build_model
from fetalclip_jax.evaluation import features, studies
from fetalclip_jax.evaluation.study import Study
from fetalclip_jax.model import Model
from fetalclip_jax.models import lora
from fetalclip_jax.parallel import distributed
from fetalclip_jax.training import inputs

# Intervals are for results; a curve has its neighbours.
_RESAMPLES = 1


def judge(
    config: ConfigDict, workdir: storage.Path, tokenizer: tokenizers.Tokenizer
) -> Callable[[Any], dict[str, float]]:
    """Prepares `config.train.studies` for a run.

    The validation patients stand in for those of the test, whose images are never looked at. Their
    pixels are those of the run's records.

    Returns:
      Parameters -> {"study/<name>/<metric>": value} of every study and metric.

    Raises:
      ValueError: an unknown study, or one that needs what the validation patients do not have.
    """
    split = inputs.validation_split(config)
    # Only the lead needs the original data.
    known = distributed.on_lead(lambda: list(inputs.source(config, split).facts.columns))
    chosen = [
        _create(name, f"{config.data.source} {split}", known) for name in config.train.studies
    ]
    records = inputs.open_records(config, workdir, split)
    model, trained = None, build_model(config)

    def measure(params: Any) -> dict[str, float]:
        nonlocal model
        module, params = lora.alone(trained, params)
        # Another model would compile its towers anew.
        if model is None:
            model = Model(module, params, tokenizer, config.data)
        else:
            model = model.with_params(params)
        stores: dict[Any, features.FeatureStore] = {}
        found = {}
        for study in chosen:
            result = study.run(_stores(study, model, records, stores, config), model)
            for name, estimate in result.metrics.items():
                found[f"study/{study.name}/{name}"] = estimate.value
        return found

    return measure


def _create(name: str, where: str, known: Sequence[str]) -> Study:
    options = {"resamples": _RESAMPLES}
    if "progress" in studies.option_names(name):
        options["progress"] = False
    study = studies.create(name, **options)
    for need in study.needs:
        if need.optional:
            continue
        if need.role != "test":
            raise ValueError(
                f"config.train.studies: {name} needs images to {need.role!r} beside those it "
                f"judges, and {where} is all that may be looked at while training; judge it "
                "afterwards: fetalclip evaluate"
            )
        missing = [column for column in need.columns if column not in known]
        if missing:
            raise ValueError(
                f"config.train.studies: {name} needs {', '.join(missing)}, which {where} does not "
                "know; leave the study out"
            )
    return study


def _stores(
    study: Study, model: Model, records, stores: dict[Any, features.FeatureStore], config
) -> Mapping[str, features.FeatureStore]:
    """The stores of one study; `stores` holds those of the others."""
    needed = {}
    for need in study.needs:
        if need.optional:
            continue
        only = {name: tuple(values) for name, values in need.only.items()}
        key = (need.level, need.transform, need.copies, tuple(sorted(only.items())))
        if key not in stores:
            fingerprint = {"model": model.fingerprint}
            if need.level == "metadata":
                stores[key] = features.metadata_store(records, fingerprint)
            else:
                stores[key] = features.encode(
                    model,
                    records,
                    transform=need.transform,
                    copies=need.copies,
                    only=only,
                    workers=0,
                    seed=config.seed,
                    fingerprint=fingerprint,
                    progress=False,
                )
        needed[need.name] = stores[key]
    return needed
