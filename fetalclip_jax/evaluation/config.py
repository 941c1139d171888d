"""What an evaluation is made of, as ml_collections fields: models, data sets, studies."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from fetalclip_jax import config_files
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.evaluate import Planned
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.models import test_time


def default_config() -> ConfigDict:
    """An evaluation of nothing; files in `configs/eval/` and flags of `fetalclip evaluate` fill it.

    A model or data set without a path is left out, and so are the studies that need it: a file may
    describe a whole matrix of which users have a part.
    """
    config = ConfigDict()
    config.models = ConfigDict()  # name -> path, config, tokenizer, dtype, test_time_views
    config.data = ConfigDict()  # name -> kind, root, options, seed, splits
    config.studies = ConfigDict()  # name -> study, data, options
    config.batch_size = 64  # images per call of the image tower
    config.workers = 2  # processes that read images
    config.seed = 0  # of augmented copies
    config.keep_going = False  # a study that cannot be run is said and passed over
    config.beside = ""  # a data set whose images stand beside mistaken ones in the report
    config.lacking = ()  # what the matrix cannot measure and why; printed at the end
    return config


def read(path: str | None) -> ConfigDict:
    """The evaluation of `configs/eval/x.py[:argument]`, or one of nothing.

    Raises:
      ValueError: no such file, or an error in it.
    """
    return default_config() if path is None else config_files.read(path)


def add_model(
    evaluation: ConfigDict, name: str, path: str = "", **fields: str | int | None
) -> None:
    """Adds a model, or gives one that has no path yet its own.

    Args:
      name: of its folder of results.
      path: what `fetalclip_jax.load` opens; "" for one that has yet to be given.
      fields: `config`, `tokenizer`, `dtype` and `test_time_views` of `fetalclip_jax.load`; "" or
        None for what is there already, else the default.

    Raises:
      ValueError: the name is taken, or no name of a folder.
    """
    given = {"path": path} | {k: v for k, v in fields.items() if v not in ("", None)}
    if name in evaluation.models and not evaluation.models[name].path:
        evaluation.models[name].update(given)
        return
    entry = {"config": "", "tokenizer": "", "dtype": "", "test_time_views": 1} | given
    _check_name(evaluation.models, "model", name)
    with evaluation.unlocked():
        evaluation.models[name] = ConfigDict(entry)


def add_overridden_models(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Adds models that an override, `--config.models.NAME.path=PATH`, is the first to name.

    Raises:
      ValueError: no name of a folder.
    """
    for text in overrides:
        found = re.match(r"--config\.models\.([^.=]+)\.path=", text)
        if found and found[1] not in config.models:
            add_model(config, found[1])


def add_data(
    config: ConfigDict,
    name: str,
    kind: str,
    root: str = "",
    options: Mapping[str, Any] | None = None,
    needs_root: bool = False,
    splits: Mapping[str, str] | None = None,
) -> None:
    """Adds a data set of a kind of `datasets.registry`; a known name gets another folder.

    Args:
      splits: role -> split, see `evaluation.sources.DataSet`.

    Raises:
      ValueError: the name is no name of a folder.
    """
    if name in config.data:
        config.data[name].root = root
        return
    _check_name(config.data, "data set", name)
    entry = {"kind": kind, "root": root, "needs_root": needs_root}
    entry["seed"] = config_dict.placeholder(int)  # that of training, else 0
    entry["options"], entry["splits"] = ConfigDict(options or {}), ConfigDict(splits or {})
    with config.unlocked():
        config.data[name] = ConfigDict(entry)


def add_study(
    config: ConfigDict,
    study: str,
    options: Mapping[str, Any] | None = None,
    data: tuple[str, ...] = (),
) -> None:
    """Adds a study of `studies.names()` on some data sets, or on all that serve it.

    Of one that is there already the options are changed, and nothing else.

    Raises:
      ValueError: no such study or option.
    """
    given = dict(options or {})
    there = config.studies.get(study.replace(".", "_"))
    if there is not None:
        given, data = dict(there.given.items()) | given, there.data
    # A ConfigDict sorts its keys; studies run in the order they were given.
    place = len(config.studies) if there is None else there.place
    entry = {"study": study, "data": tuple(data), "place": place}
    entry["given"] = ConfigDict(given)
    entry["options"] = ConfigDict(_effective(study, given))
    with config.unlocked():
        config.studies[study.replace(".", "_")] = ConfigDict(entry)


def keep_studies(config: ConfigDict, chosen: Sequence[str]) -> None:
    """Takes all other studies out."""
    with config.unlocked():
        for key, entry in list(config.studies.items()):
            if entry.study not in chosen:
                del config.studies[key]


def models(config: ConfigDict) -> dict[str, ConfigDict]:
    """The models that have a path.

    Raises:
      ValueError: there are none, or a number of views that there is no set of.
    """
    found = {name: entry for name, entry in config.models.items() if entry.path}
    if not found:
        raise ValueError(
            "no model to evaluate: pass --model PATH, or --config.models.NAME.path=PATH for one "
            f"that the file names ({', '.join(config.models) or 'it names none'})"
        )
    for name, entry in found.items():
        try:
            test_time.check(entry.test_time_views)
        except ValueError as error:
            raise ValueError(f"model {name}: {error}") from error
    return found


def data_sets(config: ConfigDict) -> dict[str, DataSet]:
    """The data sets that have a folder where they need one."""
    return {
        name: DataSet(
            entry.kind,
            entry.root,
            entry.options.to_dict(),
            entry.seed,
            splits=entry.splits.to_dict(),
        )
        for name, entry in config.data.items()
        if not _is_absent(entry)
    }


def planned(config: ConfigDict) -> list[Planned]:
    """The studies, each for the data sets that are there.

    Raises:
      ValueError: there are none.
    """
    if not config.studies:
        raise ValueError(f"no study to run: pass --study, of {', '.join(studies.names())}")
    absent = {name for name, entry in config.data.items() if _is_absent(entry)}
    found = []
    for entry in sorted(config.studies.values(), key=lambda entry: entry.place):
        data = tuple(name for name in entry.data if name not in absent)
        if data or not entry.data:
            given = dict(entry.given.items())
            effective = _effective(entry.study, given)
            # What was changed since; the rest follows from the protocol, which may be among it.
            given |= {k: v for k, v in entry.options.items() if v != effective[k]}
            found.append(Planned(studies.create(entry.study, **given), data))
    if not found:
        raise ValueError(
            "none of the studies has its data: "
            + "; ".join(f"pass --data {name}=FOLDER" for name in sorted(absent))
        )
    return found


def lacking(config: ConfigDict) -> list[str]:
    """What the matrix names and cannot measure, a line each."""
    lines = []
    for name, entry in config.data.items():
        if _is_absent(entry):
            waiting = [one.study for one in config.studies.values() if name in one.data]
            if not waiting:
                continue
            lines.append(
                f"{name}: no folder given (--data {name}=FOLDER); not measured: "
                f"{', '.join(waiting)}"
            )
    return [*lines, *config.lacking]


def _effective(study: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a study as it would run."""
    return dataclasses.asdict(studies.create(study, **given).settings)


def _is_absent(entry: ConfigDict) -> bool:
    return entry.needs_root and not entry.root


def _check_name(taken, what: str, name: str) -> None:
    if name in taken:
        raise ValueError(f"{what} {name!r} is given twice; name one of them: NAME=PATH")
    if not name or pathlib.PurePath(name).name != name or "." in name[:1]:
        raise ValueError(f"{what} {name!r} cannot name a folder; give it a name: NAME=PATH")
