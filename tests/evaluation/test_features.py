import types

import numpy as np
import pytest

from fetalclip_jax.data import augment
from fetalclip_jax.data.example import Example
from fetalclip_jax.evaluation import features
from fetalclip_jax.models.preprocess import normalise

SIZE = 16


class FakeModel:
    """Features are channel means, so a row can be traced back to its pixels."""

    fingerprint = "m"
    config = types.SimpleNamespace(vision_cfg=types.SimpleNamespace(image_size=SIZE))

    def __init__(self):
        self.calls = []

    def encode_image(self, batch):
        self.calls.append(batch.shape)
        assert batch.dtype == np.float32
        return batch.mean((1, 2))


class FakeData(list):
    fingerprint = "d"


def example(i, **metadata):
    pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE), np.uint8)
    return Example(f"e{i}", pixels, **metadata)


@pytest.fixture
def dataset():
    return FakeData(
        [
            example(0, plane="brain", brain_plane="trans-thalamic", ga_days=140, hc_mm=170.5),
            example(1, patient_id="p1", pixel_spacing_mm=0.4),
            Example("e2", np.stack([example(2).image] * 3, -1), label="normal"),
        ]
    )


def test_encodes_clean_and_augmented_rows(dataset):
    model = FakeModel()
    store = features.encode(model, dataset, batch_size=4, copies=2, seed=5, progress=False)
    assert store.copy.tolist() == [0, 1, 2] * 3
    assert store.columns["example_id"].tolist() == ["e0"] * 3 + ["e1"] * 3 + ["e2"] * 3
    assert model.calls == [(4, SIZE, SIZE, 3)] * 3  # the last batch is filled up
    clean = normalise(dataset[1].image[None]).mean((1, 2))
    np.testing.assert_allclose(store.image_features[3], clean[0], rtol=1e-5)
    changed = augment.probe_augment(dataset[1].image, np.random.default_rng([5, 1, 2]))
    np.testing.assert_allclose(
        store.image_features[5], normalise(changed[None]).mean((1, 2))[0], rtol=1e-5
    )
    assert store.clean().columns["example_id"].tolist() == ["e0", "e1", "e2"]


def test_missing_metadata_is_empty_or_nan(dataset):
    columns = features.encode(FakeModel(), dataset, progress=False).columns
    assert columns["plane"].tolist() == ["brain", "", ""]
    assert columns["patient_id"].tolist() == ["", "p1", ""]
    assert columns["label"].tolist() == ["", "", "normal"]
    np.testing.assert_array_equal(columns["ga_days"], [140, np.nan, np.nan])
    np.testing.assert_array_equal(columns["resized_spacing_mm"], [np.nan, 0.4, np.nan])


def test_rows_do_not_depend_on_the_batch_size(dataset):
    one, two = (
        features.encode(FakeModel(), dataset, batch_size=size, copies=1, progress=False)
        for size in (1, 5)
    )
    np.testing.assert_allclose(one.image_features, two.image_features, rtol=1e-5)
    np.testing.assert_array_equal(one.raw_pixels, two.raw_pixels)


def test_thumbnail_is_an_area_mean():
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    pixels = np.stack([grey] * 3, -1)
    expected = grey.reshape(16, 2, 16, 2).mean((1, 3))
    assert np.abs(features.shrink(pixels).reshape(16, 16) - expected).max() <= 0.5


def test_saved_and_loaded_store_is_the_same(dataset, tmp_path):
    store = features.encode(FakeModel(), dataset, copies=1, progress=False)
    store.save(tmp_path / "store")
    found = features.FeatureStore.load(tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    assert found.fingerprint == store.fingerprint
    assert found.fingerprint["model"] == "m"
    assert found.fingerprint["data"] == "d"
    for name, values in store.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)
    for name in ("image_features", "raw_pixels", "copy"):
        np.testing.assert_array_equal(getattr(found, name), getattr(store, name))


def test_a_store_is_replaced_only_when_told(make_store, tmp_path):
    make_store([[1.0]]).save(tmp_path / "store")
    with pytest.raises(ValueError, match="exists already: pass overwrite=True"):
        make_store([[2.0]]).save(tmp_path / "store")
    make_store([[2.0]]).save(tmp_path / "store", overwrite=True)
    assert features.FeatureStore.load(tmp_path / "store").image_features.tolist() == [[2.0]]


def test_a_failed_save_leaves_the_old_store(make_store, tmp_path):
    make_store([[1.0]]).save(tmp_path / "store")
    broken = make_store([[2.0]], model=object())  # no JSON
    with pytest.raises(TypeError):
        broken.save(tmp_path / "store", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert features.FeatureStore.load(tmp_path / "store").image_features.tolist() == [[1.0]]


def test_damaged_stores_are_named(make_store, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no feature store: it has no arrays\.npz"):
        features.FeatureStore.load(tmp_path / "nowhere")
    make_store([[1.0]]).save(tmp_path / "cut")
    arrays = tmp_path / "cut" / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut: damaged feature store"):
        features.FeatureStore.load(tmp_path / "cut")


def test_refuses_empty_data_and_other_sizes(dataset):
    with pytest.raises(ValueError, match="no image: there is nothing to encode"):
        features.encode(FakeModel(), FakeData())
    dataset.append(Example("big", np.zeros((20, 24), np.uint8)))
    with pytest.raises(ValueError, match=r"big: image of 20 x 24 pixels.*image_size=16"):
        features.encode(FakeModel(), dataset, progress=False)


def test_images_without_patient_are_patients_of_their_own(make_store):
    store = make_store(np.zeros((4, 1)), patient_id=["a", "a", "", ""])
    assert len(np.unique(store.bootstrap_groups("patient"))) == 3
    assert len(np.unique(store.bootstrap_groups("image"))) == 4


def test_augmented_only_store_has_no_clean_rows(make_store):
    with pytest.raises(ValueError, match="no clean image"):
        make_store([[1.0]], copy=[1]).clean()
