import contextlib
import csv
import pathlib
import re

import pytest

from fetalclip_jax import storage
from fetalclip_jax.storage import transfer


def test_a_file_comes_back_as_it_was_written(bucket):
    folder, _ = bucket
    path = folder / "a" / "b.txt"
    assert not path.exists()
    assert not path.is_file()
    path.write_text("grüße")
    assert path.read_text() == "grüße"
    assert path.is_file()
    assert not path.is_dir()
    assert path.parent.is_dir()
    assert path.stat().st_size == 7
    assert [p.name for p in folder.iterdir()] == ["a"]
    path.unlink()
    path.unlink(missing_ok=True)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        path.read_bytes()


def test_every_byte_arrives(bucket, tmp_path):
    folder, _ = bucket
    for content in (b"", b"\r", b"\r\n", b"a\n", b"\n--==0==--\r", bytes(range(256))):
        (folder / "x").write_bytes(content)
        (tmp_path / "x").write_bytes(content)
        (folder / "y").upload_from(tmp_path / "x")
        assert (folder / "x").read_bytes() == (folder / "y").read_bytes() == content


def test_an_open_file_appears_when_it_is_closed_whole(bucket):
    folder, _ = bucket
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["a", "b"])
        assert not path.exists()
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(["c"])
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["c"]]
    with contextlib.suppress(RuntimeError), path.open("w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "a,b\r\nc\r\n"


def test_patterns_find_what_they_find_on_a_disk(bucket, tmp_path):
    folder, _ = bucket
    names = ["a.json", "x/b.json", "x/y/c.json", "x/y/d.txt", "12/params/f"]
    for root in (folder, tmp_path / "disk"):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"1")
    for pattern in ("*", "*.json", "*/*.json", "*/**/*", "*/*/f"):
        there, here = (
            {p.relative_to(root).as_posix() for p in root.glob(pattern)}
            for root in (folder, tmp_path / "disk")
        )
        # A folder is itself among what "**" finds in it, on a disk of Python 3.11 and 3.12.
        assert there == here
    assert {p.name for p in folder.rglob("*.json")} == {"a.json", "b.json", "c.json"}


def test_a_folder_is_renamed_and_deleted_whole(bucket):
    folder, _ = bucket
    for name in ("old/1", "old/deep/2", "older/3"):
        (folder / name).write_text(name)
    (folder / "old").rename(folder / "new")
    assert set((folder / "new").listing()) == {"1", "deep/2"}
    assert (folder / "new/deep/2").read_text() == "old/deep/2"
    assert {p.name for p in folder.iterdir()} == {"new", "older"}
    (folder / "new").rmtree()
    (folder / "new").rmtree(missing_ok=True)
    assert [p.name for p in folder.iterdir()] == ["older"]


def test_a_copy_is_made_once_and_anew_when_its_object_changes(bucket, tmp_path):
    folder, _ = bucket
    (folder / "set/a").write_text("one")
    (folder / "set/deep/b").write_text("two")
    first = storage.local_copy(folder / "set")
    assert (first / "deep/b").read_text() == "two"
    assert storage.local_copy(folder / "set") == first
    (folder / "set/a").write_text("six")
    second = storage.local_copy(folder / "set")
    assert second != first
    assert (second / "a").read_text() == "six"
    assert storage.local_copy(folder / "set/a").read_text() == "six"
    with pytest.raises(FileNotFoundError):
        storage.local_copy(folder / "none")


def test_what_changes_while_it_is_copied_is_not_kept_as_what_it_was(bucket, monkeypatch):
    folder, _ = bucket
    (folder / "set/a").write_text("one")
    download = transfer.download

    def overwritten(path, target):
        (folder / "set/a").write_text("two")
        download(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(transfer, "download", overwritten)
        with pytest.raises(ValueError, match="set changed while it was copied; try again"):
            storage.local_copy(folder / "set")
    (folder / "set/a").write_text("one")
    assert (storage.local_copy(folder / "set") / "a").read_text() == "one"


def test_what_fails_now_and_then_loses_nothing(bucket, tmp_path):
    folder, proxy = bucket
    proxy.every = 4
    failed = proxy.failed
    for number in range(4):
        (folder / str(number)).write_bytes(bytes([number]) * 1000)
    copy = storage.local_copy(folder)
    assert [(copy / str(n)).read_bytes() for n in range(4)] == [bytes([n]) * 1000 for n in range(4)]
    assert proxy.failed > failed


# The emulator of the other service knows no preconditions.
@pytest.mark.parametrize("emulator", ["amazon"], indirect=True)
def test_one_writer_alone_creates_an_object(bucket):
    folder, _ = bucket
    (folder / "lease").create(b"mine")
    with pytest.raises(FileExistsError):
        (folder / "lease").create(b"yours")
    assert (folder / "lease").read_bytes() == b"mine"


def test_a_bucket_that_does_not_exist_is_named(bucket):
    folder, _ = bucket
    scheme = str(folder).partition(":")[0]
    with pytest.raises(storage.BucketError, match=rf"^{scheme}://nowhere does not exist \(to wri"):
        storage.path(f"{scheme}://nowhere/run/config.json").write_text("x")


def test_a_bucket_that_refuses_is_named_with_what_was_tried_and_the_fix(bucket):
    folder, proxy = bucket
    proxy.refuses = True
    name = re.escape(str(folder.parent))
    path = folder / "config.json"
    for action, what in ((path.exists, "look at"), (lambda: path.write_text("x"), "write")):
        with pytest.raises(
            storage.BucketError, match=rf"^{name} refuses to {what} {path} \(.*\): (sign|give) .*"
        ) as refused:
            action()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["gs:/bucket/x", "s3://", "az://bucket/x", "HTTP://host/x"])
def test_an_address_that_is_no_bucket_is_refused(name):
    with pytest.raises(ValueError, match=rf"^{name}"):
        storage.path(name)


def test_paths_on_disks_stay_what_they_were():
    for name in ("a/b", "/a/b/", "", "c:d", "odd:/name", "~x"):
        assert storage.path(name) == pathlib.Path(name)
    assert type(storage.path("a")) is type(pathlib.Path("a"))
    path = storage.path("gs://bucket/a//b/")
    assert str(path / "d" / "e.txt") == "gs://bucket/a/b/d/e.txt"
    assert storage.path(path) == path
    assert str(storage.path("GS://Bucket/A")) == "gs://Bucket/A"
    assert str(path.with_name("x").parent) == "gs://bucket/a"


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(ValueError, match=r"pip install 'fetalclip_jax\[gcs\]'"):
        storage.path("gs://bucket/x").exists()
