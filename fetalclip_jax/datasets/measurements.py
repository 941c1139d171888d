"""Pixel spacing and head circumference of image files, from a table beside a data set.

Columns: Image_name, width, height, pixel_spacing_mm, hc_mm. A measurement is of one file: the
table states the size the file must have, for the spacing of a resized copy is another one.
"""

import dataclasses
from collections.abc import Container

from fetalclip_jax import storage
from fetalclip_jax.data.checks import implausible
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets import tables


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is known of one image file: its size in pixels, and numbers in mm or None."""

    width: int
    height: int
    pixel_spacing_mm: float | None
    hc_mm: float | None

    def check_size(self, example_id: str, shape: tuple[int, ...]) -> None:
        """Raises BadExampleError where the file read is not the one that was measured."""
        if shape[:2] != (self.height, self.width):
            raise BadExampleError(
                example_id,
                f"the measured image has {self.width} x {self.height} pixels, the file "
                f"{shape[1]} x {shape[0]}: its spacing belongs to another file; correct or remove "
                "its row of measurements",
            )


def read(
    path: storage.Path, images: Container[str]
) -> tuple[dict[str, Measurement], tuple[str, ...]]:
    """Measurements by image name, and a note of numbers that cannot be true and are not used.

    No file, no measurements. An image without any number has no measurement.

    Raises:
      ValueError: for a missing column, a name twice or not in `images`, text for a number.
    """
    if not path.is_file():
        return {}, ()
    table = tables.read_table(path)
    table.check_columns("Image_name", "width", "height", "pixel_spacing_mm", "hc_mm")
    seen: set[str] = set()
    measured: dict[str, Measurement] = {}
    unused: list[str] = []
    for row in table.rows:
        name, where = row.cells["Image_name"], table.where(row)
        if name not in images or name in seen:
            what = "is listed twice" if name in seen else "is not an image of the data set"
            raise ValueError(f"{where}: Image_name {name!r} {what}")
        seen.add(name)
        numbers = [
            _plausible(where, name, field, row.cells[field], unused)
            for field in ("pixel_spacing_mm", "hc_mm")
        ]
        if any(number is not None for number in numbers):
            size = [int(_number(where, side, row.cells[side])) for side in ("width", "height")]
            measured[name] = Measurement(*size, *numbers)
    if not unused:
        return measured, ()
    return measured, (f"{len(unused)} numbers in {path} are not used; first: {unused[0]}",)


def _plausible(where: str, name: str, field: str, text: str, unused: list[str]) -> float | None:
    if not text:
        return None
    number = _number(where, field, text)
    if reason := implausible(field, number):
        unused.append(f"{name}: {reason}")
        return None
    return number


def _number(where: str, column: str, text: str) -> float:
    try:
        return tables.number(text)
    except ValueError:
        raise ValueError(f"{where}: {column} is {text!r}, not a number") from None
