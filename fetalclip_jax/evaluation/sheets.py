"""Contact sheets: images of a list side by side, numbered as in its table."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from fetalclip_jax.models import preprocess

_SIDE, _GAP, _PAPER, _INK = 180, 8, 255, 40
_HEADER = 20


def contact_sheet(
    groups: Sequence[Sequence[UInt8[np.ndarray, "..."] | None]], columns: int
) -> UInt8[np.ndarray, "h w"]:
    """Groups of images, each below its number from 1 on, in rows.

    Args:
      groups: of equal size, one or more; an image that cannot be read is None and stays grey.
      columns: groups in a row.
    """
    tiles = [_tile(number, images) for number, images in enumerate(groups, 1)]
    columns = min(columns, len(tiles))
    empty = np.full_like(tiles[0], _PAPER)
    tiles += [empty] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _tile(number: int, images) -> np.ndarray:
    squares = []
    for image in images:
        square = np.full((_SIDE, _SIDE), _PAPER - 60, np.uint8)
        if image is not None:
            found = preprocess.square_resize(image, _SIDE)
            square = found if found.ndim == 2 else cv2.cvtColor(found, cv2.COLOR_RGB2GRAY)
        squares.append(np.pad(square, ((0, 0), (0, 2)), constant_values=_PAPER))
    row = np.concatenate(squares, 1)
    tile = np.pad(row, ((_HEADER, _GAP), (0, _GAP)), constant_values=_PAPER)
    cv2.putText(tile, str(number), (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
    return tile
