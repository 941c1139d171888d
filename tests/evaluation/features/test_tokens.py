"""Stored tokens: what the blocks of the tower made, in half precision, read batch by batch."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import NO_IMAGE, Example
from fetalclip_jax.evaluation.features import levels, tokens
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import normalise

SIZE = 32


@pytest.fixture(scope="module")
def model():
    towers = {
        "embed_dim": 8,
        "vision_cfg": {
            "image_size": SIZE, "layers": 3, "width": 16, "patch_size": 16, "head_width": 8,
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 1024, "width": 8, "heads": 1, "layers": 1,
        },
    }  # fmt: skip
    return fetalclip_jax.load("ViT-Mi-16-96-conv", config=towers)


class Source:
    def __init__(self, count=5):
        rng = np.random.default_rng(0)
        self.examples = []
        for i in range(count):
            mask = np.zeros((24, 40), bool)
            mask[4 : 10 + i, 10:30] = True
            image = rng.integers(0, 255, (24, 40)).astype(np.uint8)
            name = f"image{i}"
            self.examples.append(
                Example(name, image, plane="brain", patient_id=name, masks={"head": mask})
            )

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    def metadata(self):
        bare = (dataclasses.replace(one, image=NO_IMAGE) for one in self.examples)
        return columns((one, None) for one in bare)


def encode(model, *, place="stored", batch_size=4, copies=1, taps="code"):
    need = Need(
        "images", "fit", level="tokens", masks=("head",), copies=copies,
        how={"taps": taps, "tokens": place},
    )  # fmt: skip
    working = Working(batch_size, fingerprint={"model": model.fingerprint}, progress=False)
    return levels.of("tokens").encode(model, Source(), need, working)


@pytest.fixture(scope="module")
def store(model):
    return encode(model)


def test_taps_of_any_depth():
    assert tokens.taps_of("code", 24) == (6, 8, 12, 24)
    assert tokens.taps_of("paper", 24) == (6, 12, 18, 24)
    assert tokens.taps_of("code", 12) == (3, 4, 6, 12)
    assert tokens.taps_of("code", 2) == tokens.taps_of("paper", 2) == (1, 1, 1, 2)
    assert tokens.taps_of("code", 1) == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="taps='figure' is not one of code, paper"):
        tokens.taps_of("figure", 24)


def test_tokens_are_block_outputs_without_the_class_token(model, store):
    assert store.taps == (1, 1, 1, 3)
    found = store.batch(np.array([0, 7, 3]))
    shown = store.images.pixels[[0, 7, 3]]
    np.testing.assert_array_equal(found.pixels, shown)
    _, outputs = model.module.apply(
        {"params": model.params}, normalise(jnp.asarray(shown)), (1, 3), method=CLIP.encode_image
    )
    for tap, output in ((0, outputs[0]), (2, outputs[0]), (3, outputs[1])):
        expected = np.asarray(output)[:, 1:].reshape(3, 2, 2, 16)  # rows of patches first
        np.testing.assert_allclose(found.tokens[:, tap], expected, rtol=1e-3, atol=1e-3)
    assert found.tokens.dtype == np.float16
    np.testing.assert_array_equal(found.masks[..., 0], store.images.mask("head")[[0, 7, 3]])


def test_a_selection_reads_its_own_rows(store):
    chosen = store.clean().select(np.array([3, 1]))
    assert chosen.columns["example_id"].tolist() == ["image3", "image1"]
    assert chosen.copy.tolist() == [0, 0]
    np.testing.assert_array_equal(
        chosen.batch(np.array([1, 0])).tokens, store.batch(np.array([2, 6])).tokens
    )


def test_recomputed_tokens_are_the_stored_ones(model, store):
    again = encode(model, place="recomputed")
    assert again.tokens is None
    with pytest.raises(AssertionError, match="bound to its model first"):
        again.batch(np.arange(2))
    rows = np.array([4, 0, 9, 2])
    np.testing.assert_allclose(
        again.bound(model).batch(rows).tokens, store.batch(rows).tokens, rtol=2e-3, atol=2e-3
    )
    with pytest.raises(ValueError, match="encoded by model"):
        again.bound(types.SimpleNamespace(fingerprint="other"))


@pytest.mark.parametrize("place", ["stored", "recomputed"])
def test_a_store_comes_back_from_disk_memory_mapped(model, place, tmp_path):
    store = encode(model, place=place)
    store.save(tmp_path / "store")
    found = tokens.load(tmp_path / "store")
    assert found.taps == store.taps
    assert found.fingerprint == store.fingerprint
    assert found.columns["example_id"].tolist() == store.columns["example_id"].tolist()
    if place == "stored":
        assert isinstance(found.tokens, np.memmap)
    rows = np.array([1, 6])
    np.testing.assert_array_equal(
        found.bound(model).batch(rows).tokens, store.bound(model).batch(rows).tokens
    )


def test_damaged_stores_are_refused(store, tmp_path):
    store.save(tmp_path / "store")
    file = tmp_path / "store" / "tokens.npy"
    np.save(file, np.load(file)[:-1])
    with pytest.raises(ValueError, match=r"damaged store of tokens \(9 rows of tokens for 10"):
        tokens.load(tmp_path / "store")
    file.unlink()
    with pytest.raises(ValueError, match="damaged store of tokens"):
        tokens.load(tmp_path / "store")
    (tmp_path / "store" / "tokens.json").unlink()
    with pytest.raises(ValueError, match=r"is no store of tokens: it has no tokens\.json"):
        tokens.load(tmp_path / "store")


def test_tokens_that_are_not_finite_are_refused_where_they_are_read(store):
    spoilt = np.array(store.tokens)
    spoilt[6, 2, 0, 1, 5] = np.nan
    damaged = dataclasses.replace(store, tokens=spoilt)
    damaged.batch(np.array([0, 1]))
    with pytest.raises(ValueError, match="first those of image 'image3'"):
        damaged.batch(np.array([1, 6]))


def test_tokens_that_are_not_finite_are_refused_where_they_are_made(model):
    spoilt = dict(model.params, visual=dict(model.params["visual"]))
    spoilt["visual"]["class_embedding"] = spoilt["visual"]["class_embedding"] * jnp.nan
    with pytest.raises(ValueError, match="features of 4 of 4 images are nan or infinite"):
        encode(model.with_params(spoilt))


def test_numbers_beyond_half_precision_are_refused():
    with pytest.raises(ValueError, match="block outputs reach 70000, beyond the 65504"):
        tokens.halved(np.full((1, 4, 1, 1, 1), -70_000.0))


def test_without_room_tokens_are_made_again_and_that_is_said(model, monkeypatch, tmp_path):
    room = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(tokens.shutil, "disk_usage", lambda folder: room)
    store = encode(model, place="auto")
    assert store.tokens is None
    assert "GiB left: the image tower runs again for every batch" in store.notes[0]
    store.save(tmp_path / "store")
    assert tokens.load(tmp_path / "store").notes == store.notes
    with pytest.raises(ValueError, match=r"tokens='stored': tokens take 2 x 0\.0 GiB and"):
        encode(model, place="stored")
    assert encode(model, place="recomputed").notes == ()
    room.free = 10**12
    assert encode(model, place="auto").tokens is not None


def test_no_process_stores_tokens_if_another_has_no_room(model, monkeypatch):
    found = []
    elsewhere = "process 1: tokens take 2 x 3.0 GiB and /tmp has 1.0 GiB left"
    monkeypatch.setattr(
        tokens.distributed, "found_anywhere", lambda mine: found.append(mine) or elsewhere
    )
    store = encode(model, place="auto")
    assert found == [None]  # there is room here
    assert store.tokens is None
    assert store.notes == (f"{elsewhere}: the image tower runs again for every batch",)
    with pytest.raises(ValueError, match="tokens='stored': process 1: tokens take 2 x 3"):
        encode(model, place="stored")


def test_any_number_of_images_is_encoded_by_one_program(model):
    sizes = []

    def encode_patches(batch, taps):
        sizes.append(len(batch))
        return np.broadcast_to(
            batch.mean((1, 2, 3))[:, None, None, None, None], (len(batch), 4, 1, 1, 1)
        )

    store = encode(model, place="recomputed")
    again = store.bound(
        types.SimpleNamespace(fingerprint=model.fingerprint, encode_patches=encode_patches)
    )
    for count in (1, 3, 8, 10):
        rows = np.arange(count)[::-1]
        expected = store.images.pixels[rows].mean((1, 2, 3))
        np.testing.assert_allclose(again.batch(rows).tokens[:, 2, 0, 0, 0], expected, rtol=1e-3)
    assert len(sizes) == 5
    assert len(set(sizes)) == 1
