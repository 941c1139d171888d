"""Which wrong answers are shown beside which right ones."""

import numpy as np
import pytest

from fetalclip_jax.evaluation import confusions
from fetalclip_jax.evaluation.evaluate import evaluate
from fetalclip_jax.evaluation.sources import DataSet
from tests.evaluation import saved

# Brain for femur three times, heart for brain twice, femur for heart once.
LABELS = np.array([0, 0, 0, 0, 2, 2, 2, 1, 1])
ANSWERS = np.array([1, 1, 1, 0, 0, 0, 2, 2, 1])
MARGINS = np.array([0.2, 0.9, 0.5, 0.3, 0.4, 0.4, 0.6, 0.1, 0.7])


@pytest.fixture
def found():
    return saved.predictions(np.eye(3)[ANSWERS] * MARGINS[:, None], LABELS)


def test_the_most_frequent_pairs_come_first_and_single_ones_are_none(found):
    assert confusions.pairs(found) == [("brain", "femur", 3), ("heart", "brain", 2)]


def test_of_a_pair_the_surest_come_first_and_equal_ones_by_id(found):
    sure = confusions.surest(found, "brain", "femur")
    assert [one.example_id for one in sure] == ["e1", "e2", "e0"]
    assert sure[0].margin == pytest.approx(0.9)
    assert [one.example_id for one in confusions.surest(found, "heart", "brain")] == ["e4", "e5"]


def test_pictures_stand_beside_right_ones_and_those_of_another_data_set(found, tmp_path):
    planes = np.array(["brain"] * 6 + ["femur"])
    other = saved.source([f"r{k}" for k in range(7)], {"plane": planes}, first=100)
    judged = saved.source(found.example_id.tolist())
    confusions.keep(tmp_path, "zero_shot.planes", found, judged, ("phantom", other, "plane"))
    first, second = confusions.load(tmp_path, "zero_shot.planes")
    assert (first.label, first.prediction, first.count, first.total) == ("brain", "femur", 3, 4)
    rows = [(one.kind, one.label, one.of, len(one.images)) for one in first.shown]
    assert rows == [
        ("mistaken", "brain", "", 3),
        ("right", "brain", "", 1),
        ("right", "femur", "", 1),
        ("reference", "brain", "phantom", 4),
        ("reference", "femur", "phantom", 1),
    ]
    for shown in (*first.shown, *second.shown):
        for row, image in shown.images:
            number = int(row.example_id[1:]) + (100 if shown.kind == "reference" else 0)
            assert (image == number).all()
            assert row.label == shown.label
    # The other data set has no heart: no row of it.
    assert [one.label for one in second.shown if one.kind == "reference"] == ["brain"]


def test_what_has_no_confusion_keeps_nothing_and_removes_what_was_kept(found, tmp_path):
    judged = saved.source(found.example_id.tolist())
    confusions.keep(tmp_path, "s", found, judged)
    assert len(confusions.load(tmp_path, "s")) == 2
    right = saved.answered(LABELS, LABELS)
    confusions.keep(tmp_path, "s", right, judged)
    assert confusions.load(tmp_path, "s") == []
    assert not list(tmp_path.rglob("*.png"))


def test_a_picture_that_is_gone_is_an_error(found, tmp_path):
    confusions.keep(tmp_path, "s", found, saved.source(found.example_id.tolist()))
    (tmp_path / "confusions" / "s" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"confusions.json cannot be used .*; evaluate again"):
        confusions.load(tmp_path, "s")


def test_a_data_set_beside_that_is_not_given_is_refused_before_anything_is_judged(tmp_path):
    data = {"phantom": DataSet("phantom")}
    with pytest.raises(ValueError, match="beside='fantom' is not one of phantom"):
        evaluate({"model": lambda: None}, data, [], tmp_path, beside="fantom")
