"""Lists of images in the official form: what they mean, and what must not be in them."""

import json

import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import image_lists

FOLDS = {"0": [["005", "010"], ["737"]], "1": [["005", "737"], ["010"]]}


@pytest.fixture
def write(tmp_path):
    def write(lists, test=None, kind="probing"):
        folder = tmp_path / kind / "segmentation_hc"
        folder.mkdir(parents=True)
        (folder / "train_val_split.json").write_text(json.dumps(lists))
        if test is not None:
            (folder / "test_id.json").write_text(json.dumps(test))
        return tmp_path

    return write


def test_ids_have_one_spelling(write):
    root = write(FOLDS, {"11": "test", "738": "test"})
    found = image_lists.read(root, "probing")
    assert [[part.tolist() for part in fold] for fold in found.folds] == [
        [["5", "10"], ["737"]],
        [["5", "737"], ["10"]],
    ]
    assert found.tested.tolist() == ["11", "738"]
    assert found.listed.tolist() == ["10", "5", "737"]
    assert found.notes == ()
    # The file, its folder and those above all mean the same.
    for place in (found.path, found.path.parent, found.path.parent.parent):
        assert image_lists.read(place, "probing").path == found.path


def test_ids_that_leak_under_another_spelling_are_left_out_or_kept_and_said(write):
    root = write(FOLDS, {"11": "test", "5": "test", "0010": "test", "12": "test"})
    clean, official = (image_lists.read(root, "probing", v) for v in ("clean", "official"))
    assert clean.tested.tolist() == ["11", "12"]
    assert official.tested.tolist() == ["11", "5", "10", "12"]
    what = (
        "2 of the 4 test images are learned from too: the test list writes '5', the lists to learn "
        "from '005'; "
    )
    assert clean.notes == (what + "they are not tested (variant 'clean')",)
    assert official.notes == (what + "they are tested all the same (variant 'official')",)


def test_the_official_lists_of_hc18(shared_reference):
    root = shared_reference
    official, clean = (image_lists.read(root, "probing", v) for v in ("official", "clean"))
    assert [len(a) + len(b) for a, b in official.folds] == [663] * 5
    assert (len(official.tested), len(clean.tested)) == (161, 143)
    assert len(np.intersect1d(official.tested, official.listed)) == 18
    assert not len(np.intersect1d(clean.tested, clean.listed))
    assert "18 of the 161 test images" in official.notes[0]
    few = image_lists.read(root, "few_data_training")
    assert {size: len(draws) for size, draws in few.sets.items()} == dict.fromkeys(
        (1, 2, 4, 8, 16, 32), 5
    )
    assert "13 of the 161 test images" in few.notes[0]


def test_a_leak_under_one_spelling_is_refused_unless_official(write):
    root = write({"0": [["005"], ["737"]]}, {"737": "test", "11": "test"})
    message = r"test_id\.json: 1 of 2 test ids, such as '737', are in the lists to learn from too"
    with pytest.raises(ValueError, match=message):
        image_lists.read(root, "probing")
    official = image_lists.read(root, "probing", "official")
    assert official.tested.tolist() == ["737", "11"]
    assert "1 of the 2 test images are learned from too" in official.notes[0]
    assert "tested all the same" in official.notes[0]
    with pytest.raises(ValueError, match="variant='raw' is not one of clean, official"):
        image_lists.read(root, "probing", "raw")


SETS = {"1": [[["005"], ["010"]], [["011"], ["012"]]]}


def test_support_sets_by_size(write):
    root = write(SETS, {"13": "test"}, kind="few_data_training")
    found = image_lists.read(root, "few_data_training")
    assert found.tested.tolist() == ["13"]
    assert found.folds == []
    assert [split[0].tolist() for split in found.sets[1]] == [["5"], ["11"]]


def test_lists_without_a_test_are_refused(write):
    root = write(SETS, kind="few_data_training")
    with pytest.raises(ValueError, match=r"no test_id\.json beside it; add it"):
        image_lists.read(root, "few_data_training")


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no train_val_split\.json there, nor in segmentation_hc"):
        image_lists.read(tmp_path, "probing")


def test_an_id_is_the_first_image_of_a_head_or_a_patient():
    examples = np.array(["005_HC", "005_2HC", "010_HC", "011_HC"])
    patients = np.array(["005", "005", "010", "011"])
    found = image_lists.ids_of_images(np.array(["5", "11", "99"]), examples, patients)
    assert found.tolist() == ["5", "", "", "11"]
    named = image_lists.ids_of_images(np.array(["p7"]), np.array(["a", "b"]), np.array(["P07", ""]))
    assert named.tolist() == ["p7", ""]
