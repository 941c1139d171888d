"""Maps of features, and their neighbourhoods, against slow and obvious ones."""

import sys
import types

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from fetalclip_jax.evaluation import projection

RNG = np.random.default_rng(0)


def test_pca_is_the_two_widest_directions_with_a_sign_that_stays():
    features = (RNG.normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]).astype(np.float32) + 7
    found = projection.pca(features)
    reference = PCA(2).fit(features.astype(np.float64))
    np.testing.assert_allclose(found.explained, reference.explained_variance_ratio_, rtol=1e-6)
    expected = reference.transform(features)
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-5)
    # Along its largest weight a direction rises.
    for axis, direction in enumerate(reference.components_):
        largest = np.abs(direction).argmax()
        assert np.corrcoef(found.points[:, axis], features[:, largest])[0, 1] > 0
    shuffled = RNG.permutation(40)
    again = projection.pca(features[shuffled])
    np.testing.assert_allclose(again.points, found.points[shuffled], atol=1e-5)


@pytest.mark.parametrize("features", [np.ones((5, 3)), np.ones((2, 3)), np.ones((5, 1))])
def test_features_that_span_no_plane_are_refused(features):
    with pytest.raises(ValueError, match="span no plane"):
        projection.pca(features.astype(np.float32))


def unit(count, width=4):
    features = RNG.normal(size=(count, width))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_neighbours_are_the_nearest_of_other_patients(monkeypatch):
    monkeypatch.setattr(projection, "_ROWS_AT_ONCE", 7)
    features, groups = unit(30), np.arange(30) // 3
    found = projection.neighbours(features, groups, 4)
    order = NearestNeighbors(n_neighbors=30, metric="cosine").fit(features)
    for row, ranked in enumerate(order.kneighbors(features, return_distance=False)):
        others = [other for other in ranked if groups[other] != groups[row]]
        assert found[row].tolist() == others[:4]


def test_too_few_other_patients_are_said():
    with pytest.raises(ValueError, match="neighbours=3: some image has 2 images of other patients"):
        projection.neighbours(unit(6), np.array([0, 0, 0, 0, 1, 2]), 3)


def test_agreement_and_its_chance_are_counted():
    values = np.array(["a", "a", "b", "b", "b"])
    groups = np.array([0, 1, 1, 2, 2])
    nearest = np.array([[1, 2], [0, 3], [3, 4], [2, 0], [0, 1]])
    np.testing.assert_allclose(projection.agreement(values, nearest), [0.5, 0.5, 1, 0.5, 0])
    expected = []
    for row in range(5):
        others = [
            value for value, group in zip(values, groups, strict=True) if group != groups[row]
        ]
        expected.append(others.count(values[row]) / len(others))
    np.testing.assert_allclose(projection.chance_agreement(values, groups), expected)


def test_differences_of_numbers_and_their_chance():
    numbers = np.array([1.0, 2, 4, 8])
    groups = np.array([0, 0, 1, 2])
    nearest = np.array([[2, 3], [2, 3], [0, 1], [1, 2]])
    np.testing.assert_allclose(projection.difference(numbers, nearest), [5, 4, 2.5, 5])
    expected = [abs(6 - 1), abs(6 - 2), abs(11 / 3 - 4), abs(7 / 3 - 8)]
    np.testing.assert_allclose(projection.chance_difference(numbers, groups), expected)


def test_without_its_package_umap_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match=r"pip install 'fetalclip_jax\[umap\]'"):
        projection.umap(np.ones((20, 3), np.float32))


def test_umap_is_asked_by_cosine_with_a_seed(monkeypatch):
    asked = {}

    class UMAP:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, features):
            return features[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    features = RNG.normal(size=(20, 3)).astype(np.float32)
    found = projection.umap(features, seed=5)
    np.testing.assert_array_equal(found.points, features[:, :2].astype(np.float64))
    assert found.explained == ()
    assert (asked["metric"], asked["random_state"], asked["n_jobs"]) == ("cosine", 5, 1)
    with pytest.raises(ValueError, match="UMAP looks at 15 neighbours, and there are 15 features"):
        projection.umap(features[:15])
