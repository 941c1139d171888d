"""Which example images a study stores, and that each keeps its own picture."""

import json

import numpy as np
import pytest

from fetalclip_jax.data.example import Example
from fetalclip_jax.datasets.protocol import SourceFacts
from fetalclip_jax.evaluation import examples
from fetalclip_jax.evaluation.result import Predictions


def predictions(*labels_and_answers, scores=None, candidates=()):
    labels, answers = (np.array(column) for column in zip(*labels_and_answers, strict=True))
    ids = np.array([f"e{k}" for k in range(len(labels))])
    return Predictions(ids, ids, labels, answers, candidates, scores)


def reversed_rows(given, scores=None):
    columns = (given.example_id, given.patient_id, given.label, given.prediction)
    return Predictions(*(column[::-1] for column in columns), given.candidates, scores)


def test_classes_take_turns():
    many = predictions(*[("brain", "brain")] * 8, ("femur", "femur"), ("heart", "heart"))
    labels = [row.label for row in examples.choose(many, 5, correct=True)]
    assert labels == ["brain", "femur", "heart", "brain", "brain"]


def test_right_and_wrong_are_kept_apart_and_unlabelled_images_passed_over():
    mixed = predictions(("brain", "femur"), ("brain", "brain"), ("femur", "brain"), ("", "brain"))
    wrong = examples.choose(mixed, 6, correct=False)
    assert {row.example_id for row in wrong} == {"e0", "e2"}
    assert not any(row.correct for row in wrong)


def test_the_choice_depends_neither_on_the_order_nor_on_the_head_of_the_file():
    many = predictions(*[("brain", "brain")] * 20)
    chosen = [row.example_id for row in examples.choose(many, 4, True)]
    assert chosen == [row.example_id for row in examples.choose(reversed_rows(many), 4, True)]
    # Pinned: a report of the same predictions shows the same images on every machine.
    assert chosen == ["e12", "e9", "e11", "e5"]


def test_the_three_best_candidates_come_best_first():
    scores = np.array([[1.0, 4.0, 2.0, 3.0]])
    given = predictions(("a", "b"), scores=scores, candidates=("a", "b", "c", "d"))
    (row,) = examples.choose(given, 1, correct=False)
    assert row.candidates == (("b", 4.0), ("d", 3.0), ("c", 2.0))


def test_without_scores_there_are_no_candidates():
    (row,) = examples.choose(predictions(("a", "a")), 1, correct=True)
    assert row.candidates == ()


def test_the_surest_mistakes_come_first_and_equal_ones_by_id():
    scores = np.array([[9.0, 1.0], [3.0, 1.0], [6.0, 1.0], [3.0, 1.0], [9.0, 0.0], [8.0, 0.0]])
    pairs = [("b", "a"), ("b", "a"), ("b", "a"), ("b", "a"), ("a", "a"), ("", "a")]
    given = predictions(*pairs, scores=scores, candidates=("a", "b"))
    for same in (given, reversed_rows(given, scores[::-1])):
        rows = examples.surest_mistakes(same, 3)
        assert [(row.example_id, row.margin) for row in rows] == [
            ("e0", 8.0),
            ("e2", 5.0),
            ("e1", 2.0),
        ]
        assert all(row.surest and not row.correct for row in rows)


def test_the_margin_is_over_the_best_other_class():
    scores = np.array([[0.1, 0.5, 0.4]])
    given = predictions(("a", "b"), scores=scores, candidates=("a", "b", "c"))
    (row,) = examples.surest_mistakes(given, 1)
    assert row.margin == pytest.approx(0.1)


def test_without_scores_nothing_is_surest():
    assert examples.surest_mistakes(predictions(("a", "b")), 3) == []


def test_examples_of_an_earlier_version_still_load(tmp_path):
    rows = examples.choose(predictions(("a", "b")), 1, correct=False)
    path = examples.save(tmp_path, "s", rows, [np.zeros((2, 2), np.uint8)])
    index = json.loads(path.read_text())
    for name in ("margin", "surest", "patient_id", "groups"):
        del index["examples"][0][name]
    path.write_text(json.dumps(index))
    ((row, _),) = examples.load(tmp_path, "s")
    assert (row.example_id, row.surest, row.margin, row.groups) == ("e0", False, None, {})


def test_pictures_come_back_with_their_own_example(tmp_path):
    scores = np.eye(3) + np.arange(3) / 10
    given = predictions(("a", "a"), ("b", "b"), ("c", "c"), scores=scores, candidates=("a",) * 3)
    rows = examples.choose(given, 3, correct=True)
    grey, colour = np.arange(12, dtype=np.uint8).reshape(3, 4), np.zeros((5, 2, 3), np.uint8)
    colour[0, 0] = (9, 8, 7)
    images = [grey, colour, grey + 1]
    path = examples.save(tmp_path, "zero_shot.planes", rows, images)
    assert path == tmp_path / "examples" / "zero_shot.planes" / "examples.json"
    found = examples.load(tmp_path, "zero_shot.planes")
    assert [row for row, _ in found] == rows
    for (_, image), expected in zip(found, images, strict=True):
        np.testing.assert_array_equal(image, expected)


class Images:
    """Eighty images whose brightness is their number, in another order than the predictions."""

    facts = SourceFacts(("all",), {"all": "all"}, (), group_columns=("machine", "operator"))

    def __len__(self):
        return 80

    def __getitem__(self, index):
        name, image = f"e{79 - index}", np.full((500, 400), 79 - index, np.uint8)
        return Example(name, image, extra={"machine": f"M{index % 2}", "finding": "none"})

    def metadata(self):
        return {"example_id": np.array([f"e{79 - index}" for index in range(80)])}


def test_what_is_kept_are_the_images_of_the_chosen_ids(tmp_path):
    given = predictions(*[("brain", "brain")] * 20, *[("brain", "femur")] * 20)
    examples.keep(tmp_path, "s", given, Images())
    found = examples.load(tmp_path, "s")
    assert [row.correct for row, _ in found] == [True] * 6 + [False] * 6
    for row, image in found:
        number = int(row.example_id[1:])
        assert (image == number).all()
        assert image.shape == (320, 256)
        # Only what results may be split by, and only where it is known.
        assert row.groups == {"machine": f"M{(79 - number) % 2}"}
        assert row.patient_id == row.example_id


def test_an_image_that_is_gone_is_named(tmp_path):
    ids = np.array(["gone"])
    given = Predictions(ids, ids, np.array(["a"]), np.array(["a"]))
    with pytest.raises(ValueError, match="no longer holds 'gone'"):
        examples.keep(tmp_path, "s", given, Images())


def test_fewer_examples_replace_more(tmp_path):
    rows = examples.choose(predictions(("a", "a"), ("b", "b")), 2, correct=True)
    image = np.zeros((2, 2), np.uint8)
    examples.save(tmp_path, "s", rows, [image] * 2)
    examples.save(tmp_path, "s", rows[:1], [image])
    assert [row for row, _ in examples.load(tmp_path, "s")] == rows[:1]
    assert sorted(p.name for p in (tmp_path / "examples" / "s").iterdir()) == [
        "0.png",
        "examples.json",
    ]


def test_a_study_without_examples_has_none(tmp_path):
    assert examples.load(tmp_path, "age") == []


def test_a_missing_picture_is_named(tmp_path):
    rows = examples.choose(predictions(("a", "a")), 1, correct=True)
    examples.save(tmp_path, "s", rows, [np.zeros((2, 2), np.uint8)])
    (tmp_path / "examples" / "s" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"examples\.json cannot be used .*0\.png"):
        examples.load(tmp_path, "s")


def test_every_example_has_its_picture(tmp_path):
    rows = examples.choose(predictions(("a", "a")), 1, correct=True)
    with pytest.raises(ValueError, match="0 images for 1 examples"):
        examples.save(tmp_path, "s", rows, [])
