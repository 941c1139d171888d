"""The points of a sweep, each a whole configuration, looked at before the first one runs."""

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fetalclip_jax import config as configs
from fetalclip_jax import config_files
from fetalclip_jax.config_files import one_line
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.sweeps import score
from fetalclip_jax.sweeps.grid import Overrides, Sweep

SEED = "seed"
TEMPERATURE, LEARNED = "temperature", "temperature_learned"
_NAME = "name"
_LOGIT_SCALE = "model.init_logit_scale"
# Training keeps a learned logit scale within [1, 100].
_TEMPERATURES = (0.01, 1.0)
_LONGEST_VALUE = 32


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
      index: its place in the list, from 0.
      name: of its folder: what it sets, such as "global_batch_size=64,temperature=0.07,seed=0".
      overrides: what it sets, as `sweep()` gave it.
      config: the whole experiment.
    """

    index: int
    name: str
    overrides: Mapping[str, Any]
    config: ConfigDict

    @property
    def settings(self) -> dict[str, Any]:
        """The overrides without the seed: points that share them are repeats."""
        return {name: value for name, value in self.overrides.items() if name != SEED}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep that was read.

    Attributes:
      path: of its file, as given.
      points: in order.
      judging: how they are judged; `judging.points` are the overrides.
    """

    path: str
    points: tuple[Point, ...]
    judging: Sweep

    @property
    def score(self) -> str:
        """ "study/metric" that points are compared by."""
        return self.judging.score or score.headline(self.judging.studies[0])

    def judged_on(self, point: Point) -> DataSet:
        """The data set whose patients a point is judged on: its own, unless another is given."""
        data = point.config.data
        one = self.judging.judged_on or DataSet(data.source, data.root)
        return dataclasses.replace(one, judged=self.judging.patients)

    def point(self, which: str) -> Point:
        """By index or name.

        Raises:
          ValueError: there is none.
        """
        for point in self.points:
            if which in (str(point.index), point.name):
                return point
        raise ValueError(
            f"--point={which} is none of the {len(self.points)} points; use 0 to "
            f"{len(self.points) - 1}, or a name that --list shows"
        )


def read(path: str, overrides: Sequence[str] = ()) -> Plan:
    """The points of a file with `get_config()` and `sweep()`.

    Args:
      path: `x.py` or `x.py:argument`, see `config_files.read`.
      overrides: of the command line, for all points.

    Raises:
      ValueError: what `config.parse` finds; no `sweep()` or one without points; a field that does
        not exist or a value of the wrong type; two points of one name or that are the same
        experiment; an unknown study, or a score that it does not measure.
    """
    base = configs.parse(path, overrides)
    judging = _judging(config_files.call(path, "sweep"), base, path)
    fields = list(dict.fromkeys(name for one in judging.points for name in one))
    for name in fields:
        if any(text.partition("=")[0] == f"--config.{name}" for text in overrides):
            raise ValueError(f"--config.{name} is set by the points of {path}; change it there")
    points = tuple(
        _point(index, one, base, fields, path) for index, one in enumerate(judging.points)
    )
    _check_differ(points, path)
    try:
        score.check(judging)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Plan(path, points, judging)


def _check_differ(points: Sequence[Point], path: str) -> None:
    names: dict[str, Point] = {}
    experiments: dict[str, Point] = {}
    for point in points:
        there = names.setdefault(point.name, point)
        if there is not point:
            raise ValueError(
                f"{path}: points {there.index} and {point.index} have one name, {point.name}; let "
                "them differ in a field, or give each a 'name'"
            )
        same = json.dumps(configs.flatten(point.config), sort_keys=True, default=str)
        there = experiments.setdefault(same, point)
        if there is not point:
            raise ValueError(
                f"{path}: points {there.index} ({there.name}) and {point.index} ({point.name}) "
                "are the same experiment with the same seed; leave one out"
            )


def _judging(given: Any, base: ConfigDict, path: str) -> Sweep:
    """What `sweep()` returned, as a Sweep."""
    points = given.points if isinstance(given, Sweep) else given
    if isinstance(points, Iterator):
        raise ValueError(f"{path}: sweep() gives a {type(points).__name__}; return a list")
    if isinstance(points, (str, Mapping)) or not isinstance(points, Sequence) or not points:
        raise ValueError(
            f"{path}: sweep() gives {type(points).__name__} {str(points)[:60]}; let it return a "
            "list of one or more dictionaries of a field and its value, see docs/sweeps.md"
        )
    for index, one in enumerate(points):
        if not isinstance(one, Mapping) or not all(isinstance(name, str) for name in one):
            raise ValueError(
                f"{path}: point {index} is {str(one)[:60]!r}, not a dictionary of a field and its "
                "value"
            )
    if isinstance(given, Sweep):
        return given
    chosen = tuple(base.train.studies)
    return Sweep(points, **({"studies": chosen} if chosen else {}))


def _point(
    index: int, overrides: Mapping[str, Any], base: ConfigDict, fields: Sequence[str], path: str
) -> Point:
    plain = {name: _plain(value) for name, value in overrides.items()}
    where = f"{path}: point {index}"
    name = plain.pop(_NAME, None)
    if name is not None and not re.fullmatch(r"[\w=.,+-]*\w[\w=.,+-]*", str(name)):
        raise ValueError(f"{where}: the name {name!r} is no folder's; use letters, digits and -_=,")
    if str(name).isdigit():
        raise ValueError(f"{where}: the name {name!r} reads as an index; use one with a letter")
    config = base.copy_and_resolve_references()
    for field, value in _real_fields(plain, config, where).items():
        _set(config, field, value, where)
    return Point(index, str(name or named(plain, fields) or "base"), plain, config)


def _real_fields(overrides: Mapping[str, Any], config: ConfigDict, where: str) -> Overrides:
    """Overrides of fields alone, the temperature put into them."""
    fields = dict(overrides)
    learned = fields.pop(LEARNED, True)
    if not isinstance(learned, bool):
        raise ValueError(f"{where}: {LEARNED}={learned!r} is not True or False")
    if TEMPERATURE in fields:
        value = fields.pop(TEMPERATURE)
        low, high = _TEMPERATURES
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where}: {TEMPERATURE}={value!r} is no number; use one such as 0.07")
        if not low <= value <= high:
            raise ValueError(
                f"{where}: {TEMPERATURE}={value} is not from {low} to {high}, within which "
                "training keeps it"
            )
        if _LOGIT_SCALE in fields:
            raise ValueError(f"{where}: {TEMPERATURE} and {_LOGIT_SCALE} are one; leave one out")
        fields[_LOGIT_SCALE] = math.log(1 / value)
    if not learned:
        name = "optimizer.learning_rate_factors"
        rows = fields.get(name, config.optimizer.learning_rate_factors)
        fields[name] = (("logit_scale", 0.0), *rows)
    return fields


def _set(config: ConfigDict, field: str, value: Any, where: str) -> None:
    known = configs.flatten(config)
    if field not in known:
        near = difflib.get_close_matches(field, known, 3, 0.5)
        part = any(name.startswith(f"{field}.") for name in known)
        advice = "is a group of fields; name one of them" if part else "is no field"
        also = f"; there are {', '.join(near)}" if near and not part else ""
        raise ValueError(f"{where}: {field} {advice}{also}; all are in fetalclip_jax/config.py")
    *groups, last = field.split(".")
    group = config
    for name in groups:
        group = group[name]
    before = group[last]
    # A number for a switch or a switch for a number is a slip, whatever Python says.
    slip = isinstance(value, bool) != isinstance(before, bool) and before is not None
    try:
        if slip:
            raise TypeError(f"expected {type(before).__name__}")
        group[last] = value
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        given, wanted = type(value).__name__, type(before).__name__
        if isinstance(value, Iterator):
            said = f"{field} is a {given}; give a list"
        elif given != wanted:
            said = (
                f"{field}={value!r} is of type {given}; the field is of type {wanted}, such as "
                f"{before!r}"
            )
        else:
            said = f"{field}={value!r}: {one_line(error)}"
        raise ValueError(f"{where}: {said}") from error


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, lists as the tuples that configurations hold."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def named(overrides: Mapping[str, Any], fields: Sequence[str]) -> str:
    """What a point sets, in words that make a folder's name.

    A function of its own overrides, so that points that are added rename no other.
    """
    return ",".join(f"{short(name, fields)}={_word(value)}" for name, value in overrides.items())


def short(field: str, fields: Sequence[str]) -> str:
    """The last part of a field's name, where no other field of the sweep has the same."""
    last = field.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in fields) == 1 else field


def _word(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else "" if value == () else str(value)
    if isinstance(value, float) and float(text) != value:
        text = repr(value)
    word = re.sub(r"[^\w.+-]+", "_", text).strip("_")
    if len(word) > _LONGEST_VALUE or (not word and text):
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{word[: _LONGEST_VALUE - 9]}-{digest}".strip("-")
    return word or "none"
