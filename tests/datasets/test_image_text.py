"""Any folder of images: with a table in any dialect, or without one."""

import json
import os

import numpy as np
import PIL.Image
import pytest

from fetalclip_jax.data import records
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets import registry

EVERYTHING = (
    "image;caption;ga_days;pixel_spacing_mm;plane;brain_plane;hc_mm;patient_id;label;split;scanner\n"
    "a/1.png;Fetal head, 21 weeks;147;0,53;brain;trans-thalamic;175.5;p1;normal;train;Aloka\n"
    "a/2.png;;;;;;;p2;;Val;\n"
)


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with images of the given relative paths and a table of the given text."""

    def make(images, table=None, name="table.csv", encoding="utf-8"):
        root = tmp_path / "data"
        for number, image in enumerate(images):
            path = root / image
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.full((4, 8), number, np.uint8)).save(path)
        if table is not None:
            (root / name).write_bytes(table.encode(encoding))
        return root

    return make


def opened(root, split="all", seed=0, **options):
    return registry.open_source("image_text", root, split, options=options, seed=seed)


def examples(source):
    return [source[i] for i in range(len(source))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_field_is_read(folder, encoding):
    source = opened(folder(["a/1.png", "a/2.png"], EVERYTHING, encoding=encoding))
    first, second = examples(source)
    assert first.example_id == "a/1.png"
    assert (first.image == 0).all()
    assert first.caption == "Fetal head, 21 weeks"
    assert (first.ga_days, first.pixel_spacing_mm, first.hc_mm) == (147, 0.53, 175.5)
    assert (first.plane, first.brain_plane) == ("brain", "trans-thalamic")
    assert (first.patient_id, first.label) == ("p1", "normal")
    assert first.extra == {"scanner": "Aloka"}
    assert (second.caption, second.ga_days, second.plane, second.extra) == (None, None, None, {})
    facts = source.facts
    assert set(facts.columns) == {
        *("caption", "ga_days", "pixel_spacing_mm", "plane", "brain_plane", "hc_mm"),
        *("patient_id", "label", "scanner"),
    }
    assert facts.group_columns == ("scanner",)
    assert facts.ages_from == "recorded"
    assert not facts.simulated


def test_columns_may_have_other_names(folder):
    table = "file,Text,Age (weeks)\n1.png,Femur,20+3\n2.png,Spine,20w3d\n3.png,Lips,20.43\n"
    root = folder(["1.png", "2.png", "3.png"], table)
    columns = {"image": "file", "caption": "Text", "ga_weeks": "Age (weeks)"}
    found = examples(opened(root, columns=columns))
    assert [example.caption for example in found] == ["Femur", "Spine", "Lips"]
    assert [example.ga_days for example in found] == [143, 143, 143]
    with pytest.raises(ValueError, match=r"no column 'image'; its header is .'file', 'Text'"):
        opened(root)
    with pytest.raises(ValueError, match="no column 'path'"):
        opened(root, columns={"image": "path"})
    with pytest.raises(ValueError, match="a field 'age'; there are image, example_id, caption"):
        opened(root, columns={"image": "file", "age": "Age (weeks)"})


def test_json_lines(folder):
    lines = [{"image": "1.png", "caption": "Femur", "ga_days": 147}, {"image": "2.png"}]
    text = "\n".join(map(json.dumps, lines))
    found = examples(opened(folder(["1.png", "2.png"], text, "t.jsonl")))
    assert [(x.caption, x.ga_days) for x in found] == [("Femur", 147), (None, None)]


def test_groups_travel_into_records(folder, tmp_path):
    table = "image,site,width,plane\n1.png,A,wide,femur\n2.png,,,femur\n"
    source = opened(folder(["1.png", "2.png"], table))
    dataset = records.prepare(source, tmp_path / "r", image_size=8, progress=False)
    # "width" is the image's own in a record.
    assert dataset[0].extra == {"site": "A", "width_": "wide"}
    metadata = dataset.metadata()
    assert list(metadata["site"]) == ["A", ""]
    assert list(metadata["width_"]) == ["wide", ""]
    assert list(metadata["width"]) == [8, 8]


def test_patients_are_held_out_where_no_column_says_who(folder):
    names = [f"{i}.png" for i in range(40)]
    rows = "".join(f"{name},{i // 2:03d}\n" for i, name in enumerate(names))
    root = folder(names, f"image,patient_id\n{rows}")
    splits = {
        split: {example.patient_id for example in examples(opened(root, split))}
        for split in ("train", "validation", "test")
    }
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    assert len(set().union(*splits.values())) == 20
    other = {example.patient_id for example in examples(opened(root, "test", seed=1))}
    assert other != splits["test"]


def test_two_spellings_of_a_patient_are_one(folder):
    table = "image,patient_id\n1.png,005\n2.png,5\n3.png,6\n"
    found = examples(opened(folder(["1.png", "2.png", "3.png"], table)))
    assert [example.patient_id for example in found] == ["005", "005", "6"]


def test_a_patient_in_two_splits_is_refused(folder):
    table = "image,patient_id,split\n1.png,005,train\n2.png,5,test\n"
    with pytest.raises(ValueError, match="is in train and in test; give all images of a patient"):
        opened(folder(["1.png", "2.png"], table))


def test_validation_patients_are_held_out_where_the_split_column_has_none(folder, capsys):
    names = [f"{i}.png" for i in range(12)]
    rows = "".join(f"{name},p{i},{'train' if i < 10 else 'TEST'}\n" for i, name in enumerate(names))
    root = folder(names, f"image,patient_id,split\n{rows}")
    sizes = {x: len(opened(root, x)) for x in ("train", "validation", "test", "all")}
    assert sizes == {"train": 9, "validation": 1, "test": 2, "all": 12}
    assert (
        "table.csv has no validation rows; a tenth of its train patients" in capsys.readouterr().out
    )


def test_splits_that_are_not_there(folder):
    root = folder(["1.png", "2.png"], "image,split\n1.png,test\n2.png,test\n")
    with pytest.raises(ValueError, match=r"has no split 'train'; it has test, all"):
        opened(root, "train")
    assert opened(root).facts.roles == {"test": "test", "all": "all"}
    (root / "table.csv").write_text("image,split\n1.png,fold1\n")
    with pytest.raises(ValueError, match="line 2: split is 'fold1'; use train, validation, test"):
        opened(root)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("caption", "nan", "1.png: caption is 'nan'; leave it empty"),
        ("plane", "Fetal brain", "plane is 'Fetal brain'; use one of"),
        ("ga_days", "abc", "ga_days is 'abc', not a number"),
        ("ga_days", "nan", "ga_days is nan, not a finite number"),
        ("ga_weeks", "60", "ga_days is 420, outside 28 to 308"),
        ("ga_weeks", "inf", "ga_weeks is 'inf'; use weeks such as 20.5"),
        ("pixel_spacing_mm", "150", "looks like micrometres"),
        ("hc_mm", "17.5", "looks like centimetres"),
    ],
)
def test_a_bad_cell_names_its_line(folder, column, cell, message):
    root = folder(["1.png", "2.png"], f"image,{column}\n1.png,{cell}\n2.png,\n")
    source = opened(root)
    with pytest.raises(BadExampleError, match=message) as caught:
        source[0]
    assert caught.value.reason.endswith("(table.csv line 2)")
    assert caught.value.example_id == "1.png"
    assert source[1].example_id == "2.png"


def test_a_file_that_is_no_image_names_its_line(folder):
    root = folder(["1.png"], "image\n1.png\n2.png\n")
    (root / "2.png").write_bytes(b"broken")
    with pytest.raises(BadExampleError, match=r"^2.png: cannot decode .*table.csv line 3"):
        opened(root)[1]


def test_equal_ids_are_named(folder):
    table = "image,caption,example_id\n1.png,Femur,\n1.png,Thigh bone,{}\n"
    root = folder(["1.png"], table.format(""))
    with pytest.raises(ValueError, match=r"line 3: '1.png' is there already .table.csv line 2."):
        opened(root)
    (root / "table.csv").write_text(table.format("second"))
    assert [example.example_id for example in examples(opened(root))] == ["1.png", "second"]


@pytest.mark.parametrize("image", ["", "/etc/1.png", "../1.png"])
def test_images_lie_below_the_table(folder, image):
    root = folder(["1.png"], f"image,caption\n{image},x\n")
    with pytest.raises(ValueError, match=r"line 2: image is .*; give its path from the folder"):
        opened(root)


def test_backslashes_separate_folders_too(folder):
    assert opened(folder(["a/1.png"], "image\na\\1.png\n"))[0].example_id == "a/1.png"


def test_missing_files_are_counted(folder, capsys):
    source = opened(folder(["1.png"], "image\n1.png\n2.png\n"))
    assert len(source) == 1
    assert source.missing == ("2.png",)
    assert "image_text: 1 of the 2 images it lists are not in" in capsys.readouterr().out


def test_the_description_follows_files_and_table(folder):
    root = folder(["1.png", "2.png"], "image,caption\n1.png,Femur\n2.png,Spine\n")
    before = opened(root).description
    assert opened(root).description == before
    os.utime(root / "1.png", ns=(0, 1))
    touched = opened(root).description
    assert touched != before
    (root / "table.csv").write_text("image,caption\n1.png,Femur\n2.png,Lips\n")
    assert opened(root).description != touched
    assert str(root) not in json.dumps(touched)


def test_a_folder_without_a_table_is_its_images(folder):
    root = folder(["b/2.PNG", "1.jpg", "b/c/3.tif", ".hidden/4.png", "b/.5.png"])
    (root / "notes.txt").write_text("x")
    source = opened(root)
    assert [example.example_id for example in examples(source)] == ["1.jpg", "b/2.PNG", "b/c/3.tif"]
    assert source[1].caption is None
    assert source.facts.columns == ()
    with pytest.raises(ValueError, match=r"has no table .*, and so no split 'train'; it has all"):
        opened(root, "train")


def test_a_table_can_be_chosen_or_ignored(folder):
    root = folder(["1.png", "2.png"], "image\n1.png\n")
    assert len(opened(root, table="none")) == 2
    (root / "other.csv").write_text("image\n2.png\n")
    with pytest.raises(ValueError, match=r"holds 2 tables .other.csv, table.csv.; choose one by"):
        opened(root)
    assert opened(root, table="other.csv")[0].example_id == "2.png"
    with pytest.raises(ValueError, match=r"absent.csv does not exist"):
        opened(root, table="absent.csv")


def test_the_folder_is_checked(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist; its root must be a folder of"):
        opened(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no root folder is given"):
        opened("")
    with pytest.raises(ValueError, match="holds no image"):
        opened(tmp_path)


def save_mask(root, name, shape, inside):
    mask = np.zeros(shape, np.uint8)
    mask[inside] = 255
    PIL.Image.fromarray(mask).save(root / name)


def test_columns_of_masks_are_outlines_and_no_group_columns(folder):
    table = (
        "image,mask.stomach,mask.spine\n1.png,s.png,e.png\n2.png,s.png,\n3.png,,\n4.png,no.png,\n"
    )
    root = folder(["1.png", "2.png", "3.png", "4.png"], table)
    save_mask(root, "s.png", (4, 8), np.s_[1:3, 2:5])
    save_mask(root, "e.png", (4, 8), np.s_[:0])
    plain = opened(root)
    assert (len(plain), plain.facts.masks, plain.facts.group_columns) == (4, (), ())
    source = opened(root, with_masks=True)
    assert source.facts.masks == ("stomach", "spine")
    assert source.missing == ("no.png",)  # the row whose outline is not there is left out
    first, second = examples(source)
    assert (first.example_id, second.example_id) == ("1.png", "2.png")
    assert first.masks["stomach"].sum() == 6
    assert first.masks["stomach"][1:3, 2:5].all()
    assert not first.masks["spine"].any()
    assert set(second.masks) == {"stomach"}
    assert source.description != plain.description


def test_a_mask_of_another_size_and_a_table_without_masks_are_refused(folder):
    root = folder(["1.png"], "image,mask.stomach\n1.png,s.png\n")
    save_mask(root, "s.png", (4, 9), np.s_[1:3])
    with pytest.raises(BadExampleError, match=r"1.png: the mask s.png is 4 x 9 pixels and its"):
        opened(root, with_masks=True)[0]
    with pytest.raises(ValueError, match=r"no outlined image \(columns mask.STRUCTURE\)"):
        opened(folder(["1.png"], "image,plane\n1.png,brain\n"), with_masks=True)
