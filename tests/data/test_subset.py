import pytest

from fetalclip_jax.data import records, subset


@pytest.fixture
def dataset(tmp_path, numbered_examples):
    """24 images of 12 patients."""
    return records.prepare(numbered_examples(24), tmp_path / "train", image_size=16)


def ids(chosen):
    return set(chosen.metadata()["example_id"].tolist())


def test_a_smaller_subset_is_part_of_a_larger_one(dataset):
    chosen = [subset.of_patients(dataset, count, seed=3) for count in (4, 9, 24)]
    assert [len(one) for one in chosen] == [4, 9, 24]
    assert ids(chosen[0]) < ids(chosen[1]) < ids(chosen[2])
    assert len({one.fingerprint for one in chosen}) == 3
    assert ids(subset.of_patients(dataset, 9, seed=4)) != ids(chosen[1])


def test_records_are_those_of_the_chosen(dataset):
    chosen = subset.of_patients(dataset, 5, seed=0)
    names = chosen.metadata()["example_id"].tolist()
    assert [chosen[k].example_id for k in range(5)] == names
    assert [one.example_id for one in chosen.without_masks([4, 0])] == [names[4], names[0]]


def test_patients_stay_together(dataset):
    owners = subset.of_patients(dataset, 9, seed=1).metadata()["patient_id"].tolist()
    assert sorted(map(owners.count, set(owners))) == [1, 2, 2, 2, 2]


def test_more_than_there_are_is_refused(dataset):
    with pytest.raises(ValueError, match=r"train_images=25, but the training split has 24"):
        subset.of_patients(dataset, 25, seed=0)


def test_fewer_patients_are_among_more_and_keep_all_their_images(dataset):
    chosen = [subset.first_patients(dataset, count, seed=3) for count in (1, 4, 12)]
    assert [len(one) for one in chosen] == [2, 8, 24]
    assert ids(chosen[0]) < ids(chosen[1]) < ids(chosen[2])
    assert ids(subset.first_patients(dataset, 4, seed=4)) != ids(chosen[1])
    names = subset.first_names(dataset, 4, seed=3)
    assert set(chosen[1].metadata()["patient_id"]) == set(names)
    # Pinned: who are the first patients depends on nothing but the seed and their names.
    assert names == ["patient-2", "patient-4", "patient-8", "patient-7"]


@pytest.mark.parametrize("count", [-1, 13])
def test_more_patients_than_there_are_are_refused(dataset, count):
    with pytest.raises(ValueError, match=rf"train_patients={count}, but .* has 12 patients; use 1"):
        subset.first_patients(dataset, count, seed=0)
