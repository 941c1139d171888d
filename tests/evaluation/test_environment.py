"""What a result says of the software and hardware it was made with."""

import datetime
import json
import subprocess

import jax
import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax.evaluation import environment


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_versions_devices_and_day():
    found = environment.describe()
    json.dumps(found, allow_nan=False)
    assert found["packages"]["jax"] == jax.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["fetalclip_jax"] == fetalclip_jax.__version__
    assert found["backend"] == jax.default_backend()
    assert sum(found["devices"].values()) == len(jax.devices())
    assert found["cores"] >= 1
    assert found["memory_gib"] is None or found["memory_gib"] > 0
    day = datetime.date.fromisoformat(found["date"])
    assert abs((datetime.datetime.now(datetime.UTC).date() - day).days) <= 1


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert environment._commit(checkout) == head
    (checkout / "notes.txt").write_text("beside the code")
    assert environment._commit(checkout) == head
    (checkout / "a.py").write_text("2")
    assert environment._commit(checkout) == head + "+"


def test_a_folder_inside_a_checkout_of_something_else_has_no_commit(checkout):
    (checkout / "site-packages").mkdir()
    assert environment._commit(checkout / "site-packages") is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment._commit(checkout) is None


def test_the_processor_has_the_name_its_maker_gave_it(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name : other\n")
    assert environment._processor(path) == "Some CPU @ 2 GHz"
    assert environment._processor(tmp_path / "none") != ""
