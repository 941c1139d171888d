import json

import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import splits


def test_every_patient_validates_once():
    ids = np.repeat([f"p{i:02d}" for i in range(23)], 4)
    folds = splits.folds_by_patient(ids, 5, seed=1)
    assert [len(validation) for _, validation in folds] == [5, 5, 5, 4, 4]
    assert sorted(np.concatenate([v for _, v in folds])) == sorted(set(ids))
    for train, validation in folds:
        assert not set(train) & set(validation)
        assert len(train) + len(validation) == 23
    again = splits.folds_by_patient(ids[::-1], 5, seed=1)
    other = splits.folds_by_patient(ids, 5, seed=2)
    assert [v.tolist() for _, v in again] == [v.tolist() for _, v in folds]
    assert [v.tolist() for _, v in other] != [v.tolist() for _, v in folds]


def test_folds_share_out_the_patients_of_a_rare_class():
    owners = np.repeat([f"p{k}" for k in range(42)], 2)
    classes = np.zeros(84, int)
    classes[[1, 20, 41, 60, 83]] = 1  # one image each of five patients
    for seed in range(5):
        folds = splits.folds_by_patient(owners, 5, seed, classes)
        for train, validation in folds:
            rare = set(owners[classes == 1].tolist())
            assert len(rare & set(validation.tolist())) == 1
            assert not set(train.tolist()) & set(validation.tolist())
        sizes = [len(validation) for _, validation in folds]
        assert sum(sizes) == 42
        assert max(sizes) - min(sizes) <= 1


def test_support_sets_validate_on_as_many_other_patients():
    ids = [f"p{i}" for i in range(20)]
    draws = splits.support_sets(ids, 8, 5, seed=0)
    assert len({tuple(sorted(train)) for train, _ in draws}) == 5
    for train, validation in draws:
        assert len(set(train)) == len(set(validation)) == 8
        assert not set(train) & set(validation)
    with pytest.raises(ValueError, match="pool has 20: choose sizes up to 10"):
        splits.support_sets(ids, 11)


def test_more_folds_than_patients():
    with pytest.raises(ValueError, match=r"number of patients \(2\), found 5"):
        splits.folds_by_patient(["a", "b", "a"], 5)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "split.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_reads_folds_in_order(write):
    pairs = {str(i): [[f"a{i}", "b"], [f"c{i}"]] for i in (10, 9, 0)}
    folds = splits.read_folds(write(pairs))
    assert [train[0] for train, _ in folds] == ["a0", "a9", "a10"]
    assert folds[0][1].tolist() == ["c0"]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (splits.read_folds, "{", "is not JSON"),
        (splits.read_folds, [], "must hold a JSON object, found list"),
        (splits.read_folds, {"x": [["a"], ["b"]]}, "key 'x' must be a number"),
        (splits.read_folds, {"0": [["a"]]}, "fold '0' must be a pair"),
        (splits.read_folds, {"0": [["a"], []]}, "non-empty list of id strings"),
        (splits.read_folds, {"0": [[1], ["b"]]}, "non-empty list of id strings"),
        (splits.read_folds, {"0": [["a", "b"], ["b"]]}, "'b' in training and in validation"),
        (splits.read_folds, {"0": [["a", "a"], ["b"]]}, "repeats 1"),
        (splits.read_support_sets, {"2": [[["a"], ["b"]]]}, "trains on 1 ids, not on 2"),
        (splits.read_support_sets, {"2": {}}, "size '2' must hold a list"),
        (splits.read_test_ids, {"5": "train"}, "'5' is 'train', not 'test'"),
    ],
)
def test_format_errors_name_the_file(write, read, content, message):
    with pytest.raises(ValueError, match=f"split.json: .*{message}"):
        read(write(content))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.json: cannot be read"):
        splits.read_folds(tmp_path / "gone.json")


def test_official_files(shared_reference):
    probing = shared_reference / "splits" / "probing"
    few = shared_reference / "splits" / "few_data_training"
    planes = "classification_six_fetal_planes"
    folds = splits.read_folds(probing / planes / "train_val_split.json")
    test = splits.read_test_ids(probing / planes / "test_split.json")
    assert [len(a) + len(b) for a, b in folds] == [896] * 5
    assert len(test) == 896
    assert not np.intersect1d(np.concatenate(folds[0]), test).size
    draws = splits.read_support_sets(few / planes / "train_val_split.json")
    assert list(draws) == [2, 4, 8, 16, 32, 64, 128]
    assert {len(sets) for sets in draws.values()} == {5}
