"""Images with their outlines, as a model is shown them."""

import dataclasses
import hashlib
import types

import numpy as np
import pytest

from fetalclip_jax.data import augment
from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import NO_IMAGE, BadExampleError, Example
from fetalclip_jax.evaluation.features import levels, pixels
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.study import Need
from fetalclip_jax.models import preprocess

SIZE = 16


class Source:
    """Bright rectangles on a dark ground; the mask is where they are."""

    def __init__(self, *examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        if isinstance(self.examples[index], BadExampleError):
            raise self.examples[index]
        return self.examples[index]

    def metadata(self):
        known = [
            Example(one.example_id, NO_IMAGE)
            if isinstance(one, BadExampleError)
            else dataclasses.replace(one, image=NO_IMAGE)
            for one in self.examples
        ]
        return columns((one, None) for one in known)


def rectangle(name, rows=slice(8, 24), shape=(32, 48), plane="brain", **fields):
    mask = np.zeros(shape, bool)
    mask[rows, 16:32] = True
    image = np.where(mask, 200, 0).astype(np.uint8)
    masks = {"head": mask, "spine": ~mask}
    return Example(name, image, plane=plane, patient_id=name, **{"masks": masks} | fields)


def encode(source, masks=("head",), **need):
    vision = types.SimpleNamespace(image_size=SIZE)
    model = types.SimpleNamespace(config=types.SimpleNamespace(vision_cfg=vision))
    need = Need("images", "test", level="pixels", masks=masks, **need)
    return levels.of("pixels").encode(model, source, need, Working(progress=False))


def test_pixels_are_those_of_the_model_and_masks_lie_over_them():
    one = rectangle("a")
    store = encode(Source(one), masks=("spine", "head"))
    expected = preprocess.square_resize(one.image, SIZE)
    np.testing.assert_array_equal(store.pixels, np.repeat(expected[None, ..., None], 3, -1))
    # Padded from 32 x 48 to 48 x 48 and shrunk threefold: rows 16..31 of 48, columns 16..31.
    head = np.zeros((SIZE, SIZE), bool)
    head[5:11, 5:11] = True  # 5.33 to 10.67: the pixels that are covered by half or more
    head[5, 5] = head[5, 10] = head[10, 5] = head[10, 10] = False  # corners are covered by 4/9
    np.testing.assert_array_equal(store.mask("head")[0], head)
    # What is around the image belongs to no structure.
    assert not store.mask("spine")[0, :2].any()
    assert store.mask("spine")[0, 3].all()


def test_masks_of_copies_move_as_the_image_does():
    one = rectangle("a", shape=(64, 64), rows=slice(8, 40))
    one = dataclasses.replace(one, image=np.where(one.masks["head"], 255, 0).astype(np.uint8))
    store = encode(Source(one), copies=4)
    assert store.copy.tolist() == [0, 1, 2, 3, 4]
    assert store.columns["example_id"].tolist() == ["a"] * 5
    for image, mask in zip(store.pixels[..., 0], store.mask("head"), strict=True):
        bright = image > image.max() / 2
        union = (bright | mask).sum()
        assert (bright & mask).sum() > 0.85 * union
    overlap = (store.mask("head")[0] & store.mask("head")[1:]).sum((1, 2))
    assert overlap.min() < 0.8 * store.mask("head")[0].sum()  # they did move
    # The image is changed as it is without a mask.
    rng = np.random.default_rng([0, 0, 2])
    expected = preprocess.square_resize(augment.probe_augment(one.image, rng), SIZE)
    np.testing.assert_array_equal(store.pixels[2, ..., 0], expected)


def test_images_of_other_kinds_and_without_the_outline_are_passed_over():
    source = Source(
        rectangle("a"),
        rectangle("b", plane="femur"),
        rectangle("c", masks=None),
        rectangle("d", masks={"spine": np.ones((32, 48), bool)}),
        rectangle("e"),
    )
    store = encode(source, only={"plane": ("brain",)})
    assert store.columns["example_id"].tolist() == ["a", "e"]
    assert store.left_out == ()
    assert store.without_outline == {"head": 2}
    both = encode(source, masks=("head", "spine"), only={"plane": ("brain",)})
    assert both.without_outline == {"head, spine": 1, "head": 1}


def test_unreadable_images_and_masks_of_another_size_are_left_out_by_name():
    source = Source(
        BadExampleError("gone", "no such file"),
        rectangle("odd", masks={"head": np.ones((32, 47), bool)}),
        rectangle("good"),
    )
    store = encode(source)
    assert store.columns["example_id"].tolist() == ["good"]
    assert store.left_out == (
        ("gone", "no such file"),
        (
            "odd",
            "the mask of 'head' is [32, 47], its image [32, 48] pixels; outline the image at its "
            "own size",
        ),
    )


def test_a_bounded_number_is_chosen_by_hash_among_those_that_serve():
    bad = [BadExampleError(f"bad{i}", "unreadable") for i in range(3)]
    good = [rectangle(f"image{i}", rows=slice(i, 24)) for i in range(10)]
    store = encode(Source(*bad, *good), how={"images": 4})

    def by_hash(names):
        return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())

    names = store.columns["example_id"].tolist()
    assert names == by_hash(f"image{i}" for i in range(10))[:4]
    assert store.candidates == 13
    # The pixels are those of the names.
    for name, image in zip(names, store.pixels, strict=True):
        expected = encode(Source(next(one for one in good if one.example_id == name)))
        np.testing.assert_array_equal(image, expected.pixels[0])
    # In another order the same ones are chosen.
    assert encode(Source(*good[::-1]), how={"images": 4}).columns["example_id"].tolist() == names


def test_a_store_comes_back_from_disk_memory_mapped(tmp_path):
    source = Source(
        rectangle("a"), BadExampleError("b", "unreadable"), rectangle("c"),
        rectangle("d", masks=None),
    )  # fmt: skip
    store = encode(source, masks=("head", "spine"), copies=1)
    store.save(tmp_path / "store")
    found = pixels.load(tmp_path / "store")
    assert isinstance(found.pixels, np.memmap)
    for field in dataclasses.fields(found):
        before, after = getattr(store, field.name), getattr(found, field.name)
        np.testing.assert_equal(after, before)
    chosen = found.clean().select(np.array([1]))
    assert chosen.columns["example_id"].tolist() == ["c"]
    np.testing.assert_array_equal(chosen.masks, store.masks[2:3])
    assert chosen.patients().tolist() == ["c"]


def test_outlines_that_nobody_asked_for_are_not_kept(tmp_path):
    store = encode(Source(rectangle("a", masks=None)), masks=())
    store.save(tmp_path / "store")
    assert pixels.load(tmp_path / "store").masks.shape == (1, 0, SIZE, SIZE)


def test_a_damaged_store_is_refused(tmp_path):
    encode(Source(rectangle("a"))).save(tmp_path / "store")
    whole = (tmp_path / "store" / "pixels.npy").read_bytes()
    (tmp_path / "store" / "pixels.npy").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="damaged store of pixels"):
        pixels.load(tmp_path / "store")
    (tmp_path / "store" / "masks.npy").unlink()
    with pytest.raises(ValueError, match=r"is no store of pixels: it has no masks\.npy"):
        pixels.load(tmp_path / "store")


def test_nothing_to_read_is_an_error():
    with pytest.raises(ValueError, match="none of 1 images is of the kind the study judges"):
        encode(Source(rectangle("a")), only={"plane": ("femur",)})
    with pytest.raises(ValueError, match="none of 1 images is outlined: 1 have no outline of head"):
        encode(Source(rectangle("a", masks=None)))
    with pytest.raises(ValueError, match="example id 'a' occurs twice"):
        encode(Source(rectangle("a"), rectangle("a")))
