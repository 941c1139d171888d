"""The registry of studies: a name and its options make a `Study`."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping

from fetalclip_jax.evaluation.answers import Answers
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.study import AtSize, Study
from fetalclip_jax.labels import OUTLINED

_PACKAGE = "fetalclip_jax.evaluation.studies"

# Name -> module and class. Of "family.*" the last part is handed to the class: a task, or a column
# of the data set. Named entries come before their family.
STUDIES = {
    "zero_shot.merged": "merged:Merged",
    "zero_shot.*": "zero_shot:ZeroShot",
    "age": "age:Age",
    "probe.raw_pixels": "probe:RawPixels",
    "probe.*": "probe:Probe",
    "few_shot.*": "few_shot:FewShot",
    "chd.concatenated": "chd:Concatenated",
    "chd.mean": "chd:Mean",
    "nearest_centroid.*": "nearest:NearestCentroid",
    "knn.*": "nearest:Neighbours",
    "regression.*": "regression:Regression",
    "retrieval": "retrieval:Retrieval",
    "near_duplicates": "near_duplicates:NearDuplicates",
    "mislabels.*": "mislabels:Mislabels",
    "segmentation.*": "segmentation:Segmentation",
    "few_shot_segmentation.*": "few_shot_segmentation:FewShotSegmentation",
    "explanation.*": "explanation:Explanation",
}

# Tasks of a family that need no more than a name. Others take any column of the data set.
_TASKS = {
    "zero_shot.*": ("planes", "brain"),
    "probe.*": ("planes", "brain"),
    "few_shot.*": ("planes", "brain"),
    "nearest_centroid.*": ("planes", "brain"),
    "knn.*": ("planes", "brain"),
    "mislabels.*": ("planes", "brain"),
    "regression.*": ("ga_days", "hc_mm"),
    "segmentation.*": tuple(OUTLINED),
    "few_shot_segmentation.*": tuple(OUTLINED),
    "explanation.*": ("head", "abdomen", "heart"),
}
# What `fetalclip score` calls a result of someone's predictions.
SCORED = "classification"
# What is read off rounded scores may differ by so much.
_ROUNDING = 1e-6


def names() -> list[str]:
    """Studies that need no options; "zero_shot.*" and the like take any column of a data set."""
    found = []
    for name in STUDIES:
        family = name.removesuffix("*")
        found += [f"{family}{one}" for one in _TASKS[name]] if name in _TASKS else [name]
    return found


def advice(name: str) -> str:
    """What a name may have been meant to be: "; did you mean age?", or "" for one like no other."""
    # Of two names in one family, most letters agree.
    near = difflib.get_close_matches(name, names(), 1, 0.85)
    return f"; did you mean {near[0]}?" if near and near[0] != name else ""


def create(name: str, **options) -> Study:
    """A study, ready to say what it needs and to run.

    Args:
      name: one of `names()`, or a family, such as "probe.", with a column of the data.
      **options: `protocol`, `resample_by`, `resamples`, `seed` and those of the study itself.

    Raises:
      ValueError: an unknown name or option, or files among the options that cannot be used.
    """
    study, arguments = _found(name)
    try:
        return study(*arguments, **options)
    except ValueError as error:
        # Any name of a family is taken for a column, a slip too.
        raise ValueError(f"{error}{advice(name)}") from error


def option_names(name: str) -> set[str]:
    """What `create` takes for a study beside its name.

    Raises:
      ValueError: an unknown name.
    """
    study, _ = _found(name)
    return {field.name for field in dataclasses.fields(study.settings_type)}


def measures(result: Result) -> Mapping[str, Measured]:
    """The metrics of a result as functions of its images, for paired tests and subgroups.

    Raises:
      ValueError: a result without predictions, or of a study that is not known here.
    """
    if result.predictions is None:
        raise ValueError(
            f"{result.study} has no predictions beside its JSON (.npz): nothing to measure again; "
            "evaluate again"
        )
    if result.study == SCORED:
        found = Answers.of(result.predictions).measures()
    else:
        found = of_predictions(result.study, result.predictions)
    return {name: one for name, one in found.items() if name in result.metrics}


def of_predictions(name: str, predictions: Predictions) -> Mapping[str, Measured]:
    """What a study measures of predictions like its own.

    Raises:
      ValueError: an unknown name.
    """
    study, arguments = _found(name)
    return study.measures(predictions, *arguments)


def at_size(result: Result, size: int | str) -> AtSize:
    """What the runs of one size of a curve reach.

    Raises:
      ValueError: of which the answers are not kept.
    """
    study, _ = _found(result.study)
    return study.at(result.predictions, str(size))


def check_predictions(result: Result) -> None:
    """Holds the metrics of a result against its own predictions.

    Results of versions that kept no `environment` did not keep the answers of every run either, and
    are taken as they are.

    Raises:
      ValueError: predictions that give other metrics: they are of another result.
    """
    if result.predictions is None or not result.environment:
        return
    for name, one in measures(result).items():
        found, said = one.measure.value, result.metrics[name].value
        if abs(found - said) > _ROUNDING * max(1.0, abs(said)):
            raise ValueError(
                f"its {name} is {said:.6g} and the predictions beside it give {found:.6g}: one of "
                "the files is of another result; evaluate again"
            )


def _found(name: str) -> tuple[type, tuple[str, ...]]:
    """The class of a study, and what its name hands to it."""
    family, _, task = name.partition(".")
    if name in STUDIES and task != "*":
        where, arguments = STUDIES[name], ()
    elif task not in ("", "*") and f"{family}.*" in STUDIES:
        where, arguments = STUDIES[f"{family}.*"], (task,)
    else:
        raise ValueError(
            f"study {name!r} is unknown; there are {', '.join(names())}, and with a column of the "
            f"data set {', '.join(one for one in STUDIES if one.endswith('*'))}"
            f"{advice(name)}"
        )
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute), arguments
