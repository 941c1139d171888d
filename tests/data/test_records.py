"""Preparation: what is written, what is refused, and that it is all or nothing."""

import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from fetalclip_jax.data import records, workers
from fetalclip_jax.data.array_records import ArrayRecords
from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.datasets.hc18 import HC18Source


class Described(list):
    """A list of examples, or errors to raise, that says what it is."""

    def __init__(self, items, **description):
        super().__init__(items)
        self.description = description

    def __getitem__(self, index):
        if isinstance(item := super().__getitem__(index), Exception):
            raise item
        return item


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {x.name: hashlib.sha256(x.read_bytes()).hexdigest() for x in folder.iterdir()}


def test_records_hold_the_source_in_its_order(tmp_path, numbered_examples):
    source = numbered_examples(5)
    dataset = records.prepare(source, tmp_path / "a" / "r", image_size=8, progress=False)
    assert len(dataset) == 5
    assert dataset.image_size == 8
    for i, expected in enumerate(source):
        example = dataset[i]
        np.testing.assert_array_equal(example.image, np.full((8, 8), i))
        assert example.pixel_spacing_mm == 0.25  # 4 pixels of 0.5 mm are now 8
        same = {"image": None, "pixel_spacing_mm": None}
        assert vars(example) | same == vars(expected) | same
    assert dataset[-1].example_id == "example-4"
    with pytest.raises(IndexError, match="record 5 of 5"):
        dataset[5]


def test_tfds_opens_the_folder_without_tensorflow(tmp_path, numbered_examples):
    records.prepare(numbered_examples(3), tmp_path / "r", image_size=8, progress=False)
    program = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(tmp_path / "r")!r}).as_data_source(split="records")
print(len(source), source[1]["example_id"].decode(), source[1]["image"][1:4].decode())
print("tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.split() == ["3", "example-1", "PNG", "False"], result.stderr


def test_metadata_agrees_with_the_records(tmp_path):
    items = [
        Example("a", np.zeros((9, 12), np.uint8), "a caption, ümlaut", 150, 0.1, "heart"),
        Example("b", np.zeros((4, 4), np.uint8), hc_mm=44.3, patient_id="p", label="normal"),
    ]
    dataset = records.prepare(items, tmp_path / "r", image_size=6, progress=False)
    metadata = dataset.metadata()
    assert {len(column) for column in metadata.values()} == {2}
    for i in range(2):
        example = dataset[i]
        spacing = example.pixel_spacing_mm
        for column, value in {**vars(example), "resized_spacing_mm": spacing}.items():
            if column in ("image", "second_image", "masks", "pixel_spacing_mm", "extra", "frames"):
                continue
            stored = metadata[column][i]
            missing = stored == "" if isinstance(stored, str) else np.isnan(stored)
            assert missing if value is None else stored == value, column
    assert metadata["resized_spacing_mm"][0] == 0.2
    assert metadata["hc_mm"][1] == 44.3
    assert list(metadata["height"]) == [9, 4]
    assert list(metadata["width"]) == [12, 4]


def test_one_colour_image_makes_all_images_three_channels(tmp_path):
    grey = np.full((4, 4), 7, np.uint8)
    rgb = np.stack([grey, grey + 1, grey + 2], axis=-1)
    items = [Example("g", grey), Example("c", rgb), Example("h", grey)]
    mixed = records.prepare(items, tmp_path / "m", image_size=4, progress=False)
    assert mixed.colour
    np.testing.assert_array_equal(mixed[0].image, np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(mixed[1].image, rgb)
    same = Example("s", np.repeat(grey[..., None], 3, axis=-1))
    plain = records.prepare([same], tmp_path / "p", image_size=4, progress=False)
    assert not plain.colour
    assert plain[0].image.shape == (4, 4)


def test_records_do_not_depend_on_workers(tmp_path, hc18_folder, monkeypatch):
    # Many more pieces of work than may wait at once, so that order is put to the test.
    monkeypatch.setattr(workers, "_CHUNK", 2)
    root = hc18_folder(patients=20)
    (root / "training_set" / "007_HC.png").write_bytes(b"broken")
    source = HC18Source(root)
    folders = {}
    for count in (0, 2):
        dataset = records.prepare(
            source,
            tmp_path / f"r{count}",
            image_size=16,
            workers=count,
            max_bad_share=0.1,
            progress=False,
        )
        assert len(dataset) == 39
        folders[count] = digests(dataset.directory)
    assert folders[0] == folders[2]
    assert (tmp_path / "r2" / "bad_examples.csv").read_text().splitlines()[1].startswith("007_HC")


def test_errors_of_the_source_come_back_from_workers(tmp_path, hc18_folder):
    source = HC18Source(hc18_folder(patients=2))
    source.filenames = ("000_HC.png", "unlisted")
    with pytest.raises(KeyError, match="unlisted"):
        records.prepare(source, tmp_path / "r", image_size=8, workers=1, progress=False)
    assert not (tmp_path / "r").exists()


def test_a_prepared_folder_is_reused(tmp_path, numbered_examples):
    source = Described(numbered_examples(3), kind="test", sizes=(1, 2))
    first = records.prepare(source, tmp_path / "r", image_size=8, progress=False)
    before = digests(first.directory)
    poisoned = Described([RuntimeError("read again")] * 3, kind="test", sizes=(1, 2))
    second = records.prepare(poisoned, tmp_path / "r", image_size=8, progress=False)
    assert digests(second.directory) == before
    assert second.fingerprint == first.fingerprint


def test_another_description_is_refused_and_nothing_is_overwritten(tmp_path, numbered_examples):
    source = Described(numbered_examples(3), seed=0)
    first = records.prepare(source, tmp_path / "r", image_size=8, progress=False)
    before = digests(first.directory)
    other = Described(numbered_examples(3), seed=1)
    with pytest.raises(
        ValueError,
        match=r"source.seed=0 \(wanted: 1\); put the data back .* or choose another folder",
    ):
        records.prepare(other, tmp_path / "r", image_size=8, progress=False)
    with pytest.raises(ValueError, match=r"image_size=8 \(wanted: 16\)"):
        records.prepare(source, tmp_path / "r", image_size=16, progress=False)
    assert digests(first.directory) == before
    fresh = records.prepare(other, tmp_path / "other", image_size=8, progress=False)
    assert fresh.fingerprint != first.fingerprint


def test_a_source_without_a_description_is_known_by_its_content(tmp_path, numbered_examples):
    records.prepare(numbered_examples(3), tmp_path / "r", image_size=8, progress=False)
    records.prepare(numbered_examples(3), tmp_path / "r", image_size=8, progress=False)
    with pytest.raises(ValueError, match="pickle_sha256 differs"):
        records.prepare(numbered_examples(4), tmp_path / "r", image_size=8, progress=False)
    with pytest.raises(ValueError, match="has no `description`"):
        records.prepare([lambda: 0], tmp_path / "q", image_size=8, progress=False)


def test_a_folder_of_the_users_own_is_left_alone(tmp_path, numbered_examples):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds no prepared records"):
        records.prepare(numbered_examples(3), tmp_path / "mine", image_size=8, progress=False)
    assert [x.name for x in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_bad_examples_are_skipped_counted_and_listed(tmp_path, numbered_examples):
    items = numbered_examples(10)
    items[4] = BadExampleError("broken.png", "not an image, at all")
    dataset = records.prepare(
        Described(items), tmp_path / "r", image_size=8, max_bad_share=0.1, progress=False
    )
    assert len(dataset) == 9
    assert dataset.num_bad_examples == 1
    assert dataset[4].example_id == "example-5"
    listed = (tmp_path / "r" / "bad_examples.csv").read_text().splitlines()
    assert listed == ["example_id,reason", 'broken.png,"not an image, at all"']
    assert dataset.bad_examples() == [("broken.png", "not an image, at all")]


def test_what_is_left_out_is_said_whenever_the_records_are_opened(
    tmp_path, numbered_examples, capsys
):
    items = numbered_examples(10)
    items[4] = BadExampleError("broken.png", "not an image")
    items[7] = dataclasses.replace(items[7], hc_mm=17.5)
    for _ in range(2):
        records.prepare(
            Described(items),
            tmp_path / "r",
            image_size=8,
            max_bad_share=0.2,
            progress=False,
            name="scans",
        )
        assert capsys.readouterr().out == (
            f"scans: 2 of 10 examples left out (listed in {tmp_path / 'r' / 'bad_examples.csv'}); "
            "first: broken.png: not an image\n"
        )
    listed = (tmp_path / "r" / "bad_examples.csv").read_text().splitlines()
    assert listed[2].startswith('example-7,"hc_mm is 17.5, outside 30 to 450')


def test_two_examples_of_one_id_are_refused(tmp_path, numbered_examples):
    items = numbered_examples(4)
    items[3] = items[1]
    with pytest.raises(ValueError, match="examples 1 and 3 have the same example_id 'example-1'"):
        records.prepare(Described(items), tmp_path / "r", image_size=8, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_further_labels_and_groups_are_columns(tmp_path, numbered_examples):
    first, second, third = numbered_examples(3)
    first = dataclasses.replace(first, extra={"machine": "Aloka", "operator": "Op. 1"})
    second = dataclasses.replace(second, extra={"machine": "Voluson"})
    dataset = records.prepare([first, second, third], tmp_path / "r", image_size=8, progress=False)
    assert [dataset[i].extra for i in range(3)] == [first.extra, second.extra, {}]
    metadata = dataset.metadata()
    assert list(metadata["machine"]) == ["Aloka", "Voluson", ""]
    assert list(metadata["operator"]) == ["Op. 1", "", ""]


class Files(Described):
    """Examples that were read from files of the given identities."""

    def __init__(self, items, **files):
        super().__init__(items, files_sha256=str(sorted(files.items())))
        self.files = files


BEFORE = {"a": (10, 1), "b": (20, 1), "c": (30, 1)}


def test_a_repaired_file_is_read_again_and_this_is_said(tmp_path, numbered_examples, capsys):
    folder = tmp_path / "r"
    items = numbered_examples(3)
    records.prepare(Files(items[:2], **BEFORE), folder, image_size=8, progress=False, replace=True)
    assert capsys.readouterr().out == ""
    after = Files(items, **(BEFORE | {"b": (25, 2)}))
    dataset = records.prepare(after, folder, image_size=8, progress=False, replace=True)
    assert len(dataset) == 3
    output = capsys.readouterr().out
    assert output == (f"{folder} holds other records: 1 file changed (first: b). Preparing anew\n")
    assert [x.name for x in tmp_path.iterdir()] == ["r"]
    records.prepare(after, folder, image_size=8, progress=False, replace=True)
    assert capsys.readouterr().out == ""


def test_records_that_are_relied_on_stay_and_what_changed_is_listed(tmp_path, numbered_examples):
    items = numbered_examples(3)
    first = records.prepare(Files(items, **BEFORE), tmp_path / "r", image_size=8, progress=False)
    before = digests(first.directory)
    after = Files(items, **{"a": (11, 1), "b": (20, 1), "d": (1, 1)})
    with pytest.raises(ValueError, match="holds other records") as caught:
        records.prepare(after, tmp_path / "r", image_size=8, progress=False)
    message = str(caught.value)
    for change in (
        "1 file changed (first: a)",
        "1 file added (first: d)",
        "1 file gone (first: c)",
    ):
        assert change in message
    assert "delete" not in message
    assert digests(first.directory) == before


def test_a_copied_data_set_continues(tmp_path, numbered_examples, capsys):
    items = numbered_examples(3)
    records.prepare(Files(items, **BEFORE), tmp_path / "r", image_size=8, progress=False)
    copied = Files(items, **{name: (size, 99) for name, (size, _) in BEFORE.items()})
    dataset = records.prepare(copied, tmp_path / "r", image_size=8, progress=False)
    assert len(dataset) == 3
    assert "other times but the same names and sizes" in capsys.readouterr().out
    # Of another seed they are other records, copied or not.
    copied.description["seed"] = 1
    with pytest.raises(ValueError, match=r"source.seed=None .wanted: 1."):
        records.prepare(copied, tmp_path / "r", image_size=8, progress=False)


def test_a_failed_renewal_leaves_the_old_records(tmp_path, numbered_examples):
    items = numbered_examples(3)
    first = records.prepare(Files(items, **BEFORE), tmp_path / "r", image_size=8, progress=False)
    before = digests(first.directory)
    broken = Files([BadExampleError("a", "broken")] * 3, a=(1, 1))
    with pytest.raises(ValueError, match="1 of 3"):
        records.prepare(broken, tmp_path / "r", image_size=8, progress=False, replace=True)
    assert digests(first.directory) == before


SCRIPT = """
from fetalclip_jax.data import records
from fetalclip_jax.datasets import registry
sizes = {{"train_images": 6, "pool_images": 6, "test_images": 6}}
source = registry.open_source("phantom", options=sizes, image_size=32)
arguments = {{"image_size": 8, "workers": 2, "progress": False, "replace": True}}
{guard}records.prepare(source, {folder!r}, **arguments)
"""


@pytest.mark.parametrize(("guard", "status"), [("", 1), ('if __name__ == "__main__": ', 0)])
def test_a_script_without_a_main_guard_is_told_so_in_one_line(
    tmp_path, numbered_examples, guard, status
):
    records.prepare(numbered_examples(2), tmp_path / "r", image_size=8, progress=False)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard, folder=str(tmp_path / "r")))
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == status, result.stderr
    assert len(records.RecordDataset(tmp_path / "r")) == (2 if status else 6)
    # Its processes have nothing to say.
    assert result.stdout.count("Preparing anew") == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("ValueError")]
    assert len(errors) == status
    if errors:
        assert f"ValueError: {script} starts 2 worker processes" in errors[0]
        assert 'put its code under `if __name__ == "__main__":`, or use workers=0' in errors[0]
        assert result.stderr.count("Traceback") == 1


class Killed(Described):
    """Its examples end the process that reads them, as the kernel does when memory runs out."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line(tmp_path, numbered_examples):
    with pytest.raises(ValueError, match=r"exit codes \[-9\].* use fewer workers than 1"):
        records.prepare(
            Killed(numbered_examples(2)), tmp_path / "r", image_size=8, workers=1, progress=False
        )
    assert list(tmp_path.iterdir()) == []


def test_too_many_bad_examples_stop_preparation(tmp_path, numbered_examples):
    items = numbered_examples(10)
    items[4] = BadExampleError("broken.png", "not an image")
    with pytest.raises(ValueError, match=r"1 of 10 .*broken.png: not an image"):
        records.prepare(Described(items), tmp_path / "r", image_size=8, progress=False)
    assert list(tmp_path.iterdir()) == []
    nothing = Described([BadExampleError(f"{i}.png", "broken") for i in range(3)])
    with pytest.raises(ValueError, match="3 of 3"):
        records.prepare(nothing, tmp_path / "r", image_size=8, max_bad_share=1.0, progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": []}, "the source is empty"),
        ({"image_size": 0}, "image_size is 0"),
        ({"max_bad_share": 1.5}, r"max_bad_share is 1.5"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_arguments_out_of_range(tmp_path, numbered_examples, arguments, message):
    arguments = {"source": numbered_examples(2), "image_size": 8, **arguments}
    with pytest.raises(ValueError, match=message):
        records.prepare(directory=tmp_path / "r", progress=False, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_preparation_leaves_nothing_that_looks_complete(tmp_path, numbered_examples):
    program = f"""
import sys, time, numpy as np
from fetalclip_jax.data import records
from fetalclip_jax.data.example import Example
class Slow(list):
    description = {{"kind": "slow"}}
    def __getitem__(self, index):
        print(index, file=sys.stderr, flush=True)
        time.sleep(20 * (index == 2))
        return super().__getitem__(index)
items = [Example(str(i), np.zeros((4, 4), np.uint8)) for i in range(4)]
records.prepare(Slow(items), {str(tmp_path / "r")!r}, image_size=4, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    while process.stderr.readline().strip() != "2":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "r").exists()
    assert [x.name.startswith(".r.incomplete-") for x in tmp_path.iterdir()] == [True]
    dataset = records.prepare(numbered_examples(3), tmp_path / "r", image_size=8, progress=False)
    assert len(dataset) == 3
    assert [x.name for x in tmp_path.iterdir()] == ["r"]


def test_work_in_progress_of_other_processes_is_left_alone(tmp_path, numbered_examples):
    running = tmp_path / f".r.incomplete-{socket.gethostname()}-{os.getpid()}-abc"
    elsewhere = tmp_path / ".r.incomplete-another-host-1-abc"
    for folder in (running, elsewhere):
        folder.mkdir()
    records.prepare(numbered_examples(2), tmp_path / "r", image_size=8, progress=False)
    assert running.is_dir()
    assert elsewhere.is_dir()


def test_opening_what_is_not_records(tmp_path, numbered_examples):
    with pytest.raises(ValueError, match="holds no prepared records"):
        records.RecordDataset(tmp_path / "nowhere")
    dataset = records.prepare(numbered_examples(2), tmp_path / "r", image_size=8, progress=False)
    (tmp_path / "r" / "records.json").write_text("{")
    with pytest.raises(ValueError, match=r"records.json is damaged"):
        records.RecordDataset(dataset.directory)


def test_a_data_set_travels_to_workers_by_its_path(tmp_path, numbered_examples):
    dataset = records.prepare(numbered_examples(2), tmp_path / "r", image_size=8, progress=False)
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[1].example_id == "example-1"
    assert copy.fingerprint == dataset.fingerprint
    assert json.loads((tmp_path / "r" / "records.json").read_text())["num_bad_examples"] == 0


def test_tfds_and_progress_stay_off_stdout(tmp_path, numbered_examples, capfd):
    records.prepare(numbered_examples(2), tmp_path / "r", image_size=8, name="phantom train")
    output, errors = capfd.readouterr()
    assert output == ""
    assert "preparing phantom_train: 100%" in errors
    assert "Generating" not in errors
    assert "Shuffling" not in errors


def test_records_lie_in_any_number_of_files(tmp_path):
    files = []
    for number, count in enumerate((3, 1, 4)):
        path = tmp_path / f"{number}.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for place in range(count):
            writer.write(f"{number}-{place}".encode())
        writer.close()
        files.append((path, count))
    found = ArrayRecords(files)
    texts = [found[index].decode() for index in range(len(found))]
    assert texts == ["0-0", "0-1", "0-2", "1-0", "2-0", "2-1", "2-2", "2-3"]
    for index in (-1, 8):
        with pytest.raises(IndexError, match=f"record {index} of 8"):
            found[index]


def test_a_damaged_record_is_named(tmp_path, numbered_examples):
    dataset = records.prepare(numbered_examples(6), tmp_path / "r", image_size=64, progress=False)
    assert len(dataset.without_masks([0, 5])) == 2
    (path,) = (tmp_path / "r").glob("*.array_record*")
    content = bytearray(path.read_bytes())
    content[400:600] = bytes(200)
    path.write_bytes(bytes(content))
    damaged = records.RecordDataset(tmp_path / "r")
    with pytest.raises(ValueError, match=r"r: record \d of 6 cannot be read \(.*prepare") as error:
        damaged.without_masks(range(6))
    assert "\n" not in str(error.value)
