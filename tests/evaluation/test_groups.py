"""Columns by which results may be split."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.evaluation.groups import MOST_GROUPS, group_columns


@pytest.fixture
def store(make_store):
    def make(image_size=224, count=6, **columns):
        made = make_store(np.ones((count, 2)), **columns)
        return dataclasses.replace(made, fingerprint={"image_size": image_size})

    return make


def test_trimesters_begin_at_14_and_28_weeks(store):
    days = np.array([97.0, 98, 195, 196, 250, np.nan])
    assert group_columns(store(ga_days=days))["trimester"].tolist() == [
        "first trimester",
        "second trimester",
        "second trimester",
        "third trimester",
        "third trimester",
        "",
    ]


def test_spacings_are_in_bands_of_the_image_and_not_of_the_model(store):
    at_224 = np.array([0.1, 0.3, 0.49, 0.5, 0.8, np.nan])
    expected = ["0 to 0.3 mm", *["0.3 to 0.5 mm"] * 2, "0.5 to 0.8 mm", "0.8 mm and more", ""]
    for size in (96, 224):
        spacings = at_224 * 224 / size
        found = group_columns(store(image_size=size, resized_spacing_mm=spacings))
        assert found["spacing_mm"].tolist() == expected


def test_a_store_that_does_not_know_its_pixels_has_no_bands_of_spacing(make_store):
    made = make_store(np.ones((4, 2)), resized_spacing_mm=np.full(4, 0.5))
    assert "spacing_mm" not in group_columns(made)


def test_columns_of_the_data_set_are_kept_with_their_gaps(store):
    machine = np.array(["A", "A", "B", "B", "", "B"])
    found = group_columns(store(machine=machine, plane=np.full(6, "brain"), hc_mm=np.ones(6)))
    assert set(found) == {"machine"}  # neither labels, nor ids, nor numbers
    assert found["machine"].tolist() == machine.tolist()


def test_one_value_everywhere_is_kept_so_that_it_can_be_said(store):
    assert set(group_columns(store(machine=np.full(6, "A")))) == {"machine"}


@pytest.mark.parametrize("values", [1, 3, MOST_GROUPS])
def test_few_values_are_groups(store, values):
    column = np.arange(2 * values) % values
    assert "centre" in group_columns(store(centre=column.astype(str), count=2 * values))


def test_values_that_name_images_are_no_groups(store):
    many = np.arange(3 * (MOST_GROUPS + 1)) % (MOST_GROUPS + 1)
    assert "id" not in group_columns(store(id=many.astype(str), count=len(many)))
    remark = np.array(["blurred", "ok", "poor", "shadow", "ok", ""])  # four remarks of five images
    assert "remark" not in group_columns(store(remark=remark))
    assert "empty" not in group_columns(store(empty=np.full(6, "")))
