"""From any image file to the pixels the model sees."""

import contextlib
import io
import os
from collections.abc import Iterator

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import Float, UInt8

from fetalclip_jax import storage

# Channel statistics of CLIP's pretraining images (Radford et al. 2021); FetalCLIP keeps them.
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

# 16-bit samples span 0..65535 in PNG whatever the sensor's depth, so one fixed scale keeps
# brightness comparable between images; Pillow's own conversion to 8 bits would clip at 255.
_SIXTEEN_BIT_STEP = 257.0
_EXIF_ORIENTATION = 0x0112
# A square of this side is 64 MiB in grey.
_LONGEST_PADDED_SIDE = 8192


def to_uint8(image: PIL.Image.Image) -> UInt8[np.ndarray, "h w *c"]:
    """Pixels of a Pillow image: uint8 [H, W] for grey modes, [H, W, 3] for all others.

    Alpha is dropped, not blended, as Pillow's own `convert("RGB")` does. 16-bit grey is divided
    by 257, so that 65535 becomes 255; 8-bit values in a 16-bit file stay as they are.

    Raises:
      ValueError: for 32-bit images that hold anything but 16-bit values.
    """
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"mode {image.mode} with values {values.min():g} to {values.max():g} is neither "
                "8-bit nor 16-bit; save the image as 8-bit PNG"
            )
        # No 16-bit image is so dark that 255 is its brightest.
        step = 1.0 if values.max() <= 255 else _SIXTEEN_BIT_STEP
        return np.round(values / step).astype(np.uint8)
    if "transparency" in image.info:
        # Pillow warns at each such palette image unless its transparency is made a channel first.
        image = image.convert("RGBA")
    return np.array(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))


def load_image(path: str | os.PathLike) -> UInt8[np.ndarray, "h w *c"]:
    """Decodes an image file to uint8 [H, W] (grey) or [H, W, 3], turned the way EXIF says it is.

    Raises:
      ValueError: naming the file, when it is missing, empty, truncated, not an image or of an
        unsupported depth.
    """
    with _opened(path) as image:
        return to_uint8(PIL.ImageOps.exif_transpose(image))


def conversions(path: str | os.PathLike) -> tuple[str, ...]:
    """What `load_image` does to make plain 8-bit pixels of a file, in words; reads its head only.

    Raises:
      ValueError: as `load_image`.
    """
    with _opened(path) as image:
        return _conversions(image)


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[PIL.Image.Image]:
    """The opened file; whatever is found wrong with it in the block names it."""
    path = storage.path(path)
    try:
        # Reading first keeps no file handle open when decoding fails half-way.
        with PIL.Image.open(io.BytesIO(path.read_bytes())) as image:
            yield image
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"cannot decode {path}: not an image file") from error
    except storage.BucketError:  # says nothing about the image
        raise
    except Exception as error:  # on damaged bytes Pillow's decoders raise all kinds of errors
        raise ValueError(f"cannot decode {path}: {error}") from error


def _conversions(image: PIL.Image.Image) -> tuple[str, ...]:
    notes = []
    if image.mode.startswith("I"):
        notes.append("16-bit grey scaled to 8 bits")
    elif image.mode in ("P", "PA"):
        notes.append("palette turned into colours")
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        notes.append(f"mode {image.mode} turned into RGB")
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        notes.append("transparency dropped")
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        notes.append("turned as its EXIF orientation says")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"first of {image.n_frames} frames taken")
    return tuple(notes)


def pad_to_square(image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "s s *c"]:
    """Centres the image on black; an odd pixel of padding goes to the right or bottom.

    An image longer than 8192 pixels is shrunk to that first, so that its square fits into memory.
    """
    height, width = image.shape[:2]
    if height == width:
        return image
    if max(height, width) > _LONGEST_PADDED_SIDE:
        scale = _LONGEST_PADDED_SIDE / max(height, width)
        height, width = max(round(height * scale), 1), max(round(width * scale), 1)
        image = _bicubic(image, height, width)
    side = max(height, width)
    square = np.zeros((side, side, *image.shape[2:]), image.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def square_resize(image: UInt8[np.ndarray, "h w *c"], size: int) -> UInt8[np.ndarray, "s s *c"]:
    """Pads to a centred black square and resizes to `size` x `size` (Pillow's bicubic).

    Pillow widens the kernel when it shrinks (antialiasing); OpenCV's bicubic does not and would
    give other pixels than the reference transform.
    """
    square = pad_to_square(image)
    return square if len(square) == size else _bicubic(square, size, size)


def _bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    resized = PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.array(resized)


def opencv_resize(square: UInt8[np.ndarray, "h h *c"], size: int) -> UInt8[np.ndarray, "s s *c"]:
    """Resizes to `size` x `size` by OpenCV's cubic kernel, which is not antialiased.

    The transform of FetalCLIP's probes and few-shot studies (arXiv 2502.14807, its scripts).
    """
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC)


def grey_where_equal(image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *d"]:
    """One channel of a colour image whose three agree; any other image as it is."""
    if image.ndim == 2:
        return image
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    equal = np.array_equal(red, green) and np.array_equal(green, blue)
    return np.ascontiguousarray(red) if equal else image


def normalise(image):
    """uint8 [..., S, S] or [..., S, S, 3] -> float32 [..., S, S, 3], CLIP mean and std.

    Plain operators only, so that it serves NumPy arrays in a notebook and JAX arrays inside
    `jit`; grey images gain their three equal channels here, after the transfer to the device.
    """
    if image.ndim < 3 or image.shape[-1] != 3:
        image = image[..., None]
    return (image.astype(np.float32) / np.float32(255) - CLIP_MEAN) / CLIP_STD


def preprocess(
    image: PIL.Image.Image | np.ndarray | str | os.PathLike, size: int
) -> Float[np.ndarray, "s s 3"]:
    """A Pillow image, uint8 array or file -> float32 [size, size, 3] ready for the model.

    Raises:
      ValueError: for arrays that are not uint8 [H, W] or [H, W, 3], and for undecodable files.
    """
    if isinstance(image, PIL.Image.Image):
        pixels = to_uint8(image)
    elif isinstance(image, (str, os.PathLike)):
        pixels = load_image(image)
    else:
        pixels = np.asarray(image)
        grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
        if pixels.dtype != np.uint8 or not grey_or_rgb or 0 in pixels.shape:
            raise ValueError(
                f"image array is {pixels.dtype} {list(pixels.shape)}; pass uint8 [H, W] or "
                "[H, W, 3] with values 0 to 255"
            )
    return normalise(square_resize(pixels, size))
