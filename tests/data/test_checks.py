"""What cannot be true of an image is found where it enters, and how to mend it is said."""

import dataclasses
import math

import numpy as np
import pytest

from fetalclip_jax.data.checks import check_example, implausible
from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.labels import OTHER, PLANES

GOOD = Example(
    "scan",
    np.zeros((4, 4), np.uint8),
    caption="Fetal head",
    ga_days=147,
    pixel_spacing_mm=0.1,
    plane="brain",
    brain_plane="trans-thalamic",
    hc_mm=175.0,
    patient_id="7",
    label="none",
)


def test_a_good_example_passes_unchanged():
    assert check_example(GOOD) is GOOD
    nothing = Example("x", np.zeros((4, 4, 3), np.uint8))
    assert check_example(nothing) is nothing
    for plane in (*PLANES, OTHER):
        check_example(dataclasses.replace(nothing, plane=plane))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": "Fetal brain"}, "plane is 'Fetal brain'; use one of abdomen, brain, femur"),
        ({"plane": ""}, "plane is ''"),
        ({"brain_plane": "Not A Brain"}, "brain_plane is 'Not A Brain'; use one of trans-thal"),
        ({"plane": "femur"}, "brain_plane is 'trans-thalamic', but plane is 'femur'"),
        ({"hc_mm": 17.5}, r"hc_mm is 17.5, outside 30 to 450; it looks like centimetres"),
        ({"hc_mm": 0.175}, "looks like metres"),
        ({"hc_mm": 2.0}, "hc_mm is 2, outside 30 to 450; correct it, or leave it empty"),
        ({"hc_mm": math.inf}, "hc_mm is inf, not a finite number"),
        ({"pixel_spacing_mm": 150.0}, "outside 0.005 to 5; it looks like micrometres"),
        ({"pixel_spacing_mm": 0.00015}, "looks like metres"),
        ({"pixel_spacing_mm": 0.0}, "pixel_spacing_mm is 0, outside"),
        ({"pixel_spacing_mm": math.nan}, "pixel_spacing_mm is nan"),
        ({"ga_days": 21}, "ga_days is 21, outside 28 to 308; it looks like weeks"),
        ({"ga_days": 420}, "ga_days is 420, outside 28 to 308"),
        ({"caption": "nan"}, "caption is 'nan'; leave it empty where there is none"),
        ({"patient_id": " None"}, "patient_id is ' None'; leave it empty"),
        ({"label": "NaN"}, "label is 'NaN'; leave it empty"),
        ({"image": np.zeros((4, 4), np.float32)}, r"image is float32 \[4, 4\]"),
        ({"image": np.zeros((0, 4), np.uint8)}, r"image is uint8 \[0, 4\]"),
        ({"masks": {"head": np.zeros((2, 2), bool)}}, r"mask head is \[2, 2\], image \[4, 4\]"),
    ],
)
def test_what_cannot_be_true_is_a_bad_example(change, message):
    with pytest.raises(BadExampleError, match=message) as caught:
        check_example(dataclasses.replace(GOOD, **change))
    assert caught.value.example_id == "scan"


def test_a_number_in_place_of_a_text_is_a_bad_example():
    example = dataclasses.replace(GOOD)
    object.__setattr__(example, "caption", math.nan)  # as a row of pandas may give it
    with pytest.raises(BadExampleError, match="caption is nan, not a text"):
        check_example(example)


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [("ga_days", 28, 308), ("hc_mm", 30, 450), ("pixel_spacing_mm", 0.005, 5)],
)
def test_the_ends_of_a_range_belong_to_it(field, low, high):
    assert implausible(field, low) is None
    assert implausible(field, high) is None
    assert implausible(field, low * 0.99)
    assert implausible(field, high * 1.01)


def test_ranges_can_be_a_data_sets_own():
    wide = dataclasses.replace(GOOD, pixel_spacing_mm=7.0)
    with pytest.raises(BadExampleError):
        check_example(wide)
    ranges = {"ga_days": (28, 308), "hc_mm": (30, 450), "pixel_spacing_mm": (0.005, 10)}
    assert check_example(wide, ranges) is wide
