"""Measures are the plain metrics of whatever images a resample holds."""

import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import measure, metrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 40)
ANSWERS = RNG.integers(0, 5, (3, 40))
VALUES = RNG.normal(size=40)


def _macro_f1(rows):
    return np.mean([metrics.macro_f1(LABELS[rows], one[rows], 5) for one in ANSWERS])


def _balanced(rows):
    return metrics.balanced_accuracy((ANSWERS[0] == LABELS)[rows], LABELS[rows])


CASES = {
    "macro F1 of runs": (measure.macro_f1(LABELS, ANSWERS, 5), _macro_f1),
    "balanced accuracy": (measure.balanced_accuracy(ANSWERS[0] == LABELS, LABELS), _balanced),
    "mean": (measure.mean(VALUES, "real"), lambda rows: VALUES[rows].mean()),
    "lower median": (
        measure.Median(VALUES, "real"),
        lambda rows: np.sort(VALUES[rows])[(len(rows) - 1) // 2],
    ),
    "difference of sums": (
        measure.difference(
            measure.macro_f1(LABELS, ANSWERS, 5),
            measure.balanced_accuracy(ANSWERS[0] == LABELS, LABELS),
        ),
        lambda rows: _macro_f1(rows) - _balanced(rows),
    ),
    "difference with a median": (
        measure.difference(measure.Median(VALUES, "real"), measure.mean(VALUES, "real")),
        lambda rows: np.sort(VALUES[rows])[(len(rows) - 1) // 2] - VALUES[rows].mean(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_measure_is_the_metric_of_the_drawn_images(case):
    one, expected = CASES[case]
    patients = np.arange(40) // 4
    weights = RNG.integers(0, 3, (6, 10)).astype(float)
    weights[0, np.unique(patients[LABELS == 2])] = 0  # a class that a resample misses
    weights[0, 0] = 1
    found = one.weighted(weights, patients)
    for value, times in zip(found, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(40), times[patients])
        assert value == pytest.approx(expected(rows))
    some = np.flatnonzero(VALUES > -1)[1:]  # an odd number: the median is one of them
    some = some[: len(some) - 1 + len(some) % 2]
    assert one.select(some).value == pytest.approx(expected(some))
    assert len(one.select(some)) == len(some)


def test_rows_that_are_judged_may_be_chosen_among():
    rows = np.array([1, 3, 5, 7])
    one = measure.Measured(measure.mean(VALUES[rows], "real"), rows)
    chosen = np.arange(40) > 4
    assert one.among(chosen).rows.tolist() == [5, 7]
    assert one.among(chosen).measure.value == pytest.approx(VALUES[[5, 7]].mean())


def test_a_difference_needs_measures_alike():
    whole, part = measure.mean(VALUES, "real"), measure.mean(VALUES[1:], "real")
    with pytest.raises(ValueError, match="40 images on scale 'real' and 39 on 'real'"):
        measure.difference(whole, part)
    with pytest.raises(ValueError, match="on scale 'real' and 40 on 'unit'"):
        measure.difference(whole, measure.mean(VALUES > 0))
    with pytest.raises(ValueError, match="values: 1 of 2 are not finite"):
        measure.mean(np.array([1, np.nan]))
