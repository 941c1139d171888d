"""The store of clips: one row each, the features of its frames side by side."""

import types

import numpy as np
import pytest

from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.data.views import shrink
from fetalclip_jax.evaluation.features import frames, levels
from fetalclip_jax.evaluation.study import Need

SIZE = 16


class MeanModel:
    """Features are the mean of a frame, and one minus it."""

    config = types.SimpleNamespace(vision_cfg=types.SimpleNamespace(image_size=SIZE))

    def encode_pixels(self, batch):
        mean = batch.mean((1, 2, 3), np.float32)
        return np.stack([mean, 1 - mean], 1)


class Clips(list):
    def __getitem__(self, index):
        found = super().__getitem__(index)
        if isinstance(found, Exception):
            raise found
        return found


def clip(name, length, **known):
    pixels = np.random.default_rng(length).integers(0, 256, (length, SIZE, SIZE), dtype=np.uint8)
    return Example(name, pixels[0], frames=pixels, **known)


def encode(source, batch_size=3, **how):
    need = Need("fit", "fit", level="frames", how={"num_frames": 4} | how)
    working = levels.Working(batch_size, fingerprint={"model": "m"}, progress=False)
    return levels.of("frames").encode(MeanModel(), source, need, working)


def test_a_row_holds_the_features_of_its_frames_in_order():
    source = Clips([clip("a", 4, patient_id="p1"), clip("b", 8, label="normal"), clip("c", 2)])
    store = encode(source)
    assert store.columns["example_id"].tolist() == ["a", "b", "c"]
    assert store.columns["frames"].tolist() == [4, 8, 2]
    assert store.columns["label"].tolist() == ["", "normal", ""]
    assert store.patients().tolist() == ["p1", "image:b", "image:c"]
    chosen = ([0, 1, 2, 3], [1, 3, 5, 7], [0, 0, 1, 1])
    for row, (one, numbers) in enumerate(zip(source, chosen, strict=True)):
        means = one.frames[numbers].mean((1, 2), np.float32)
        expected = np.stack([means, 1 - means], 1).ravel()
        np.testing.assert_allclose(store.image_features[row], expected, rtol=1e-5)
        thumbnails = np.concatenate([shrink(one.frames[k]) for k in numbers])
        np.testing.assert_array_equal(store.raw_pixels[row], thumbnails)


def test_the_size_of_a_batch_changes_nothing():
    source = Clips([clip("a", 5), clip("b", 9)])
    np.testing.assert_array_equal(
        encode(source, 1).image_features, encode(source, 64).image_features
    )


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    source = Clips([clip("a", 4), BadExampleError("b", "the video holds no frame"), clip("c", 4)])
    store = encode(source)
    assert store.left_out == (("b", "the video holds no frame"),)
    assert store.columns["example_id"].tolist() == ["a", "c"]
    store.save(tmp_path / "store")
    again = frames.load(tmp_path / "store")
    np.testing.assert_array_equal(again.image_features, store.image_features)
    assert again.left_out == store.left_out
    with pytest.raises(ValueError, match="1 of 1 clips cannot be read, first b: the video holds"):
        encode(Clips(source[1:2]))
    with pytest.raises(ValueError, match="the table") as refused:
        encode(Clips([clip("a", 4), clip("a", 4)]))
    assert "one of the clips" in str(refused.value)


def test_features_that_are_not_finite_are_refused():
    class Broken(MeanModel):
        def encode_pixels(self, batch):
            return super().encode_pixels(batch) * np.nan

    need = Need("fit", "fit", level="frames", how={"num_frames": 4})
    with pytest.raises(ValueError, match=r"features of 1 of 1 images are nan or infinite.* of a:"):
        frames.encode(Broken(), Clips([clip("a", 4)]), need, levels.Working(progress=False))
