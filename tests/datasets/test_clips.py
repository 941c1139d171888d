"""Clips of every kind of file, with a table."""

import cv2
import numpy as np
import PIL.Image
import pytest

from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets import clip_files, registry


def pictures(count, size=(24, 32)):
    """Frames of which every one is brighter than the one before."""
    return [np.full(size, 20 * k + 10, np.uint8) for k in range(count)]


def write_folder(path, frames):
    path.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        PIL.Image.fromarray(frame).save(path / f"frame{number}.png")


def write_video(path, frames, codec="MJPG"):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (width, height))
    for frame in frames:
        writer.write(frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, -1))
    writer.release()


def write_pages(path, frames):
    first, *others = [PIL.Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others)


def opened(root, split="all", **options):
    return registry.open_source("clips", root, split, options=options)


@pytest.fixture
def one_clip(tmp_path):
    """Makes a data set whose only clip is `name`, written by `write(path)`; returns its source."""

    def make(name, write):
        write(tmp_path / name)
        (tmp_path / "clips.csv").write_text(f"clip,label\n{name},normal\n")
        return opened(tmp_path)

    return make


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("c", write_folder),
        ("c.npy", lambda path, frames: np.save(path, np.stack(frames))),
        ("c.npz", lambda path, frames: np.savez_compressed(path, clip=np.stack(frames))),
        ("c.tif", write_pages),
        ("c.avi", write_video),
        ("c.mp4", lambda path, frames: write_video(path, frames, "mp4v")),
    ],
)
def test_every_kind_of_file_gives_its_frames_in_order(one_clip, name, write):
    frames = pictures(12)
    example = one_clip(name, lambda path: write(path, frames))[0]
    assert len(example.frames) == 12
    # Out of order, too: videos are read forwards.
    for number in (0, 5, 11, 2, 2, 10):
        found = example.frames[number]
        assert found.shape[:2] == (24, 32)
        assert found.dtype == np.uint8
        assert (
            abs(found.astype(float) - frames[number].reshape(24, 32, *[1] * (found.ndim - 2))).max()
            < 6
        )
    assert abs(example.image.astype(float).mean() - frames[6].mean()) < 6
    with pytest.raises(IndexError, match="frame 12 of 12"):
        example.frames[12]


def test_colours_of_a_video_are_red_green_blue(one_clip):
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 2] = 250  # OpenCV writes blue first
    example = one_clip("c.avi", lambda path: write_video(path, [red] * 3))[0]
    assert example.frames[1][12, 16, 0] > 200
    assert example.frames[1][12, 16, 2] < 60


def test_frames_are_in_the_order_of_their_numbers():
    names = ["f10.png", "f9.png", "notes.txt", "F1.PNG", ".f2.png", "f100.jpg"]
    assert clip_files.frame_names(names) == ["F1.PNG", "f9.png", "f10.png", "f100.jpg"]


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("c", lambda path: path.mkdir(), "the folder c holds no frame"),
        ("c.npy", lambda path: np.save(path, np.zeros((0, 8, 8), np.uint8)), r"\[0, 8, 8\]; "),
        ("c.npy", lambda path: np.save(path, np.zeros((3, 8, 8))), r"float64 \[3, 8, 8\]; give"),
        ("c.npy", lambda path: np.save(path, np.zeros((3, 8, 8, 4), np.uint8)), r"\[3, 8, 8, 4\]"),
        ("c.npy", lambda path: path.write_bytes(b"no array"), "cannot read c.npy"),
        ("c.npz", lambda path: np.savez(path, a=np.zeros(1), b=np.zeros(1)), "it holds 2 arrays"),
        ("c.avi", lambda path: path.write_bytes(b"no video"), "c.avi is no video that can be"),
        ("c.avi", lambda path: path.write_bytes(b""), "c.avi is no video that can be decoded here"),
        ("c.gif", lambda path: path.write_bytes(b"GIF89a"), "cannot decode c.gif"),
    ],
)  # fmt: skip
def test_what_is_no_clip_is_a_bad_example_that_says_why(one_clip, name, write, reason):
    with pytest.raises(BadExampleError, match=reason) as refused:
        one_clip(name, write)[0]
    assert refused.value.example_id == name
    assert refused.value.reason.endswith("(clips.csv line 2)")


def test_a_video_that_is_cut_off_is_not_taken_for_a_short_one(one_clip, tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64), dtype=np.uint8) for _ in range(40)]
    write_video(tmp_path / "whole.avi", noise)
    content = (tmp_path / "whole.avi").read_bytes()
    source = one_clip("c.avi", lambda path: path.write_bytes(content[: len(content) // 2]))
    with pytest.raises(BadExampleError, match=r"can(not)? be decoded"):
        source[0]


def test_frames_of_two_sizes_are_refused(one_clip):
    frames = [*pictures(2), np.zeros((24, 30), np.uint8)]
    example = one_clip("c", lambda path: write_folder(path, frames))[0]  # the middle one is fine
    with pytest.raises(BadExampleError, match="frame 2 is 30 x 24 pixels and frame 1 is 32 x 24"):
        example.frames[2]


def table_of(root, rows, header="clip,label,patient_id,split"):
    (root / "clips.csv").write_text("\n".join([header, *rows]) + "\n")


def write_arrays(root, count):
    for number in range(count):
        np.save(root / f"{number}.npy", np.full((2, 8, 8), number, np.uint8))


def test_the_table_says_what_is_known(tmp_path):
    write_arrays(tmp_path, 2)
    header = "Datei;diagnosis;patient_id;ga_weeks;machine"
    rows = ["0.npy;normal;p1;20+3;A", "1.npy;VSD;p2;;B"]
    table_of(tmp_path, rows, header)
    source = opened(tmp_path, columns={"clip": "Datei", "label": "diagnosis"})
    first, second = source[0], source[1]
    assert (first.label, first.patient_id, first.ga_days) == ("normal", "p1", 143)
    assert (second.label, second.ga_days, second.extra) == ("VSD", None, {"machine": "B"})
    assert (second.frames[1] == 1).all()
    assert source.facts.group_columns == ("machine",)
    assert set(source.files) == {"0.npy", "1.npy"}
    assert source.metadata()["label"].tolist() == ["normal", "VSD"]
    with pytest.raises(ValueError, match="no column 'finding'; its header is"):
        opened(tmp_path, columns={"clip": "Datei", "label": "finding"})
    with pytest.raises(
        ValueError, match=r"no column 'clip'; its header is .*clips's option columns"
    ):
        opened(tmp_path)


def test_splits_are_those_of_the_column(tmp_path):
    write_arrays(tmp_path, 5)
    rows = ["0.npy,normal,a,train", "1.npy,x,b,train", "2.npy,x,c,val", "3.npy,normal,d,test",
            "4.npy,x,b,train"]  # fmt: skip
    table_of(tmp_path, rows)
    ids = {
        split: [source[i].example_id for i in range(len(source))]
        for split in ("train", "validation", "fit", "test", "all")
        if (source := opened(tmp_path, split))
    }
    assert ids["train"] == ["0.npy", "1.npy", "4.npy"]
    assert ids["fit"] == ["0.npy", "1.npy", "2.npy", "4.npy"]
    assert (ids["validation"], ids["test"], len(ids["all"])) == (["2.npy"], ["3.npy"], 5)
    table_of(tmp_path, [*rows[:4], "4.npy,x,B,test"])
    with pytest.raises(ValueError, match=r"patient 'b' .*is in (test|train) and in (test|train)"):
        opened(tmp_path)


def test_else_patients_are_held_out_by_a_hash(tmp_path):
    write_arrays(tmp_path, 20)
    table_of(tmp_path, [f"{k}.npy,normal,p{k // 2}" for k in range(20)], "clip,label,patient_id")
    sizes = {name: len(opened(tmp_path, name)) for name in ("train", "validation", "fit", "test")}
    assert sizes == {"train": 14, "validation": 2, "fit": 16, "test": 4}
    seen = [opened(tmp_path, name).metadata()["patient_id"].tolist() for name in ("fit", "test")]
    assert not set(seen[0]) & set(seen[1])
    whole = opened(tmp_path, "fit", test_share=0.0)
    assert len(whole) == 20
    assert "test" not in whole.facts.roles
    with pytest.raises(
        ValueError, match="no clip in a split 'test'; it has train, validation, fit, all"
    ):
        opened(tmp_path, "test", test_share=0.0)
    for shares, message in (
        ({"test_share": 1.5}, r"test_share is 1.5; use a share between"),
        ({"test_share": 0.6, "validation_share": 0.4}, "add up to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            opened(tmp_path, **shares)


def test_missing_files_are_counted_and_empty_folders_are_not_missing(tmp_path, capsys):
    write_arrays(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    rows = ["0.npy,normal,a,train", "gone.avi,x,b,train", "1.npy,x,c,train", "empty,x,d,train"]
    table_of(tmp_path, rows)
    source = opened(tmp_path)
    assert source.missing == ("gone.avi",)
    assert len(source) == 3
    assert "1 of the 4 clips it lists are not in" in capsys.readouterr().out
    with pytest.raises(BadExampleError, match="the folder empty holds no frame"):
        source[2]


def test_what_is_wrong_with_a_table_is_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"clips: .* has no table; its root must be a folder with a"
    ):
        opened(tmp_path)
    with pytest.raises(ValueError, match="gone does not exist; its root must be a folder with a"):
        opened(tmp_path / "gone")
    write_arrays(tmp_path, 1)
    table_of(tmp_path, ["a,0.npy,normal", "b,./0.npy,x"], "example_id,clip,label")
    with pytest.raises(
        ValueError, match=r"line 3: the clip '0.npy' is there already \(clips.csv lin"
    ):
        opened(tmp_path)
    table_of(tmp_path, ["../0.npy,normal"], "clip,label")
    with pytest.raises(
        ValueError, match=r"line 2: clip is '../0.npy'; give its path from the fold"
    ):
        opened(tmp_path)


def test_a_changed_file_is_another_data_set(tmp_path):
    write_folder(tmp_path / "c", pictures(3))
    (tmp_path / "clips.csv").write_text("clip,label\nc,normal\n")
    before = opened(tmp_path).description
    assert opened(tmp_path).description == before
    PIL.Image.fromarray(pictures(4)[3]).save(tmp_path / "c" / "frame4.png")
    assert opened(tmp_path).description != before
