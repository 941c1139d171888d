"""The training stream: order, epochs, parts of batches, workers, where it starts."""

import dataclasses
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from fetalclip_jax.captions.synthesis import caption, state
from fetalclip_jax.data import records
from fetalclip_jax.data.augment import AugmentConfig, train_augment
from fetalclip_jax.data.example import Example
from fetalclip_jax.data.pipeline import train_iterator
from fetalclip_jax.data.rows import caption_id
from tests.data.probe import Letters, Probe

ROOT = pathlib.Path(__file__).resolve().parents[2]


def batches(dataset, count, **arguments):
    # By the letter: a caption's number is then that of its text, which a test can look up.
    arguments = {"global_batch_size": 4, "seed": 0, "positives": "text", **arguments}
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
    assert batch["record"].dtype == np.int32
    assert batch["record"].tolist() == batch["image"][:, 0, 0].tolist()


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


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_see_the_same_batches_in_the_same_order(hosts):
    dataset = textured(18)
    arguments = {"global_batch_size": 8, "augment": AugmentConfig()}
    parts = [batches(dataset, 7, part=(host, hosts), **arguments) for host in range(hosts)]
    joined = [
        {name: np.concatenate([one[name] for one in same]) for name in same[0]}
        for same in zip(*parts, strict=True)
    ]
    assert all(len(part[0]["record"]) == 8 // hosts for part in parts)
    assert_equal(joined, batches(dataset, 7, **arguments))


def test_a_stream_starts_anywhere_and_reads_nothing_of_what_lies_before():
    reads = []

    class Recording(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    arguments = {"global_batch_size": 4, "seed": 3, "augment": AugmentConfig()}
    dataset = textured(10)
    expected = batches(dataset, 8, **arguments)
    for start in (1, 2, 3, 7):  # in the first epoch, at the second's begin, in later ones
        assert_equal(batches(dataset, 8 - start, first_step=start, **arguments), expected[start:])
    (late,) = batches(Recording(dataset), 1, first_step=2_000_001, **arguments)
    assert len(set(late["record"].tolist())) == 4
    assert len(reads) < 50  # that batch, and the few made ahead


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(tmp_path, numbered_examples, workers):
    dataset = records.prepare(numbered_examples(75), tmp_path / "r", image_size=8, progress=False)
    # Batches of more than one chunk, two to an epoch, and a chunk that is not full.
    arguments = {"global_batch_size": 37, "augment": {"rotate_degrees": 5.0}, "caption_variants": 2}
    expected = [
        dict(zip(rows, columns, strict=True))
        for rows, columns in (
            (one.keys(), one.values()) for one in batches(dataset, 5, **arguments)
        )
    ]
    found = batches(dataset, 3, first_step=2, workers=workers, **arguments)
    assert_equal(found, expected[2:])
    assert found[0]["image"].flags.writeable


def test_workers_hold_no_jax_and_leave_opencv_one_thread():
    # In a program of its own: here the main module of the tests would come along.
    program = (
        "from tests.data.probe import Letters, Probe\n"
        "if __name__ == '__main__':\n"
        "    import numpy as np\n"
        "    from fetalclip_jax.data.pipeline import train_iterator\n"
        "    stream = train_iterator(Probe(), Letters(), global_batch_size=64, seed=0, workers=2)\n"
        "    rows = next(stream)['image'].reshape(64, -1)\n"
        "    stream.close()\n"
        "    import multiprocessing, sys\n"
        "    assert 'jax' in sys.modules and not multiprocessing.active_children()\n"
        "    print(np.unique(rows[:, :4], axis=0).tolist(), len(np.unique(rows[:, 4:], axis=0)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[0, 0, 0, 1]]"), done.stdout
    assert not done.stderr


def test_an_error_in_a_worker_is_the_readers():
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"^example 5 is broken; mend it$"):
            batches(Probe(8, fails_at=5), 3, workers=workers)


def test_a_worker_that_is_lost_is_one_line_and_takes_the_others_along():
    # Of the tenth batch: both workers are at work by then, and only one of them comes to it.
    late = int(batches(Probe(64), 10)[-1]["record"][0])
    with pytest.raises(ValueError, match=r"ended from outside \(exit codes .*3") as error:
        batches(Probe(64, dies_at=late), 12, workers=2)
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    program = (
        "import multiprocessing, time\n"
        "from tests.data.probe import Letters, Probe\n"
        "if __name__ == '__main__':\n"
        "    from fetalclip_jax.data.pipeline import train_iterator\n"
        "    stream = train_iterator(Probe(), Letters(), global_batch_size=64, seed=0, workers=2)\n"
        "    seen = set()\n"
        "    while len(seen) < 2:\n"  # until both are at work
        "        seen |= {tuple(row) for row in next(stream)['image'][:, 0, 4:].tolist()}\n"
        "    print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    for pid in workers:  # what a scheduler does to every process of a job: they go on
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    assert all(is_running(pid) for pid in workers)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.time() + 20
    while any(is_running(pid) for pid in workers):
        assert time.time() < deadline, "workers outlived the process that started them"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_augmentation_depends_on_seed_example_and_epoch_only():
    dataset = textured(8)

    def images_by_caption(count, **arguments):
        found = {}
        for batch in batches(dataset, count, augment=AugmentConfig(), **arguments):
            found |= dict(zip(keys_of(batch), batch["image"], strict=True))
        return found

    by_fours = images_by_caption(2)
    by_twos = images_by_caption(4, global_batch_size=2)
    shared = images_by_caption(2, part=(1, 2))
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


def test_a_second_image_is_augmented_by_itself_and_magnified_alike():
    first, second = ([*textured(6)][:4], [*textured(6)][2:])
    pairs = [
        dataclasses.replace(one, second_image=other.image)
        for one, other in zip(first, second, strict=True)
    ]
    (plain,) = batches(first, 1, augment=AugmentConfig())
    (both,) = batches(pairs, 1, augment=AugmentConfig())
    assert "second_image" not in plain
    np.testing.assert_array_equal(both["image"], plain["image"])
    (stored,) = batches(pairs, 1)
    assert (both["second_image"] != stored["second_image"]).any(axis=(1, 2)).all()
    for record, image in zip(stored["record"], stored["second_image"], strict=True):
        np.testing.assert_array_equal(image, second[record].image)
    # Without anything else, both are what zoom makes of them.
    still = {"rotate_degrees": 0.0, "translate": 0.0, "jitter": 0.0, "flip": 0.0, "zoom": 0.7}
    same = [
        dataclasses.replace(one, caption=None, plane="femur", second_image=one.image)
        for one in first
    ]
    (zoomed,) = batches(same, 1, augment=still)
    np.testing.assert_array_equal(zoomed["second_image"], zoomed["image"])
    assert (zoomed["image"] != batches(same, 1)[0]["image"]).any()


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
    (batch,) = batches(examples, 1, augment=augment)
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


def test_captions_of_the_same_facts_are_positives_however_they_are_worded(numbered_examples):
    examples = [
        dataclasses.replace(x, ga_days=140 + i // 32, pixel_spacing_mm=0.5 + 0.001 * (i % 4))
        for i, x in enumerate(numbered_examples(64))
    ]
    (by_facts,) = batches(examples, 1, global_batch_size=64, positives="facts")
    (by_text,) = batches(examples, 1, global_batch_size=64, positives="text")
    facts = [
        state(
            plane="brain",
            ga_days=examples[record].ga_days,
            resized_spacing_mm=examples[record].pixel_spacing_mm,
            key=(0, examples[record].example_id, 0),
        ).facts
        for record in by_facts["record"]
    ]
    same_facts = np.array([[a == b for a in facts] for b in facts])
    same_id = (by_facts["caption_ids"][:, None] == by_facts["caption_ids"][None]).all(-1)
    same_text = (by_text["caption_ids"][:, None] == by_text["caption_ids"][None]).all(-1)
    np.testing.assert_array_equal(same_id, same_facts)
    assert same_id[same_text].all()
    assert same_id.sum() > 2 * same_text.sum()
    np.testing.assert_array_equal(by_facts["tokens"], by_text["tokens"])


def test_captions_of_the_data_are_positives_but_for_case_and_spaces(numbered_examples):
    texts = ["Femur,  long axis.", "FEMUR, long axis.", "Femur, short axis.", "plane=femur"]
    examples = [
        dataclasses.replace(x, caption=text)
        for x, text in zip(numbered_examples(4), texts, strict=True)
    ]
    examples.append(Example("e4", examples[0].image, plane="femur"))
    for positives, distinct in (("facts", 4), ("text", 5)):
        (batch,) = batches(examples, 1, global_batch_size=5, positives=positives)
        assert len(set(keys_of(batch))) == distinct


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
        ({"part": (0, 3)}, "4 does not divide into 3 parts"),
        ({"part": (2, 2)}, "part is 2 of 2"),
        ({"first_step": -1}, "first_step is -1"),
        ({"positives": "meaning"}, "positives is 'meaning', not one of facts, text"),
        ({"caption_variants": 0}, "caption_variants is 0"),
        ({"workers": -1}, "workers is -1"),
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
