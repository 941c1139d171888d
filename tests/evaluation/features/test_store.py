"""Encoding a source, and the store it fills."""

import types

import numpy as np
import pytest

from fetalclip_jax.data import augment
from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.data.views import shrink
from fetalclip_jax.evaluation import features
from fetalclip_jax.evaluation.features import encoding

SIZE = 16


class FakeModel:
    """Features are channel means, so a row can be traced back to its pixels."""

    fingerprint = "m"
    config = types.SimpleNamespace(vision_cfg=types.SimpleNamespace(image_size=SIZE))

    def __init__(self):
        self.calls = []

    def encode_pixels(self, batch):
        self.calls.append(batch.shape)
        assert batch.dtype == np.uint8
        return means(batch)


def means(batch):
    """The mean of each channel, three times the same for grey images."""
    colour = batch if batch.ndim == 4 else np.repeat(batch[..., None], 3, -1)
    return colour.mean((1, 2), np.float32)


class FakeData(list):
    """A source some of whose examples cannot be read."""

    def __getitem__(self, index):
        found = super().__getitem__(index)
        if isinstance(found, Exception):
            raise found
        return found


def example(i, **metadata):
    pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE), np.uint8)
    return Example(f"e{i}", pixels, **metadata)


@pytest.fixture
def dataset():
    return FakeData(
        [
            example(0, plane="brain", brain_plane="trans-thalamic", ga_days=140, hc_mm=170.5),
            example(1, patient_id="p1", pixel_spacing_mm=0.4, extra={"machine": "Aloka"}),
            Example("e2", np.stack([example(2).image] * 3, -1), label="normal"),
        ]
    )


def encode(dataset, **arguments):
    return features.encode(FakeModel(), dataset, progress=False, **arguments)


def test_encodes_clean_and_augmented_rows(dataset):
    model = FakeModel()
    store = features.encode(model, dataset, batch_size=4, copies=2, seed=5, progress=False)
    assert store.copy.tolist() == [0, 1, 2] * 3
    assert store.columns["example_id"].tolist() == ["e0"] * 3 + ["e1"] * 3 + ["e2"] * 3
    assert model.calls == [(4, SIZE, SIZE, 3)] * 3  # the last batch is filled up
    np.testing.assert_allclose(store.image_features[3], means(dataset[1].image[None])[0])
    changed = augment.probe_augment(dataset[1].image, np.random.default_rng([5, 1, 2]))
    np.testing.assert_allclose(store.image_features[5], means(changed[None])[0])
    assert store.clean().columns["example_id"].tolist() == ["e0", "e1", "e2"]


def test_missing_metadata_is_empty_or_nan(dataset):
    columns = encode(dataset).columns
    assert columns["plane"].tolist() == ["brain", "", ""]
    assert columns["patient_id"].tolist() == ["", "p1", ""]
    assert columns["label"].tolist() == ["", "", "normal"]
    assert columns["machine"].tolist() == ["", "Aloka", ""]
    np.testing.assert_array_equal(columns["ga_days"], [140, np.nan, np.nan])
    np.testing.assert_array_equal(columns["resized_spacing_mm"], [np.nan, 0.4, np.nan])


def test_rows_do_not_depend_on_the_batch_size(dataset):
    one, two = (encode(dataset, batch_size=size, copies=1) for size in (1, 5))
    np.testing.assert_allclose(one.image_features, two.image_features, rtol=1e-5)
    np.testing.assert_array_equal(one.raw_pixels, two.raw_pixels)


def test_colour_beside_grey(dataset):
    colour = np.random.default_rng(9).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    dataset.append(Example("colour", colour))
    store = encode(dataset, batch_size=4)
    np.testing.assert_allclose(store.image_features[3], means(colour[None])[0])
    np.testing.assert_allclose(store.image_features[0], means(dataset[0].image[None])[0])


def test_unreadable_images_are_left_out_and_kept_in_mind(dataset, tmp_path):
    dataset.insert(1, BadExampleError("torn", "cut short"))
    store = encode(dataset, copies=1)
    assert store.columns["example_id"].tolist() == ["e0", "e0", "e1", "e1", "e2", "e2"]
    assert store.left_out == (("torn", "cut short"),)
    store.save(tmp_path / "store")
    assert features.FeatureStore.load(tmp_path / "store").left_out == store.left_out
    with pytest.raises(ValueError, match="2 of 2 images cannot be read, first torn: cut short"):
        encode(FakeData([dataset[0], BadExampleError("torn", "cut short")][1:] * 2))


def test_only_images_of_the_wanted_kind(dataset):
    store = encode(dataset, only={"plane": ("brain",)})
    assert store.columns["example_id"].tolist() == ["e0"]
    with pytest.raises(ValueError, match="none of 3 images is of the kind"):
        encode(dataset, only={"plane": ("femur",)})


@pytest.mark.parametrize(
    ("copies", "moves"), [(0, [0, 3, 4]), (1, [0, 2, 3, 4]), (2, [0, 1, 2, 3, 4])]
)
def test_the_bar_counts_images_that_were_encoded(dataset, progress_bars, copies, moves):
    bars = progress_bars(encoding)
    model, rows, shown = FakeModel(), [0], []

    def encode_pixels(batch):
        shown.append(bars[0].n - 1)  # less the one that cannot be read
        assert shown[-1] <= rows[0] // (copies + 1)
        rows[0] += len(batch)
        return means(batch)

    model.encode_pixels = encode_pixels
    dataset.insert(0, BadExampleError("torn", "cut short"))
    features.encode(model, dataset, batch_size=3, copies=copies)
    assert (bars[0].total, bars[0].moves) == (4, moves)
    assert len(shown) == copies + 1


def test_the_bar_ends_when_the_last_images_are_passed_over(dataset, progress_bars):
    bars = progress_bars(encoding)
    features.encode(FakeModel(), dataset, batch_size=1, only={"plane": ("brain",)})
    assert bars[0].total == bars[0].n == 3


def test_an_id_that_occurs_twice_is_refused(dataset):
    dataset.append(example(1))
    with pytest.raises(ValueError, match="example id 'e1' occurs twice"):
        encode(dataset)


def test_features_that_are_not_finite_are_no_features(make_store):
    with pytest.raises(ValueError, match=r"features of 1 of 2 images are nan or infinite.*image1"):
        make_store([[1.0], [np.nan]])


def test_thumbnail_is_an_area_mean():
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    expected = grey.reshape(16, 2, 16, 2).mean((1, 3))
    for pixels in (grey, np.stack([grey] * 3, -1)):
        assert np.abs(shrink(pixels).reshape(16, 16) - expected).max() <= 0.5


def test_saved_and_loaded_store_is_the_same(dataset, tmp_path):
    store = encode(dataset, copies=1, fingerprint={"model": "m", "data": {"seed": 1}})
    store.save(tmp_path / "store")
    found = features.FeatureStore.load(tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    assert found.fingerprint == store.fingerprint == {"model": "m", "data": {"seed": 1}}
    for name, values in store.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)
    for name in ("image_features", "raw_pixels", "copy"):
        np.testing.assert_array_equal(getattr(found, name), getattr(store, name))


def test_a_failed_save_leaves_nothing(make_store, tmp_path):
    broken = make_store([[2.0]], model=object())  # no JSON
    with pytest.raises(TypeError):
        broken.save(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
    make_store([[1.0]]).save(tmp_path / "store")
    with pytest.raises(ValueError, match="is there already"):
        make_store([[2.0]]).save(tmp_path / "store")


def test_damaged_stores_are_named(make_store, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no feature store: it has no arrays\.npz"):
        features.FeatureStore.load(tmp_path / "nowhere")
    make_store([[1.0]]).save(tmp_path / "cut")
    arrays = tmp_path / "cut" / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut: damaged feature store"):
        features.FeatureStore.load(tmp_path / "cut")


def test_images_without_patient_are_patients_of_their_own(make_store):
    store = make_store(np.zeros((4, 1)), patient_id=["a", "a", "", ""])
    assert len(np.unique(store.bootstrap_groups("patient"))) == 3
    assert len(np.unique(store.bootstrap_groups("image"))) == 4


def test_augmented_only_store_has_no_clean_rows(make_store):
    with pytest.raises(ValueError, match="no clean image"):
        make_store([[1.0]], copy=[1]).clean()
