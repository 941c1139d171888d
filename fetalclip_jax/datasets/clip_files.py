"""Clips as files: a folder of frames, a video, an array, or an image of several pages.

A clip is a sequence of its frames that reads one when it is asked for it, so that a long video is
never in memory as a whole.
"""

import io
import os
import re
import zipfile
from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image
import PIL.ImageSequence
from jaxtyping import UInt8

from fetalclip_jax import storage
from fetalclip_jax.data.example import BadExampleError, Frames, read_image
from fetalclip_jax.models.preprocess import to_uint8

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_ARRAY_SUFFIXES = (".npy", ".npz")
_PAGED_SUFFIXES = (".tif", ".tiff", ".gif", ".webp")
# A video with fewer than this share of the frames that its head announces is cut off. Less than
# one, for some heads count by the duration and the rate.
_LEAST_DECODED = 0.9


def open_clip(path: storage.Path, frames: Sequence[str], example_id: str) -> Frames:
    """The frames of a clip.

    Args:
      path: of its folder or file.
      frames: names of the frames in a folder, in order; empty for a file.
      example_id: of the clip.

    Raises:
      BadExampleError: named after the clip: one without a frame, a file that cannot be decoded or
        holds something else.
    """
    suffix = path.suffix.lower()
    try:
        if frames:
            found = _Folder(path, frames)
        elif path.is_dir():
            raise ValueError(
                f"the folder {path.name} holds no frame ({', '.join(FRAME_SUFFIXES)}); leave the "
                "clip out of the table"
            )
        elif suffix in _ARRAY_SUFFIXES:
            found = _array(path)
        elif suffix in _PAGED_SUFFIXES:
            found = _Pages(path)
        else:
            found = _Video(path)
    except storage.BucketError:  # says nothing about the clip
        raise
    except ValueError as error:
        raise BadExampleError(example_id, str(error)) from error
    return OfOneSize(found, example_id)


def frame_names(names: Sequence[str]) -> list[str]:
    """Those of frames, in the order of their numbers: "frame2.png" comes before "frame10.png"."""
    frames = [
        name for name in names if name.lower().endswith(FRAME_SUFFIXES) and not name.startswith(".")
    ]
    return sorted(frames, key=_natural)


class OfOneSize:
    """Frames that are checked when they are read."""

    def __init__(self, frames: Frames, example_id: str):
        self._frames, self._example_id = frames, example_id
        self._first: tuple[int, tuple[int, int]] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "h w *c"]:
        """Raises BadExampleError for a frame that cannot be read, or of another size."""
        if not 0 <= number < len(self):
            raise IndexError(f"frame {number} of {len(self)}")
        try:
            frame = self._frames[number]
        except storage.BucketError:
            raise
        except ValueError as error:
            raise BadExampleError(self._example_id, str(error)) from error
        first, size = self._first or (number, frame.shape[:2])
        if frame.shape[:2] != size:
            raise BadExampleError(
                self._example_id,
                f"frame {number} is {frame.shape[1]} x {frame.shape[0]} pixels and frame {first} "
                f"is {size[1]} x {size[0]}; give all frames of a clip one size",
            )
        self._first = first, size
        return frame


class _Folder:
    """A file for each frame."""

    def __init__(self, path: storage.Path, names: Sequence[str]):
        self._path, self._names = path, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> np.ndarray:
        return read_image(self._path / self._names[number])


class _Pages:
    """An image file of several pages, such as TIFF or GIF."""

    def __init__(self, path: storage.Path):
        self._name = path.name
        try:
            self._image = PIL.Image.open(io.BytesIO(path.read_bytes()))
            self._pages = getattr(self._image, "n_frames", 1)
        except PIL.UnidentifiedImageError as error:
            raise ValueError(f"cannot decode {path.name}: not an image file") from error
        except storage.BucketError:
            raise
        except Exception as error:  # on damaged bytes Pillow's decoders raise all kinds of errors
            raise ValueError(f"cannot decode {path.name}: {error}") from error

    def __len__(self) -> int:
        return self._pages

    def __getitem__(self, number: int) -> np.ndarray:
        try:
            self._image.seek(number)
            return to_uint8(self._image)
        except Exception as error:
            raise ValueError(
                f"frame {number} of {self._name} cannot be decoded: {error}"
            ) from error


class _Video:
    """Whatever OpenCV decodes, read forwards: seeking is not exact in many files."""

    def __init__(self, path: storage.Path):
        self._name = path.name
        # OpenCV reads from disks.
        self._file = os.fspath(storage.local_copy(path))
        self._open()
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        while self._capture.grab():
            self._next += 1
        self._frames = self._next
        if not self._frames:
            raise ValueError(f"{self._name} holds no frame that can be decoded; make it again")
        if self._frames < _LEAST_DECODED * announced:
            raise ValueError(
                f"{self._name} announces {announced} frames, and {self._frames} can be decoded: it "
                "is cut off or damaged; copy it again"
            )

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, number: int) -> np.ndarray:
        if number < self._next:
            self._open()
        while self._next < number and self._capture.grab():
            self._next += 1
        read, frame = self._capture.read()
        self._next += 1
        if not read:
            raise ValueError(f"frame {number} of {self._name} cannot be decoded; make it again")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def _open(self) -> None:
        self._capture, self._next = cv2.VideoCapture(self._file), 0
        if not self._capture.isOpened():
            raise ValueError(
                f"{self._name} is no video that can be decoded here; convert it to AVI (MJPG), MP4 "
                "or a folder of PNG files"
            )


def _array(path: storage.Path) -> UInt8[np.ndarray, "t h w *c"]:
    try:
        # A memory map: of a long clip only the frames that are shown are read.
        mapped = None if path.suffix.lower() == ".npz" else "r"
        found = np.load(storage.local_copy(path), mmap_mode=mapped, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found as arrays:
                if len(arrays.files) != 1:
                    raise ValueError(f"it holds {len(arrays.files)} arrays, not one")
                found = arrays[arrays.files[0]]
    except storage.BucketError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {path.name}: {error}") from error
    grey_or_rgb = found.ndim == 3 or (found.ndim == 4 and found.shape[3] == 3)
    if found.dtype != np.uint8 or not grey_or_rgb or 0 in found.shape:
        raise ValueError(
            f"{path.name} is {found.dtype} {list(found.shape)}; give uint8 [T, H, W] or "
            "[T, H, W, 3] with one frame or more"
        )
    return found


def _natural(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]
