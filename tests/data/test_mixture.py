"""Several data sets in one stream of batches."""

import dataclasses
import pickle

import numpy as np
import pytest

from fetalclip_jax.data import pipeline, records, subset
from fetalclip_jax.data.augment import AugmentConfig
from fetalclip_jax.data.mixture import Mixture


@pytest.fixture
def parts(tmp_path, numbered_examples):
    """24 and 6 images of 4 pixels; those of the second have colour and values from 100 on."""
    examples = [
        dataclasses.replace(
            one,
            example_id=f"other-{k}",
            image=np.full((4, 4, 3), [100 + k, 0, 0], np.uint8),
        )
        for k, one in enumerate(numbered_examples(6))
    ]
    return (
        records.prepare(numbered_examples(24), tmp_path / "first", image_size=4),
        records.prepare(examples, tmp_path / "second", image_size=4),
    )


def stream(dataset, size=8, seed=0, **arguments):
    def tokenizer(texts):
        return np.zeros((len(texts), 1), np.int32)

    return pipeline.train_iterator(
        dataset, tokenizer, global_batch_size=size, seed=seed, **arguments
    )


def batches(dataset, count, **arguments):
    found = stream(dataset, **arguments)
    taken = [next(found) for _ in range(count)]
    found.close()
    return taken


def test_examples_are_those_of_the_parts_in_order(parts):
    mixture = pickle.loads(pickle.dumps(Mixture(parts, ("a", "b"), (0.5, 0.5))))
    assert len(mixture) == 30
    ids = mixture.metadata()["example_id"].tolist()
    for k in (0, 23, 24, 29):
        assert mixture[k].example_id == ids[k]
        assert mixture[k].image.shape == (4, 4, 3)
    assert [one.example_id for one in mixture.without_masks([25, 3])] == ["other-1", "example-3"]
    assert mixture[3].image[0, 0].tolist() == [3, 3, 3]
    assert mixture[25].image[0, 0].tolist() == [101, 0, 0]
    assert not hasattr(mixture, "labels")


def test_the_order_of_parts_and_their_shares_are_told_apart(parts):
    digests = {
        Mixture(chosen, ("a", "b"), shares).fingerprint
        for chosen in (parts, parts[::-1])
        for shares in ((0.5, 0.5), (0.25, 0.75))
    }
    assert len(digests) == 4


def test_every_batch_has_its_share_of_each_part(parts):
    mixture = Mixture(parts, ("a", "b"), (0.75, 0.25))
    assert mixture.parts_of_batch(8) == [(24, 6), (6, 2)]
    assert mixture.parts_of_batch(7) == [(24, 5), (6, 2)]
    for one in batches(mixture, 6):
        assert (one["record"][:6] < 24).all()
        assert (one["record"][6:] >= 24).all()
        assert len(set(one["record"].tolist())) == 8
    # Three batches are an epoch of the second part, four of the first.
    seen = np.concatenate([one["record"] for one in batches(mixture, 12)]).tolist()
    assert {seen.count(k) for k in range(24)} == {3}
    assert {seen.count(k) for k in range(24, 30)} == {4}


def test_the_first_part_comes_in_the_order_that_it_has_alone(parts):
    mixed = batches(Mixture(parts, ("a", "b"), (0.75, 0.25)), 4, seed=5)
    alone = batches(parts[0], 4, size=6, seed=5)
    for one, other in zip(mixed, alone, strict=True):
        assert one["record"][:6].tolist() == other["record"].tolist()


def test_a_part_of_few_images_stands_in_a_batch_several_times(parts):
    few = subset.first_patients(parts[1], 1, seed=0)
    augment = AugmentConfig(jitter=0.5)
    for mixture, copies in (
        (Mixture([parts[0], few], ("a", "b"), (0.25, 0.75)), 3),
        (Mixture([few], ("b",), (1.0,)), 4),
    ):
        (batch, _) = batches(mixture, 2, augment=augment)
        first = len(mixture) - 2
        counts = [batch["record"].tolist().count(first + k) for k in range(2)]
        assert counts == [copies, copies]
        same = batch["image"][batch["record"] == first]
        assert len({image.tobytes() for image in same}) == copies


def test_a_stream_goes_on_from_any_step_and_is_cut_for_any_number_of_hosts(parts):
    mixture = Mixture(parts, ("a", "b"), (0.5, 0.5))
    whole = batches(mixture, 5, augment=AugmentConfig())
    later = batches(mixture, 2, augment=AugmentConfig(), first_step=3)
    halves = [batches(mixture, 5, augment=AugmentConfig(), part=(k, 2)) for k in range(2)]
    for name in ("record", "image"):
        assert np.array_equal(later[0][name], whole[3][name])
        joined = np.concatenate([half[4][name] for half in halves])
        assert np.array_equal(joined, whole[4][name])


def test_a_share_of_no_row_is_refused(parts):
    mixture = Mixture(parts, ("a", "b"), (0.99, 0.01))
    with pytest.raises(ValueError, match=r"of global_batch_size 8, the share 0\.01 of b is no row"):
        stream(mixture)
