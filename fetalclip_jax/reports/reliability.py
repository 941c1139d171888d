"""What a report says of reliability: subgroups, calibration and abstention, as data and tables.

`reports.subgroups` and `reports.calibration` draw it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from fetalclip_jax.evaluation import calibration, subgroups
from fetalclip_jax.evaluation.calibration import Calibration
from fetalclip_jax.evaluation.subgroups import DATA_SET, Gap, Subgroups
from fetalclip_jax.reports import headline, naming
from fetalclip_jax.reports.reading import Contents, Evaluated

# Studies whose scores rank candidates, and promise no share of right answers.
_NO_PROBABILITIES = ("age", "knn", "nearest_centroid", "segmentation")


@dataclasses.dataclass(frozen=True)
class Split:
    """A result, or several on different data sets, by a column.

    Attributes:
      results: those that were split, one unless it is by their data sets.
      found: the subgroups.
    """

    results: tuple[Evaluated, ...]
    found: Subgroups

    @property
    def label(self) -> str:
        """Whose: "model / data" of one result, the model of several."""
        return self.results[0].label if len(self.results) == 1 else self.results[0].model_name

    @property
    def data_name(self) -> str:
        """Of the data set; "" of several."""
        return self.results[0].data_name if len(self.results) == 1 else ""

    @property
    def metric(self) -> naming.Metric:
        """How the headline is shown."""
        return naming.metric(self.found.headline)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Everything that a report says of it.

    Attributes:
      splits: by study, then by column.
      calibrations: with the results they are of.
      left_out: sentences on results without.
    """

    splits: tuple[Split, ...]
    calibrations: tuple[tuple[Evaluated, Calibration], ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Keys: `subgroups`, `calibration`, `left_out`."""
        return {
            "subgroups": [{"label": one.label} | one.found.to_json() for one in self.splits],
            "calibration": [
                {"label": one.label} | found.to_json() for one, found in self.calibrations
            ],
            "left_out": list(self.left_out),
        }


def analyse(contents: Contents, columns: Sequence[str] = ()) -> Reliability:
    """Splits every result by its group columns, and judges the probabilities of those that have.

    Args:
      columns: split by these alone, `subgroups.DATA_SET` among them; empty takes every column with
        two subgroups or more.

    Raises:
      ValueError: a column by which no result can be split; the message says why.
    """
    judged = [
        one
        for one in contents.evaluated
        # The raw pixels are a baseline, wherever there is something to hold against.
        if one.result.study != headline.RAW_PIXELS or not contents.beside(one, "probe.planes")
    ]
    columns, left_out = tuple(dict.fromkeys(columns)), []
    splits = [*_within(judged, columns, left_out), *_across(judged, columns, left_out)]
    calibrations = []
    for one in judged:
        # Ages, curves and what answers without scores have no probabilities: nobody misses them.
        predictions, family = one.result.predictions, one.result.study.partition(".")[0]
        if family in _NO_PROBABILITIES or one.result.curve or predictions is None:
            continue
        if predictions.scores is None and not predictions.candidates:
            continue
        try:
            calibrations.append((one, calibration.calibrate(one.result)))
        except ValueError as error:
            left_out.append(_sentence("Calibration", one, error))
    return Reliability(tuple(splits), tuple(calibrations), tuple(left_out))


def lines(found: Reliability) -> list[str]:
    """The largest gap, and the largest calibration error, each in a line for the terminal."""
    said = []
    if gaps := _headline_gaps(found, "established"):
        said.append(f"Largest gap beyond chance: {_named(*gaps[0])}")
    elif gaps := _headline_gaps(found, "largest"):
        said.append(f"No gap beyond chance between subgroups; the largest: {_named(*gaps[0])}")
    if found.calibrations:
        one, worst = max(found.calibrations, key=lambda pair: pair[1].before.expected_error)
        said.append(
            f"Expected calibration error, the largest of {len(found.calibrations)}: "
            f"{worst.before.expected_error:.3f} (by chance alone "
            f"{worst.before.expected_by_chance:.3f}), {worst.after.expected_error:.3f} at its "
            "temperature, "
            f"{one.result.study} of {one.label}"
        )
    return said


def gap_words(gap: Gap, metric: naming.Metric) -> str:
    """ "third trimester ahead of second trimester by 0.059 (0.012 to 0.082)"."""
    value, low, high = (
        f"{100 * one:.1f}" if metric.percent else metric.show(one)
        for one in (gap.value, gap.low, gap.high)
    )
    unit = " points" if metric.percent else ""
    words = f"{gap.better} ahead of {gap.worse} by {value}{unit} ({low} to {high})"
    if gap.classes:
        words += f" over {', '.join(map(naming.display, gap.classes))}"
    return words


def _within(
    judged: Sequence[Evaluated], columns: Sequence[str], left_out: list[str]
) -> Iterator[Split]:
    refused: dict[str, str] = {}
    constant: dict[tuple[str, str], list[str]] = {}
    split = set()
    without = []
    for one in judged:
        predictions = one.result.predictions
        if not columns and predictions is not None and not predictions.groups:
            without.append(f"{one.result.study} of {one.label}")
        wanted = columns or subgroups.columns(one.result)
        for column, value in () if columns else subgroups.constant_columns(one.result):
            constant.setdefault((column, value), []).append(f"{one.result.study} of {one.label}")
        for column in wanted:
            if column == DATA_SET:
                continue
            try:
                found = subgroups.split(one.result, column)
            except ValueError as error:
                refused.setdefault(column, str(error))
                left_out.append(_sentence("Subgroups", one, error))
                continue
            split.add(column)
            yield Split((one,), found)
    if without:
        left_out.append(
            f"Subgroups: no group columns are kept with {', '.join(without)}; if the data set has "
            "any, evaluate again."
        )
    for (column, value), of in constant.items():
        left_out.append(f"Subgroups: {column} is {value!r} alone in {', '.join(of)}.")
    impossible = [reason for column, reason in refused.items() if column not in split]
    if columns and impossible:
        raise ValueError(impossible[0])


def _across(
    judged: Sequence[Evaluated], columns: Sequence[str], left_out: list[str]
) -> Iterator[Split]:
    if columns and DATA_SET not in columns:
        return
    families: dict[tuple, list[Evaluated]] = {}
    for one in judged:
        if one.result.predictions is not None:
            key = (one.result.study, one.model_name, one.result.model.get("fingerprint"))
            families.setdefault(key, []).append(one)
    several = 0
    for family in families.values():
        # Judged twice on one data set, say by two protocols: the first one stands here.
        first = list({one.data_name: one for one in reversed(family)}.values())[::-1]
        if len(first) < 2:
            continue
        several += 1
        try:
            yield Split(tuple(first), subgroups.across_data([one.result for one in first]))
        except ValueError as error:
            left_out.append(f"Data sets beside one another: {error}.")
    if columns and not several:
        raise ValueError(
            f"subgroups by {DATA_SET!r} need one study of one model on two data sets; the sources "
            "have none"
        )


def _headline_gaps(found: Reliability, kind: str) -> list[tuple[Split, Gap]]:
    """Gaps of headlines, rates before errors in days, the largest first."""
    gaps = []
    for one in found.splits:
        if gap := getattr(one.found, kind).get(one.found.headline):
            gaps.append((one, gap))
    return sorted(gaps, key=lambda pair: (pair[0].metric.lower_is_better, -pair[1].value))


def _named(one: Split, gap: Gap) -> str:
    return (
        f"{one.found.study} of {one.label} by {one.found.column}: {one.metric.words}, "
        f"{gap_words(gap, one.metric)}"
    )


def _sentence(what: str, one: Evaluated, error: ValueError) -> str:
    """The error as a sentence that says whose it is."""
    words = str(error)
    whose = "" if one.result.study in words else f"{one.result.study} of {one.label}: "
    return f"{what}: {whose}{words}."
