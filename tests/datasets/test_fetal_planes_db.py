"""FETAL_PLANES_DB as downloaded, whole and in part."""

import collections

import pytest

from fetalclip_jax.data import records
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets import registry
from fetalclip_jax.datasets.fetal_planes_db import FetalPlanesSource
from tests.data_sets import HEADER, image_name, table_line, write_table


def write_measurements(root, *lines):
    text = "\n".join(["Image_name,width,height,pixel_spacing_mm,hc_mm", *lines])
    (root / "measurements.csv").write_text(text + "\n")


def patients(source):
    return {source[i].patient_id for i in range(len(source))}


def test_words_become_those_of_this_project(planes_folder):
    source = FetalPlanesSource(planes_folder)
    found = [(source[i].plane, source[i].brain_plane) for i in range(5)]
    assert found == [
        ("brain", "trans-thalamic"),
        ("heart", None),
        ("cervix", None),
        ("other", None),
        ("brain", None),
    ]
    example = source[7]
    assert example.example_id == "Patient00007_Plane1_1_of_1"
    # The form of the official split files.
    assert example.patient_id == "Patient00007"
    assert example.extra == {"machine": "Voluson E6", "operator": "Op. 1"}
    assert source.facts.group_columns == ("machine", "operator")
    assert (example.image == 7).all()
    assert not {"pixel_spacing_mm", "hc_mm"} & set(source.facts.columns)


def test_splits_are_the_official_ones_less_a_validation_group(planes_folder):
    splits = {
        split: patients(FetalPlanesSource(planes_folder, split))
        for split in ("train", "validation", "official_train", "test", "all")
    }
    assert splits["official_train"] == {f"Patient{i:05d}" for i in range(20)}
    assert splits["test"] == {f"Patient{i:05d}" for i in range(20, 30)}
    assert splits["all"] == splits["official_train"] | splits["test"]
    assert len(splits["validation"]) == 2  # a tenth
    assert splits["train"] == splits["official_train"] - splits["validation"]
    other = patients(FetalPlanesSource(planes_folder, "validation", seed=1))
    assert other != splits["validation"]


def test_a_partial_download_is_counted_and_divides_alike(planes_folder, capsys):
    half = {"validation_share": 0.5}
    before = patients(FetalPlanesSource(planes_folder, "validation", **half))
    for patient in range(0, 30, 2):
        (planes_folder / "Images" / f"{image_name(patient)}.png").unlink()
    source = registry.open_source("fetal_planes_db", planes_folder, "validation", options=half)
    assert len(source.missing) == 15
    assert capsys.readouterr().out == (
        f"fetal_planes_db: 15 of the 30 images it lists are not in {planes_folder / 'Images'} and "
        f"are left out (first: {image_name(0)})\n"
    )
    assert patients(source) == {x for x in before if int(x[-5:]) % 2}


def test_groups_travel_into_records(planes_folder, tmp_path):
    source = registry.open_source("fetal_planes_db", planes_folder, "test")
    dataset = records.prepare(source, tmp_path / "r", image_size=8, progress=False)
    assert dataset[0].extra == {"machine": "Voluson E6", "operator": "Op. 1"}
    assert list(dataset.metadata()["machine"]) == ["Voluson E6"] * 10


def test_measurements_are_of_the_file_that_is_there(planes_folder):
    write_measurements(
        planes_folder,
        f"{image_name(0)},40,20,0.25,175.5",
        f"{image_name(1)},40,20,,",
        f"{image_name(2)},959,661,0.125,",
        f"{image_name(3)},40,20,0.25,",
    )
    source = FetalPlanesSource(planes_folder)
    assert (source[0].pixel_spacing_mm, source[0].hc_mm) == (0.25, 175.5)
    assert (source[1].pixel_spacing_mm, source[1].hc_mm) == (None, None)
    assert (source[3].pixel_spacing_mm, source[3].hc_mm) == (0.25, None)
    assert {"pixel_spacing_mm", "hc_mm"} <= set(source.facts.columns)
    with pytest.raises(BadExampleError, match="has 959 x 661 pixels, the file 40 x 20"):
        source[2]
    assert source.notes == ()


def test_a_measurement_that_cannot_be_true_is_not_used_and_said(planes_folder):
    write_measurements(
        planes_folder, f"{image_name(0)},40,20,0.25,2.0", f"{image_name(5)},40,20,250,180"
    )
    source = FetalPlanesSource(planes_folder)
    assert (source[0].pixel_spacing_mm, source[0].hc_mm) == (0.25, None)
    assert (source[5].pixel_spacing_mm, source[5].hc_mm) == (None, 180.0)
    (note,) = source.notes
    assert "2 numbers in" in note
    assert f"first: {image_name(0)}: hc_mm is 2, outside 30 to 450" in note


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{image_name(0)},40,20,wide,", "line 2: pixel_spacing_mm is 'wide', not a number"),
        ("Patient99999,40,20,0.2,", "Image_name 'Patient99999' is not an image of the data set"),
    ],
)
def test_measurements_that_cannot_be_read(planes_folder, line, message):
    write_measurements(planes_folder, line)
    with pytest.raises(ValueError, match=message):
        FetalPlanesSource(planes_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": "Fetal foot"}, "line 31: Plane is 'Fetal foot', not one of Fetal abdomen"),
        ({"brain_plane": "Sagittal"}, "line 31: Brain_plane is 'Sagittal', not one of Trans"),
        ({"train": "yes"}, "line 31: Train is 'yes', not one of 1, 0"),
        ({"number": "x7"}, "line 31: Patient_num is 'x7', not a number"),
        ({"name": image_name(3)}, f"'{image_name(3)}' is listed twice"),
        ({"number": "003"}, "patient 'Patient00003' is in official_train and in test"),
    ],
)
def test_rows_that_do_not_belong(planes_folder, change, message):
    write_table(planes_folder, [*map(table_line, range(29)), table_line(29, **change)])
    with pytest.raises(ValueError, match=message):
        FetalPlanesSource(planes_folder)


def test_the_folder_is_checked(planes_folder, tmp_path):
    with pytest.raises(ValueError, match=r"Images lies in the folder that is wanted, .*FPDB;"):
        FetalPlanesSource(planes_folder / "Images")
    with pytest.raises(ValueError, match=r"holds .'FPDB'.; its root must be the folder that holds"):
        FetalPlanesSource(tmp_path)
    with pytest.raises(ValueError, match="no split 'dev'; it has train, validation, official"):
        FetalPlanesSource(planes_folder, "dev")
    write_table(planes_folder, [table_line(0)], header=HEADER.replace("Plane;", "View;", 1))
    with pytest.raises(ValueError, match="no column 'Plane'"):
        FetalPlanesSource(planes_folder)


def test_real_images(shared_data):
    root = shared_data / "fetal_planes_db"
    sources = {
        split: registry.open_source("fetal_planes_db", root, split)
        for split in ("train", "validation", "official_train", "test", "all")
    }
    sizes = {split: len(source) for split, source in sources.items()}
    assert sizes == {
        "train": 851,
        "validation": 80,
        "official_train": 931,
        "test": 395,
        "all": 1326,
    }
    assert len(sources["all"].missing) == 11_074
    rows = {name: source.source._images.values() for name, source in sources.items()}
    assert len({row.patient_id for row in rows["all"]}) == 661
    counts = {
        split: collections.Counter((row.plane, row.brain_plane) for row in rows[split])
        for split in ("official_train", "test")
    }
    expected = {
        ("abdomen", None): (166, 90),
        ("femur", None): (145, 66),
        ("heart", None): (284, 95),
        ("brain", "trans-thalamic"): (167, 74),
        ("brain", "trans-cerebellum"): (62, 32),
        ("brain", "trans-ventricular"): (94, 34),
        ("brain", None): (13, 4),
    }
    assert counts["official_train"] == {key: train for key, (train, _) in expected.items()}
    assert counts["test"] == {key: test for key, (_, test) in expected.items()}
    measured = [row.measurement for row in rows["all"] if row.measurement]
    assert sum(x.pixel_spacing_mm is not None for x in measured) == 636
    assert sum(x.hc_mm is not None for x in measured) == 240  # of 241; one says 2 mm
    with_hc = next(i for i, row in enumerate(rows["test"]) if row.measurement)
    example = sources["test"][with_hc]
    assert max(example.image.shape) == 400
    assert example.pixel_spacing_mm
