"""The training stream: order, epochs, shares of processes, workers, resumption."""

import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from fetalclip_jax.captions.synthesis import caption
from fetalclip_jax.data import records
from fetalclip_jax.data.augment import AugmentConfig, train_augment
from fetalclip_jax.data.example import Example
from fetalclip_jax.data.pipeline import caption_id, train_iterator


class Letters:
    """The first letters of a text as ids."""

    def __call__(self, texts):
        return np.array([[ord(c) for c in text[:6].ljust(6)] for text in texts], np.int32)


def batches(dataset, count, **arguments):
    arguments = {"global_batch_size": 4, "seed": 0, **arguments}
    iterator = train_iterator(dataset, Letters(), **arguments)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def keys_of(batch):
    """The captions of a batch, as something to look up."""
    return [tuple(key) for key in batch["caption_ids"].tolist()]


def key_of(text):
    return tuple(caption_id(text).tolist())


def indices(found):
    """Which examples are in each batch: unaugmented images are filled with their number."""
    return [batch["image"][:, 0, 0].tolist() for batch in found]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def textured(count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(f"e{i}", rng.integers(0, 256, (16, 16), dtype=np.uint8), f"image {i}")
        for i in range(count)
    ]


def test_batches_have_the_promised_shapes(numbered_examples):
    (batch,) = batches(numbered_examples(9), 1)
    assert batch["image"].shape == (4, 4, 4)
    assert batch["image"].dtype == np.uint8
    assert batch["tokens"].shape == (4, 6)
    assert batch["tokens"].dtype == np.int32
    assert batch["caption_ids"].shape == (4, 2)
    assert batch["caption_ids"].dtype == np.uint32


def test_first_batches_are_pinned(numbered_examples):
    # A run resumed after an upgrade of grain, or a change here, must see the data in the order it
    # began with. If this fails, old checkpoints no longer continue as they would have.
    found = indices(batches(numbered_examples(9), 4))
    assert found == [[2, 3, 7, 8], [4, 1, 0, 6], [2, 6, 3, 5], [0, 7, 8, 4]]


def test_each_epoch_is_a_new_order_without_repetition(numbered_examples):
    found = indices(batches(numbered_examples(9), 20))
    epochs = [found[i] + found[i + 1] for i in range(0, 20, 2)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10
    # The ninth example, dropped with the incomplete batch, is another one each time.
    assert set().union(*epochs) == set(range(9))


def test_seed_decides_the_order(numbered_examples):
    examples = numbered_examples(9)
    assert indices(batches(examples, 4)) == indices(batches(examples, 4))
    assert indices(batches(examples, 4)) != indices(batches(examples, 4, seed=1))


def test_processes_share_each_global_batch(numbered_examples):
    examples = numbered_examples(18)
    whole = indices(batches(examples, 7, global_batch_size=8))
    shares = [
        indices(batches(examples, 7, global_batch_size=8, process_index=p, process_count=4))
        for p in range(4)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        assert sorted(i for part in parts for i in part) == sorted(batch)


def test_state_continues_exactly():
    dataset = textured(10)
    arguments = {"global_batch_size": 4, "seed": 3, "augment": AugmentConfig()}
    first = train_iterator(dataset, Letters(), **arguments)
    for _ in range(3):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    expected = [next(first) for _ in range(5)]
    second = train_iterator(dataset, Letters(), **arguments)
    next(second)
    second.set_state(state)
    assert_equal([next(second) for _ in range(5)], expected)
    first.set_state(state)
    assert_equal([next(first) for _ in range(5)], expected)
    first.close()
    second.close()


def test_workers_change_nothing_and_continue_exactly(tmp_path, numbered_examples):
    dataset = records.prepare(numbered_examples(11), tmp_path / "r", image_size=8, progress=False)
    # Nine batches of three, three to an epoch, and an odd number of examples for two workers.
    arguments = {"global_batch_size": 3, "augment": {"rotate_degrees": 5.0}, "caption_variants": 2}
    expected = batches(dataset, 9, **arguments)
    iterator = train_iterator(dataset, Letters(), seed=0, worker_count=2, **arguments)
    assert_equal([next(iterator) for _ in range(4)], expected[:4])
    state = iterator.get_state()
    assert_equal([next(iterator) for _ in range(5)], expected[4:])
    iterator.set_state(state)
    assert_equal([next(iterator) for _ in range(2)], expected[4:6])
    iterator.close()


def test_augmentation_depends_on_seed_example_and_epoch_only():
    dataset = textured(8)

    def images_by_caption(count, **arguments):
        found = {}
        for batch in batches(dataset, count, augment=AugmentConfig(), **arguments):
            found |= dict(zip(keys_of(batch), batch["image"], strict=True))
        return found

    by_fours = images_by_caption(2)
    by_twos = images_by_caption(4, global_batch_size=2)
    shared = images_by_caption(2, process_index=1, process_count=2)
    assert len(by_fours) == len(by_twos) == 8
    for key, image in by_twos.items():
        np.testing.assert_array_equal(image, by_fours[key])
    for key, image in shared.items():
        np.testing.assert_array_equal(image, by_fours[key])
    second_epoch = images_by_caption(4)
    other_seed = images_by_caption(2, seed=1)
    for key, image in by_fours.items():
        assert (image != second_epoch[key]).any()
        assert (image != other_seed[key]).any()


def test_without_augmentation_the_stored_image_comes():
    dataset = textured(4)
    (batch,) = batches(dataset, 1)
    for image, key in zip(batch["image"], keys_of(batch), strict=True):
        (example,) = [x for x in dataset if key_of(x.caption) == key]
        np.testing.assert_array_equal(image, example.image)


def test_augment_takes_a_mapping():
    expected = batches(textured(4), 1, augment=AugmentConfig(flip=1.0))
    assert_equal(batches(textured(4), 1, augment={"flip": 1.0}), expected)
    assert_equal(batches(textured(4), 1, augment=ConfigDict({"flip": 1.0})), expected)


def test_captions_are_made_of_the_metadata_and_change_with_the_epoch(numbered_examples):
    examples = numbered_examples(4)
    found = batches(examples, 6, caption_variants=3, caption_seed=7)
    for epoch, batch in enumerate(found):
        for (number,), key, tokens in zip(
            batch["image"][:, :1, 0], keys_of(batch), batch["tokens"], strict=True
        ):
            example = examples[number]
            text = caption(
                plane="brain",
                ga_days=example.ga_days,
                resized_spacing_mm=example.pixel_spacing_mm,
                key=(7, example.example_id, epoch % 3),
            )
            assert key == key_of(text)
            np.testing.assert_array_equal(tokens, Letters()([text])[0])
    first, second, fourth = (set(keys_of(found[i])) for i in (0, 1, 3))
    assert first == fourth
    assert first != second


def test_a_magnified_image_is_captioned_with_its_new_spacing(numbered_examples):
    examples = [
        dataclasses.replace(example, caption=None, plane="femur", ga_days=140, pixel_spacing_mm=0.5)
        for example in numbered_examples(4)
    ]
    augment = {"rotate_degrees": 0.0, "translate": 0.0, "jitter": 0.0, "flip": 0.0, "zoom": 0.7}
    (batch,) = batches(examples, 1, global_batch_size=4, augment=augment)
    stated = {
        key_of(caption(plane="femur", ga_days=140, resized_spacing_mm=0.5, key=key)): key
        for key in ((0, e.example_id, 0) for e in examples)
    }
    # Four magnifications, none of them 1: no caption may still quote 0.50 where it quotes any.
    quoted = [
        "0.50"
        in caption(plane="femur", ga_days=140, resized_spacing_mm=0.5, key=(0, e.example_id, 0))
        for e in examples
    ]
    unchanged = sum(key in stated for key in keys_of(batch))
    assert any(quoted)
    assert unchanged == 4 - sum(quoted)


def test_a_caption_of_its_own_is_used(numbered_examples):
    examples = [dataclasses.replace(x, caption="Femur.") for x in numbered_examples(4)]
    first, second = batches(examples, 2, caption_variants=3)
    assert set(keys_of(first)) == {key_of("Femur.")}
    np.testing.assert_array_equal(first["tokens"], second["tokens"])


def test_caption_ids_tell_texts_apart_and_never_change():
    # Stored nowhere, but compared between processes: a salted hash would differ in each.
    assert key_of("Femur.") == (389657085, 362945952)
    texts = [f"Fetal head, {days} days." for days in range(1000)]
    assert len({key_of(text) for text in texts}) == 1000
    # Each half alone tells as much as 32 bits can: together they are 64.
    assert len({key_of(text)[0] for text in texts}) == 1000
    assert len({key_of(text)[1] for text in texts}) == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_batch_size": 5}, "global_batch_size is 5, but the data set has 4"),
        ({"global_batch_size": 0}, "use 1 to 4"),
        ({"process_count": 3, "process_index": 0}, "4 does not divide among 3 processes"),
        ({"process_count": 2, "process_index": 2}, "process_index is 2 of 2"),
        ({"caption_variants": 0}, "caption_variants is 0"),
        ({"worker_count": -1}, "worker_count is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"augment": {"shear": 2}}, "augment has no field 'shear'"),
    ],
)
def test_arguments_out_of_range(numbered_examples, arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered_examples(4), 1, **arguments)


def test_an_empty_data_set_is_an_error():
    with pytest.raises(ValueError, match="the data set is empty"):
        batches([], 1)


def test_augmented_images_are_those_of_train_augment():
    dataset = textured(4)
    config = AugmentConfig(rotate_degrees=0.0, translate=0.0, jitter=0.0, flip=0.5)
    flipped = 0
    for batch in batches(dataset, 8, augment=config):
        for image, key in zip(batch["image"], keys_of(batch), strict=True):
            (example,) = [x for x in dataset if key_of(x.caption) == key]
            mirrored = train_augment(
                example.image, np.random.default_rng(0), dataclasses.replace(config, flip=1.0)
            )
            plain = np.array_equal(image, example.image)
            assert plain or np.array_equal(image, mirrored)
            flipped += not plain
    assert 8 <= flipped <= 24
