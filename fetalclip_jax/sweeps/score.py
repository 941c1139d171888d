"""The number that points are compared by: "study/metric"."""

import functools
import re
from collections.abc import Mapping

import numpy as np

from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.evaluation.study import Study
from fetalclip_jax.labels import OTHER
from fetalclip_jax.sweeps.grid import Sweep

_TOP_K = re.compile(r"(?:balanced_)?top\d+_accuracy")


def check(judging: Sweep) -> None:
    """Looks whether the score is one that its study can measure.

    Raises:
      ValueError: it is not; or an unknown study or option.
    """
    made = {name: studies.create(name, **judging.options.get(name, {})) for name in judging.studies}
    study, _, metric = judging.score.partition("/")
    if metric and metric not in (known := _metrics(made[study])):
        if not known:
            raise ValueError(
                f"score={judging.score!r}: {study} tells of the data and not of a model; use "
                "another study"
            )
        raise ValueError(
            f"score={judging.score!r}: {study} measures {', '.join(known)}; use one of them"
        )


def headline(study: str) -> str:
    """ "study/metric" of the metric that a study is known by; no metric where it has no score.

    Raises:
      ValueError: an unknown study.
    """
    return f"{study}/{next(iter(_scores(study)), '')}"


def is_error(score: str) -> bool:
    """Whether less of a score is better.

    Raises:
      ValueError: an unknown study.
    """
    study, _, metric = score.partition("/")
    return _scores(study).get(metric, False)


def _metrics(study: Study) -> list[str]:
    """What a study can measure, with its options; some data give less."""
    names = [
        name
        for name in getattr(study, "scores", None) or _scores(study.name)
        if not _TOP_K.fullmatch(name)
    ]
    if "accuracy" in names:
        for k in getattr(study.settings, "top_k", ()):
            names += [f"top{k}_accuracy", f"balanced_top{k}_accuracy"]
    return names


@functools.cache
def _scores(study: str) -> Mapping[str, bool]:
    """Metric -> whether less of it is better, the headline first."""
    stated = getattr(studies.create(study), "scores", None)
    return _of_answers(study) if stated is None else stated


def _of_answers(study: str) -> dict[str, bool]:
    """What a study measures of answers that are made up."""
    names = np.array(["140", "150"] if study == "age" else ["a", "b", OTHER])
    count = len(names)
    answers = Predictions(
        example_id=names,
        patient_id=names,
        label=names,
        prediction=names,
        candidates=tuple(names.tolist()),
        scores=np.eye(count),
        extra={
            "hc_mm": np.full(count, 120.0),
            "brain_label": names,
            "brain_prediction": names,
        },
    )
    measured = studies.of_predictions(study, answers)
    return {name: one.measure.scale == "positive" for name, one in measured.items()}
