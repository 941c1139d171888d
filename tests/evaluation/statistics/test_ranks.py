import itertools

import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import ranks


def slow_first_hits(queries, gallery, query_ids, gallery_ids, times):
    """Every list sorted by hand, wrong entries before right ones of the same similarity."""
    found = []
    for query, wanted in zip(queries, query_ids, strict=True):
        entries = []
        for entry, own, count in zip(gallery, gallery_ids, times, strict=True):
            lengths = np.linalg.norm(query) * np.linalg.norm(entry)
            entries += [(-round(float(query @ entry / lengths), 7), own == wanted)] * count
        found.append([right for _, right in sorted(entries)].index(True) + 1)
    return found


@pytest.mark.parametrize("block_size", [1, 4, 7, 100])
def test_ranks_are_those_of_sorted_lists_whatever_the_blocks(block_size):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(11, 5)) * rng.uniform(0.1, 9, (11, 1))
    # Entries that are the same to the number, with other ids: ties.
    gallery = np.repeat(rng.normal(size=(7, 5)), 2, axis=0) * 3
    query_ids, gallery_ids = rng.integers(0, 4, 11), np.arange(14) % 4
    times = rng.integers(1, 4, 14)
    found, nearest = ranks.first_hits(
        queries, gallery, query_ids, gallery_ids, times, block_size=block_size
    )
    expected = slow_first_hits(queries, gallery, query_ids, gallery_ids, times)
    np.testing.assert_array_equal(found, expected)
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    np.testing.assert_array_equal(nearest // 2, (queries @ unit.T).argmax(1) // 2)


def test_a_collapsed_model_ranks_last():
    same = np.ones((6, 3)) + 1e-9 * np.arange(6)[:, None]
    found, _ = ranks.first_hits(same, same, np.arange(6), np.arange(6))
    np.testing.assert_array_equal(found, 6)


def test_chance_is_that_of_every_order():
    entries, right = np.array([6, 6, 5]), np.array([1, 2, 4])
    for k in range(1, 7):
        expected = []
        for length, hits in zip(entries, right, strict=True):
            orders = list(itertools.permutations([True] * hits + [False] * (length - hits)))
            expected.append(np.mean([any(order[:k]) for order in orders]))
        np.testing.assert_allclose(ranks.chance_of_hit(entries, right, k), expected, atol=1e-12)
    rng = np.random.default_rng(0)
    drawn = [
        [rng.permutation(length)[:hits].min() + 1 for _ in range(4000)]
        for length, hits in zip([100, 60], [1, 9], strict=True)
    ]
    median = ranks.chance_median_rank(np.array([100, 60]), np.array([1, 9]))
    assert abs(median - np.median(drawn)) <= 2


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.array([[1.0, np.nan]]), "the queries: 1 of 1 are not finite"),
        (np.zeros((1, 2)), "the queries: the feature of number 0 is zero and has no direction"),
    ],
)
def test_what_has_no_direction_has_no_rank(queries, message):
    with pytest.raises(ValueError, match=message):
        ranks.first_hits(queries, np.ones((2, 2)), np.array([0]), np.array([0, 1]))


def test_a_query_without_a_right_entry_has_no_rank():
    with pytest.raises(ValueError, match="1 queries have no right entry, first number 1"):
        ranks.first_hits(np.ones((2, 2)), np.ones((1, 2)), np.array([0, 5]), np.array([0]))
