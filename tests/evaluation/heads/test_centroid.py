import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from fetalclip_jax.evaluation.heads.centroid import Centroids


def test_answers_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 4, 60)
    new = rng.normal(size=(200, 5)).astype(np.float32)
    reference = NearestCentroid().fit(features.astype(np.float64), labels)
    found = Centroids.fit(features, labels, 4)
    np.testing.assert_allclose(found.means, reference.centroids_, rtol=1e-12)
    np.testing.assert_array_equal(found.scores(new).argmax(1), reference.predict(new))


def test_a_class_without_an_image_is_never_answered():
    found = Centroids.fit(np.array([[1.0, 0], [0, 1]]), np.array([0, 2]), 4)
    assert found.learnt.tolist() == [True, False, True, False]
    scores = found.scores(np.array([[0.9, 0], [50, 80]]))
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores.argmax(1), [0, 2])
    assert (scores[:, [1, 3]] < scores[:, [0, 2]].min(1, keepdims=True)).all()


def test_no_image_has_no_centroid():
    with pytest.raises(ValueError, match="no image to take the centroids of"):
        Centroids.fit(np.zeros((0, 2)), np.zeros(0, int), 2)
