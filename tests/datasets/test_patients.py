"""Who is held out, and who is the same patient."""

import pytest

from fetalclip_jax.datasets import patients


def test_the_order_depends_on_the_seed_alone():
    ids = [f"P{i}" for i in range(20)]
    order = patients.in_hashed_order(ids, 0)
    assert sorted(order) == sorted(ids)
    assert order != sorted(ids)
    assert patients.in_hashed_order(reversed(ids * 2), 0) == order
    assert patients.in_hashed_order(ids, 1) != order
    # Without some of them the others keep their places: a partial table divides them alike.
    assert patients.in_hashed_order(ids[5:], 0) == [x for x in order if x in ids[5:]]


@pytest.mark.parametrize(("one", "other"), [("005", "5"), (" P07", "p7"), ("a-01-002", "A-1-2")])
def test_spellings_of_one_id_have_one_form(one, other):
    assert patients.normal_form(one) == patients.normal_form(other)


def test_different_ids_keep_different_forms():
    ids = ["5", "50", "P5", "5P", "5-1", "51"]
    assert len({patients.normal_form(x) for x in ids}) == len(ids)


def test_a_patient_of_two_splits_is_refused_however_it_is_spelled():
    patients.check_apart([("005", "train"), ("6", "test"), ("5", "train")], "t.csv")
    with pytest.raises(
        ValueError,
        match=r"t.csv: patient '5' \(the same patient as '005'\) is in train and in test",
    ):
        patients.check_apart([("005", "train"), ("5", "test")], "t.csv")
    with pytest.raises(ValueError, match="patient '5' is in test and in train"):
        patients.check_apart([("5", "test"), ("5", "train")], "t.csv")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_lies_between_none_and_all(share):
    with pytest.raises(ValueError, match=r"test_share is .*; use a share between 0 and 1"):
        patients.check_share("test_share", share)
