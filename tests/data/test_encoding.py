"""An example survives its way into a record and back."""

import dataclasses
import math

import numpy as np
import pytest

from fetalclip_jax.data import encoding
from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.models.preprocess import square_resize

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
FULL = Example(
    example_id="scan/1",
    image=IMAGE,
    caption="Größe: 44,3 mm",
    ga_days=147,
    pixel_spacing_mm=0.1,
    plane="brain",
    brain_plane="trans-thalamic",
    hc_mm=44.3,
    patient_id="007",
    label="normal",
    masks={"head": IMAGE > 100, "csp": IMAGE > 200},
    extra={"machine": "Voluson E6", "Prüfer": "B"},
    second_image=IMAGE[::-1, ::2],
)


def test_every_field_comes_back():
    record = encoding.encode_example(FULL, 20, with_extra=True)
    result = encoding.decode_record(record, colour=False)
    for field in dataclasses.fields(Example):
        if field.name not in ("image", "second_image", "pixel_spacing_mm", "masks"):
            assert getattr(result, field.name) == getattr(FULL, field.name), field.name
    np.testing.assert_array_equal(result.image, square_resize(IMAGE, 20))
    np.testing.assert_array_equal(result.second_image, square_resize(IMAGE[::-1, ::2], 20))
    # 40 pixels of 0.1 mm now are 20 pixels of 0.2 mm.
    assert result.pixel_spacing_mm == 0.2
    assert list(result.masks) == ["head", "csp"]
    assert result.masks["head"].shape == (20, 20)
    assert result.masks["head"].dtype == bool
    # Random pixels blur when resized; the share inside stays near and the padding is outside.
    assert not result.masks["head"][:2].any()
    assert result.masks["csp"].sum() < result.masks["head"].sum()


def test_records_without_a_column_for_them_hold_no_further_labels():
    record = encoding.encode_example(FULL, 20)
    assert "extra" not in record
    assert encoding.decode_record(record, colour=False).extra == {}


def test_masks_keep_their_shape_when_resized():
    disc = np.hypot(*(np.mgrid[:60, :80] - np.array([30, 40])[:, None, None])) < 20
    example = Example("x", np.zeros((60, 80), np.uint8), masks={"disc": disc})
    mask = encoding.decode_record(encoding.encode_example(example, 40), colour=False).masks["disc"]
    expected = np.hypot(*(np.mgrid[:40, :40] - np.array([19.75, 19.75])[:, None, None])) < 10
    assert (mask != expected).sum() <= 4


def test_missing_fields_stay_missing():
    record = encoding.encode_example(Example("x", IMAGE), 8)
    assert record["plane"] == ""
    assert math.isnan(record["hc_mm"])
    result = encoding.decode_record(record, colour=False)
    for field in dataclasses.fields(Example):
        if field.name not in ("example_id", "image", "extra"):
            assert getattr(result, field.name) is None, field.name
    assert result.extra == {}


def test_colour_is_kept_and_grey_in_three_channels_is_stored_as_grey():
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = encoding.encode_png(rgb)
    assert encoding.is_colour_png(data)
    np.testing.assert_array_equal(encoding.decode_png(data, colour=True), rgb)

    grey = encoding.encode_png(np.repeat(rgb[..., :1], 3, axis=-1))
    assert not encoding.is_colour_png(grey)
    np.testing.assert_array_equal(encoding.decode_png(grey, colour=False), rgb[..., 0])
    np.testing.assert_array_equal(
        encoding.decode_png(grey, colour=True), np.repeat(rgb[..., :1], 3, axis=-1)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4), np.float32)}, r"image is float32 \[4, 4\]"),
        ({"image": np.zeros((4, 4, 2), np.uint8)}, r"image is uint8 \[4, 4, 2\]"),
        ({"hc_mm": math.inf}, "hc_mm is inf"),
        ({"masks": {"head": np.zeros((2, 2), bool)}}, r"mask head is \[2, 2\], image \[30, 40\]"),
    ],
)
def test_what_cannot_be_stored_is_a_bad_example(change, message):
    with pytest.raises(BadExampleError, match=message):
        encoding.encode_example(dataclasses.replace(FULL, **change), 8)


def test_strings_pack_without_pickle():
    strings = ["", "a", "ä ß", ""]
    assert encoding.unpack_strings(encoding.pack_strings(strings)) == strings
