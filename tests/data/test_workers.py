"""A function of an index on threads and on processes."""

import operator

import pytest

from fetalclip_jax.data.workers import ordered_map


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers):
    with ordered_map(operator.neg, 100, workers) as found:
        assert list(found) == [-i for i in range(100)]


def test_errors_are_raised_where_they_are_read():
    with ordered_map(lambda i: 1 // (i - 20), 40) as found:
        assert next(found) == -1
        with pytest.raises(ZeroDivisionError):
            list(found)


def test_a_reader_that_stops_early_ends_the_work():
    calls = []
    with ordered_map(calls.append, 100_000) as found:
        next(found)
    assert len(calls) < 1000


def test_no_negative_workers():
    with pytest.raises(ValueError, match="workers is -1"), ordered_map(operator.neg, 1, -1):
        pass
