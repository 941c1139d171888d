"""Pixels: the reference transform, file modes, normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from fetalclip_jax.data.example import BadExampleError, read_image
from fetalclip_jax.models import preprocess as images

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def reference_transform(picture: PIL.Image.Image, size: int) -> np.ndarray:
    """Pad, resize, normalise, written a second time with Pillow alone; float64 [S, S, 3]."""
    picture = picture.convert("RGB")
    side = max(picture.size)
    square = PIL.Image.new("RGB", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    square = square.resize((size, size), PIL.Image.Resampling.BICUBIC)
    return (np.asarray(square) / 255 - MEAN) / STD


def noise(mode: str, width: int, height: int) -> PIL.Image.Image:
    rng = np.random.default_rng(0)
    # Coarse noise: all frequencies, and values that reach 0 and 255 after ringing.
    rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        return PIL.Image.fromarray(rgba[..., 0].astype(np.uint16))
    return PIL.Image.fromarray(rgba, "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize(("width", "height"), [(80, 54), (53, 91), (31, 31), (200, 1)])
def test_preprocess_equals_the_reference_transform(mode, width, height):
    picture = noise(mode, width, height)
    actual = images.preprocess(picture, 32)
    assert actual.dtype == np.float32
    assert actual.shape == (32, 32, 3)
    # 1/255 in pixel units, for every channel.
    np.testing.assert_allclose(
        actual * STD, reference_transform(picture, 32) * STD, atol=1.001 / 255
    )


def test_preprocess_equals_the_reference_on_real_ultrasound(shared_data):
    path = shared_data / "hc18" / "training_set" / "010_HC.png"
    expected = reference_transform(PIL.Image.open(path), 224)
    np.testing.assert_allclose(images.preprocess(path, 224), expected, atol=1e-5)


def test_bicubic_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    # A kernel that is not widened would pick single stripes instead of their mean.
    assert np.ptp(images.square_resize(stripes, 16)[4:-4, 4:-4].astype(int)) <= 2


def test_padding_is_black_and_centred():
    square = images.square_resize(np.full((2, 5), 200, np.uint8), 5)
    np.testing.assert_array_equal(square[:, 0], [0, 200, 200, 0, 0])


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("1", False), ("L", False), ("LA", False), ("P", True), ("RGB", True), ("RGBA", True)],
)
def test_load_image_keeps_grey_grey(tmp_path, mode, colour):
    picture = noise(mode, 7, 5)
    picture.save(tmp_path / "x.png")
    pixels = images.load_image(tmp_path / "x.png")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, picture.convert("RGB" if colour else "L"))


def test_alpha_is_dropped_and_not_blended():
    picture = PIL.Image.fromarray(np.full((2, 2, 4), (200, 100, 50, 0), np.uint8), "RGBA")
    np.testing.assert_array_equal(images.to_uint8(picture)[0, 0], (200, 100, 50))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 40_000, 65_535]], np.uint16)
    PIL.Image.fromarray(values).save(tmp_path / "x.png")
    np.testing.assert_array_equal(images.load_image(tmp_path / "x.png"), [[0, 1, 156, 255]])


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "float"])
def test_undecodable_files_are_named(tmp_path, damage):
    path = tmp_path / "scan.png"
    noise("L", 64, 64).save(path)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "float":
        path = tmp_path / "scan.tiff"
        PIL.Image.fromarray(np.ones((2, 2), np.float32)).save(path)
    else:
        content = {"empty": b"", "text": b"not an image", "truncated": whole[: len(whole) // 2]}
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match="scan"):
        images.load_image(path)
    with pytest.raises(BadExampleError, match="scan") as caught:
        read_image(path)
    assert caught.value.example_id == path.name


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_preprocess_refuses_other_arrays(array):
    with pytest.raises(ValueError, match=r"pass uint8 \[H, W\]"):
        images.preprocess(array, 8)


def test_normalise_is_the_same_for_numpy_and_jax_and_for_grey_and_rgb():
    grey = np.random.default_rng(0).integers(0, 256, (2, 6, 6), dtype=np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    expected = ((rgb / 255 - MEAN) / STD).astype(np.float32)
    for batch in (grey, rgb):
        for result in (images.normalise(batch), jax.jit(images.normalise)(jnp.asarray(batch))):
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, expected, atol=1e-6)


def test_files_are_turned_as_exif_says_and_it_is_said(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # lies on its side
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    PIL.Image.fromarray(grey).save(tmp_path / "x.tiff", exif=exif)
    np.testing.assert_array_equal(images.load_image(tmp_path / "x.tiff"), np.rot90(grey, -1))
    assert images.conversions(tmp_path / "x.tiff") == ("turned as its EXIF orientation says",)


def test_what_is_done_to_a_file_is_said(tmp_path):
    deep = PIL.Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    made = {
        "deep.png": (deep, "16-bit grey scaled to 8 bits"),
        "palette.png": (noise("L", 4, 4).convert("P"), "palette turned into colours"),
        "clear.png": (noise("RGB", 4, 4).convert("RGBA"), "transparency dropped"),
        "print.tiff": (noise("RGB", 4, 4).convert("CMYK"), "mode CMYK turned into RGB"),
    }
    for name, (picture, words) in made.items():
        picture.save(tmp_path / name)
        assert images.conversions(tmp_path / name) == (words,)
    frames = [noise("L", 4, 4) for _ in range(3)]
    frames[0].save(tmp_path / "clip.tiff", save_all=True, append_images=frames[1:])
    assert images.conversions(tmp_path / "clip.tiff") == ("first of 3 frames taken",)
    noise("L", 4, 4).save(tmp_path / "plain.png")
    assert images.conversions(tmp_path / "plain.png") == ()


def test_a_strip_of_extreme_length_fits_into_memory():
    strip = np.full((2, 200_000), 200, np.uint8)
    square = images.pad_to_square(strip)
    assert square.shape == (8192, 8192)
    assert images.square_resize(strip, 16).shape == (16, 16)
