"""Runs and what is made of them, in buckets."""

import json
import os
import socket
import threading
import time

import cv2
import numpy as np
import pytest

from fetalclip_jax import cli, storage
from fetalclip_jax.data import records
from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.run import RECORDED, Run, whole_folder
from fetalclip_jax.storage import lease
from fetalclip_jax.training import checkpoint, integrity, metrics
from fetalclip_jax.training.loop import train
from fetalclip_jax.weights import safetensors_file
from tests.tiny import tiny_experiment
from tests.training import test_checkpoint as disk


def test_checkpoints_come_back_and_old_ones_go(bucket):
    folder, proxy = bucket
    proxy.every, failed = 60, proxy.failed
    disk.write(folder, ema=True, keep=1)
    assert checkpoint.latest_step(folder) == 8
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["8"]
    state, seconds = disk.resume(folder, ema=True)
    assert disk.equal(state, disk.make_state(8, ema=True))
    assert seconds == 8.0
    params = checkpoint.restore_params(folder, disk.abstract().params)
    assert disk.equal(params, disk.make_state(8, ema=True).ema)
    assert proxy.failed > failed


@pytest.fixture
def copied(bucket, tmp_path):
    """A run on a disk with checkpoints at steps 4 and 8, copied into a bucket."""
    folder, _ = bucket
    on_disk = disk.write(tmp_path / "run")
    for step in on_disk.iterdir():
        storage.upload(step, folder / "checkpoints" / step.name, RECORDED)
    return folder


def test_a_run_that_was_copied_there_goes_on(copied):
    half = copied / "checkpoints" / "12" / "params" / "d"
    half.write_bytes(b"of a process that was killed")
    assert checkpoint.latest_step(copied) == 8
    params = checkpoint.restore_params(copied, disk.abstract().params)
    assert disk.equal(params, disk.make_state(8).params)
    state, _ = disk.resume(copied)
    assert disk.equal(state, disk.make_state(8))
    assert not half.exists()


def test_a_run_that_was_copied_from_there_goes_on(bucket, tmp_path):
    folder, _ = bucket
    disk.write(folder, steps=(4,))
    for name in folder.listing():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).download_to(tmp_path / "run" / name)
    state, _ = disk.resume(tmp_path / "run")
    assert disk.equal(state, disk.make_state(4))


def test_parameters_from_elsewhere_are_kept_there(bucket):
    folder, _ = bucket
    checkpoint.save_params(folder, disk.make_state(3).params)
    assert checkpoint.latest_step(folder) == 0
    params = checkpoint.restore_params(folder, disk.abstract().params)
    assert disk.equal(params, disk.make_state(3).params)


def test_a_damaged_checkpoint_is_renamed_and_the_one_before_it_used(copied, capsys):
    largest = max((copied / "checkpoints/8/params").listing().items(), key=lambda item: item[1])
    (copied / "checkpoints/8/params" / largest[0]).write_bytes(b"1")
    state, _ = disk.resume(copied)
    assert disk.equal(state, disk.make_state(4))
    assert f"{copied}/checkpoints/8 is damaged" in capsys.readouterr().out
    names = {path.name for path in (copied / "checkpoints").iterdir()}
    assert names == {"4", "8.damaged"}


@pytest.mark.parametrize("emulator", ["google"], indirect=True)
def test_a_bucket_out_of_reach_is_not_taken_for_damage(copied, monkeypatch):
    def out_of_reach(*_):
        raise ValueError("UNAVAILABLE: HTTP 503 while reading manifest.ocdbt")

    # Of s3:// a copy is read.
    monkeypatch.setattr(checkpoint.Checkpointer, "_restore", out_of_reach)
    with pytest.raises(ValueError, match="nothing is wrong with it: run the same command again"):
        disk.resume(copied)
    assert Run(copied).steps() == [4, 8]


class Killed(BaseException):
    """Ends a run where nothing expects it."""


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    return train(tiny_experiment(), tmp_path_factory.mktemp("run"))


# benchmarks/bucket_drill.py does it by SIGKILL, for s3:// too, and evaluates and reports.
@pytest.mark.parametrize("emulator", ["google"], indirect=True)
def test_a_run_that_is_killed_in_a_bucket_that_fails_ends_as_one_on_a_disk(
    bucket, on_disk, monkeypatch
):
    folder, proxy = bucket
    proxy.every, failed = 70, proxy.failed
    write = metrics.MetricsWriter.write

    def killed(self, step, values):
        write(self, step, values)
        if step == 10:
            raise Killed

    monkeypatch.setattr(metrics.MetricsWriter, "write", killed)
    with pytest.raises(Killed):
        train(tiny_experiment(), folder)
    monkeypatch.setattr(metrics.MetricsWriter, "write", write)
    assert checkpoint.latest_step(folder) == 8
    final = train(tiny_experiment(), folder)
    assert disk.equal(final.params, on_disk.params)
    assert disk.equal(final.opt_state, on_disk.opt_state)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10, 12]
    assert len(list((folder / "tensorboard").glob("events.out.tfevents*"))) == 2
    assert json.loads((folder / "heartbeats/0.json").read_text())["phase"] == "stopped"
    assert proxy.failed > failed


def test_a_bucket_without_permission_ends_a_command_as_one_line(bucket, capsys):
    folder, proxy = bucket
    proxy.refuses = True
    config = "configs/phantom_quickstart.py"
    assert cli.main(["train", "--config", config, "--workdir", str(folder)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{folder.parent} refuses to " in said
    assert "or name another bucket" in said


def test_records_features_and_weights_are_kept_in_buckets(bucket):
    folder, _ = bucket
    store = FeatureStore(
        image_features=np.eye(3, dtype=np.float32),
        columns={"example_id": np.array(["a", "b", "c"])},
        raw_pixels=np.zeros((3, 4), np.uint8),
        copy=np.zeros(3, int),
        fingerprint={"model": "m"},
    )
    store.save(folder / "features")
    again = FeatureStore.load(folder / "features")
    assert np.array_equal(again.image_features, store.image_features)
    with pytest.raises(ValueError, match="is there already"):
        store.save(folder / "features")

    safetensors_file.save(folder / "w.safetensors", {"x": np.arange(3.0)})
    copy = storage.local_copy(folder / "w.safetensors")
    assert safetensors_file.open_tensors(copy)["x"].read().tolist() == [0, 1, 2]

    pixels = np.full((8, 9), 7, np.uint8)
    (folder / "images/deep/a.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    source = registry.open_source("image_text", str(folder / "images"), "all")
    assert source[0].example_id == "deep/a.png"
    assert np.array_equal(source[0].image, pixels)


def test_a_folder_without_its_last_file_is_not_there(bucket):
    folder, _ = bucket
    with whole_folder(folder / "t", "last.json") as partial:
        (partial / "first").write_text("1")
        (partial / "last.json").write_text("{}")
        assert not (folder / "t").exists()
    assert set((folder / "t").listing()) == {"first", "last.json"}


def hold(path, monkeypatch, **other):
    """A lease in another process's name, by default that of the process that started this one."""
    monkeypatch.setattr(lease, "_POLL_S", 0.05)
    monkeypatch.setattr(lease, "_SETTLES_S", 0.05)
    content = {
        "token": "x",
        "process": os.getppid(),
        "started": lease._started(os.getppid()),
        "host": socket.gethostname(),
        "system": lease._system(),
        "time": time.time(),
    }
    path.write_bytes(json.dumps(content | other).encode())


def test_a_folder_in_use_is_refused_and_a_dead_holder_followed(bucket, monkeypatch, capsys):
    path = bucket[0] / ".lock"
    hold(path, monkeypatch)
    with pytest.raises(ValueError, match=rf"is in use by process {os.getppid()} on "):
        lease.Lease(path)
    # Of this host it is known at once that it is dead; of another after a while.
    for dead in ({"process": 2**22 + 1}, {"process": os.getpid()}, {"started": "1"}):
        hold(path, monkeypatch, **dead)
        lease.Lease(path).release()
        assert not path.exists()
    assert not capsys.readouterr().out
    monkeypatch.setattr(lease, "_LASTS_S", 1.0)
    hold(path, monkeypatch, host="elsewhere")
    lease.Lease(path).release()
    assert "for a sign that it still is" in capsys.readouterr().out
    assert not path.exists()


def test_a_slow_first_look_is_no_watching(bucket, monkeypatch, capsys):
    path = bucket[0] / ".lock"
    hold(path, monkeypatch, host="elsewhere", time=time.time() + 60)
    monkeypatch.setattr(lease, "_LASTS_S", 0.3)
    look = lease.Lease._holder

    def slow(self):
        time.sleep(0.4)
        return look(self)

    monkeypatch.setattr(lease.Lease, "_holder", slow)
    lease.Lease(path).release()
    assert "for a sign that it still is" in capsys.readouterr().out


def test_a_holder_elsewhere_that_renews_its_lease_is_alive(bucket, monkeypatch):
    path = bucket[0] / ".lock"
    hold(path, monkeypatch, host="elsewhere")
    threading.Timer(0.3, lambda: hold(path, monkeypatch, host="elsewhere", renewed=1)).start()
    with pytest.raises(ValueError, match=r"is in use by process \d+ on elsewhere"):
        lease.Lease(path)


def test_the_number_of_a_process_in_another_container_says_nothing(bucket, monkeypatch, capsys):
    path = bucket[0] / ".lock"
    monkeypatch.setattr(lease, "_LASTS_S", 0.5)
    hold(path, monkeypatch, system="another", process=os.getpid())
    lease.Lease(path).release()
    assert "for a sign that it still is" in capsys.readouterr().out


def test_what_is_no_lease_is_replaced(bucket, monkeypatch):
    path = bucket[0] / ".lock"
    hold(path, monkeypatch)
    path.write_text("garbage")
    held = lease.Lease(path)
    assert json.loads(path.read_text())["process"] == os.getpid()
    held.release()


@pytest.mark.parametrize("conditions", [True, False])
def test_of_two_that_find_a_dead_holder_one_takes_its_place(conditions, monkeypatch):
    monkeypatch.setattr(lease, "_SETTLES_S", 0.5)
    both_read, readers = threading.Barrier(2), []
    objects = [b'{"token": "dead", "time": 0}']

    class Object(storage.BucketPath):
        """One of a service that knows conditions, or does not."""

        def version(self):
            return str(len(objects))

        def read_bytes(self):
            content = objects[-1]
            if len(readers) < 2:
                readers.append(self)
                both_read.wait()
            return content

        def replace_version(self, data, version):
            if conditions and version != self.version():
                raise FileExistsError
            objects.append(data)

        def create(self, data):
            objects.append(data)

    held, refused = [], []

    def take():
        try:
            held.append(lease.Lease(Object("gs://bucket/run/.lock")))
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held[0]._over.set()
    assert (len(held), len(refused)) == (1, 1)
    assert "gs://bucket/run is in use by process" in refused[0]


# The emulator of the other service knows no preconditions.
@pytest.mark.parametrize("emulator", ["amazon"], indirect=True)
def test_a_lease_replaces_what_was_read_and_nothing_else(bucket, monkeypatch):
    path = bucket[0] / ".lock"
    hold(path, monkeypatch)
    version = path.version()
    path.replace_version(b"mine", version)
    with pytest.raises(FileExistsError):
        path.replace_version(b"yours", version)
    assert path.read_bytes() == b"mine"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        path.replace_version(b"yours", version)


def test_google_is_asked_to_replace_what_was_read_alone(monkeypatch):
    asked = []

    class Files:
        base = "https://host/storage/v1/"

        def info(self, path):
            return {"name": path, "type": "file", "size": 1, "generation": "17"}

        def call(self, *_, **options):
            asked.append(options["ifGenerationMatch"])

    monkeypatch.setattr(storage.BucketPath, "filesystem", lambda self: Files())
    path = storage.path("gs://bucket/run/.lock")
    path.replace_version(b"mine", path.version())
    path.create(b"mine")
    assert asked == ["17", "0"]


def copy_there(folder, target):
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).upload_from(path)


@pytest.mark.parametrize("alone", [True, False], ids=["parameters", "run"])
def test_a_whole_checkpoint_of_which_nothing_was_recorded_stays(bucket, tmp_path, alone):
    folder, _ = bucket
    if alone:
        checkpoint.save_params(tmp_path / "run", disk.make_state(4).params)
    else:
        disk.write(tmp_path / "run", steps=(4,))
    step = checkpoint.latest_step(tmp_path / "run")
    (tmp_path / "run/checkpoints" / str(step) / RECORDED).unlink()  # as of an earlier version
    copy_there(tmp_path / "run", folder)
    (folder / "checkpoints/12/params/commit_success.txt").touch()
    (folder / "checkpoints/12/data/metadata").write_text("of a process that was killed")
    checkpoint.Checkpointer(folder).close()
    assert Run(folder).steps() == [step]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [str(step)]
    params = checkpoint.restore_params(folder, disk.abstract().params)
    assert disk.equal(params, disk.make_state(4).params)


def test_a_copy_from_another_service_is_not_taken_for_damaged(bucket):
    folder, _ = bucket
    (folder / "4/params/x").write_text("x")
    integrity.record(folder / "4")
    recorded = json.loads((folder / "4" / RECORDED).read_text())
    assert integrity.damage(folder / "4") is None
    here = recorded["params/x"][1].partition(":")[0]
    for kind, found in (("crc32c", here == "crc32c"), ("etag", False)):
        content = json.dumps({"params/x": [1, f"{kind}:AAAAAA=="]})
        (folder / "4" / RECORDED).write_text(content)
        assert (integrity.damage(folder / "4") is not None) == found


def test_records_replace_nothing_but_records(bucket, monkeypatch, numbered_examples):
    folder, _ = bucket
    source = numbered_examples(2)
    mine = folder / "mine"
    names = {"dataset_info.json", "features.json", "mine-train.array_record-00000-of-00001"}
    for name in names:
        (mine / name).write_text("mine")
    with pytest.raises(ValueError, match="it holds no prepared records"):
        records.prepare(source, mine, image_size=16)
    assert set(mine.listing()) == names

    # An upload that was killed is begun again.
    def killed(path, target, last):
        (target / "metadata.npz").write_text("half")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(storage, "upload", killed)
        with pytest.raises(Killed):
            records.prepare(source, folder / "ours", image_size=16)
    assert len(records.prepare(source, folder / "ours", image_size=16)) == 2
    assert not any("uploading" in name for name in (folder / "ours").listing())
