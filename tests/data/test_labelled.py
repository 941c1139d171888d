"""Records with a class: which they are, and that rows get the label of their own image."""

import contextlib
import dataclasses
import pickle

import numpy as np
import pytest

from fetalclip_jax.data import pipeline, records
from fetalclip_jax.data.example import Example
from fetalclip_jax.data.labelled import LabelledRecords
from fetalclip_jax.labels import SIX_PLANES, TASKS, Classes

# Number i of them has pixels i: an image tells its index.
PLANES = ("brain", None, "spine", "heart", "brain", None, "femur", "cervix")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    examples = [
        Example(
            example_id=f"example-{i}",
            image=np.full((4, 4), i, np.uint8),
            plane=plane,
            brain_plane="trans-thalamic" if i == 4 else None,
        )
        for i, plane in enumerate(PLANES)
    ]
    folder = tmp_path_factory.mktemp("prepared") / "records"
    return records.prepare(examples, folder, image_size=4, progress=False)


def test_planes_that_are_not_named_are_other_and_none_is_left_out(prepared):
    labelled = LabelledRecords(prepared, TASKS["planes"])
    names = [SIX_PLANES[label] for label in labelled.labels]
    assert names == ["brain", "other", "heart", "brain", "femur", "cervix"]
    assert labelled.left_out == {"no label": 2}
    assert labelled.counts() == {"other": 1, "brain": 2, "cervix": 1, "femur": 1, "heart": 1}
    for view in (labelled, pickle.loads(pickle.dumps(labelled))):
        assert [one.image[0, 0] for one in view.without_masks(range(6))] == [0, 2, 3, 4, 6, 7]
        assert view.metadata()["example_id"][1] == "example-2"


def test_every_row_of_a_batch_has_the_label_of_its_image(prepared):
    labelled = LabelledRecords(prepared, TASKS["planes"])
    stream = pipeline.train_iterator(
        labelled, lambda texts: np.zeros((len(texts), 1), np.int32), global_batch_size=3, seed=5
    )
    expected = {"brain": "brain", "spine": "other"}
    with contextlib.closing(stream):
        for _, batch in zip(range(4), stream, strict=False):
            assert (batch["label"].dtype, len(batch["label"])) == (np.int32, 3)
            for image, label in zip(batch["image"], batch["label"], strict=True):
                plane = PLANES[image[0, 0]]
                assert SIX_PLANES[label] == expected.get(plane, plane)


def test_records_without_any_class_are_refused(prepared):
    assert LabelledRecords(prepared, TASKS["brain"]).counts() == {"trans-thalamic": 1}
    known = dataclasses.replace(TASKS["brain"], names=("trans-ventricular",))
    message = r"none of the 8 records .* of trans-ventricular \(found: no label, trans-thalamic\)"
    for classes in (known, Classes("operator", ("a", "b"))):
        with pytest.raises(ValueError, match=message if classes is known else "a, b"):
            LabelledRecords(prepared, classes)
