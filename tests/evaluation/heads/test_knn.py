import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from fetalclip_jax.evaluation.heads import knn


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 6)) * rng.uniform(0.1, 9, (90, 1))
    return features, rng.integers(0, 3, 90), rng.normal(size=(300, 6))


@pytest.mark.parametrize("k", [1, 4, 11])
@pytest.mark.parametrize("temperature", [0.0, 0.07])
def test_votes_are_those_of_scikit_learn(data, k, temperature):
    features, labels, new = data
    reference = KNeighborsClassifier(
        k,
        metric="cosine",
        weights=(lambda distance: np.exp(-distance / 0.07)) if temperature else "uniform",
    ).fit(features, labels)
    found = knn.find(new, features, labels, 11).votes(3, k, temperature)
    np.testing.assert_allclose(found, reference.predict_proba(new), atol=2e-5)
    np.testing.assert_array_equal(found.argmax(1), reference.predict(new))


def test_nothing_of_ones_own_fold_is_found(data):
    features, labels, _ = data
    folds = np.arange(90) % 4
    found = knn.find(features, features, labels, 5, query_folds=folds, gallery_folds=folds)
    for fold in range(4):
        own = folds == fold
        alone = knn.find(features[own], features[~own], labels[~own], 5)
        np.testing.assert_array_equal(found.labels[own], alone.labels)
        np.testing.assert_allclose(found.cosine[own], alone.cosine, atol=1e-6)


def test_of_equally_near_images_the_first_is_found_and_of_equal_votes_the_first_class_wins():
    same = np.ones((4, 2))
    found = knn.find(np.ones((1, 2)), same, np.array([2, 1, 1, 0]), 2)
    assert found.labels.tolist() == [[2, 1]]
    assert found.votes(3, 2).argmax(1).tolist() == [1]


def test_a_small_temperature_overflows_nothing(data):
    features, labels, new = data
    found = knn.find(new, features, labels, 9)
    np.testing.assert_array_equal(found.votes(3, 9, 1e-6).argmax(1), found.labels[:, 0])


@pytest.mark.parametrize("k", [0, 3])
def test_more_neighbours_than_images_are_refused(k):
    folds = np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match=f"k={k} neighbours cannot be found among 2 images"):
        knn.find(np.ones((4, 2)), np.ones((4, 2)), folds, k, query_folds=folds, gallery_folds=folds)
