"""`fetalclip explain` on a folder and on a file."""

import csv

import numpy as np
import PIL.Image
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("scans")
    (root / "monday").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "monday/b.png"):
        PIL.Image.fromarray(rng.integers(0, 256, (40, 60), np.uint8)).save(root / name)
    (root / "torn.png").write_bytes(b"torn")
    return root


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_folder_gives_a_table_and_a_picture_of_each_image(trained, run, folder, tmp_path):
    command = ["explain", "--model", trained, folder, "--output", tmp_path / "maps"]
    printed, error, status = run(*command, "--batch-size=2")
    assert status == 0, error
    assert "left out: torn.png" in printed
    found = rows(tmp_path / "maps" / "explanation.csv")
    assert [row["image"] for row in found] == ["a.png", "monday/b.png"]
    for row in found:
        assert row["class"] == row["answer"]
        assert row["x"] == "" or 0 <= int(row["x"]) < 32
        with PIL.Image.open(tmp_path / "maps" / row["image"]) as picture:
            assert picture.width > 1.5 * picture.height
    # Nothing is written over.
    _, error, status = run(*command)
    assert status == 2
    assert "holds maps already; choose another --output" in error


def test_one_file_and_one_class(trained, run, folder, tmp_path):
    command = ["explain", "--model", trained, "--class=femur", "--method=grad_cam", "--block=1"]
    _, error, status = run(
        *command, "--batch-size=2", folder / "a.png", "--output", tmp_path / "maps"
    )
    assert status == 0, error
    (row,) = rows(tmp_path / "maps" / "explanation.csv")
    assert (row["image"], row["class"]) == ("a.png", "femur")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class=liver", "--model=no/model"], "the prompts have no class 'liver', only abdomen"),
        (["--class=liver"], "the prompts have no class 'liver', only abdomen, brain"),
        (["--block=3"], "block=3 is the last of 3, of which this model reads the class token"),
        (["--block=9"], "block=9 is no block whose patches can be asked"),
        (["--batch-size=0"], "--batch-size 0 must be at least 1"),
        (["--prompts=nowhere.json"], "cannot read prompts file nowhere.json"),
    ],
)
def test_slips_are_one_line(trained, run, folder, tmp_path, options, message):
    _, error, status = run(
        "explain", "--model", trained, folder / "a.png", "--output", tmp_path / "maps", *options
    )
    assert status == 2
    assert message in error
    assert not (tmp_path / "maps").exists()
