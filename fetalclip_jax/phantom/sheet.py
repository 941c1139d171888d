"""A labelled contact sheet: `python -m fetalclip_jax.phantom.sheet docs/phantom.png`."""

import argparse
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from fetalclip_jax.phantom.simulator import Phantom, PhantomExample

_CELL, _LABEL = 192, 18
# Spacings are quoted at the image size of the published model.
_SPACING_SIZE = 224


def _columns() -> list[tuple[str, str, str]]:
    """Title, field and value that an example must have, one per row of the sheet."""
    return [
        ("trans-thalamic", "brain_plane", "trans-thalamic"),
        ("trans-cerebellum", "brain_plane", "trans-cerebellum"),
        ("trans-ventricular", "brain_plane", "trans-ventricular"),
        ("abdomen", "plane", "abdomen"),
        ("femur", "plane", "femur"),
        ("heart: normal", "label", "normal"),
        ("heart: septal defect", "label", "ventricular_septal_defect"),
        ("heart: hypoplastic left", "label", "hypoplastic_left_heart"),
        ("kidney", "plane", "kidney"),
        ("lips and nose", "plane", "lips_nose"),
        ("profile", "plane", "profile_patient"),
        ("spine", "plane", "spine"),
        ("cervix", "plane", "cervix"),
        ("other", "plane", "other"),
    ]


def _examples(seed: int, field: str, value: str) -> Iterator[PhantomExample]:
    plane = {"brain_plane": "brain", "label": "heart"}.get(field, value)
    phantom = Phantom(seed, _CELL, images_per_patient=1, plane_weights={plane: 1.0})
    index = 0
    while True:
        example = phantom[index]
        index += 1
        if getattr(example, field) == value:
            yield example


def _cell(example: PhantomExample) -> np.ndarray:
    cell = np.zeros((_CELL, _CELL), np.uint8)
    height, width = example.image.shape
    top, left = (_CELL - height) // 2, (_CELL - width) // 2
    cell[top : top + height, left : left + width] = example.image
    weeks, days = divmod(example.ga_days, 7)
    spacing_mm = max(example.image.shape) / _SPACING_SIZE * example.pixel_spacing_mm
    text = f"{weeks}w{days}d {spacing_mm:.2f} mm"
    cv2.putText(cell, text, (4, _CELL - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.33, 170, 1, cv2.LINE_AA)
    return cell


def contact_sheet(seed: int = 7, per_plane: int = 3) -> np.ndarray:
    """One labelled row of `per_plane` images for every plane, in two columns; uint8 [H, W]."""
    rows = []
    for title, field, value in _columns():
        source = _examples(seed, field, value)
        cells = np.concatenate([_cell(next(source)) for _ in range(per_plane)], 1)
        label = np.full((_LABEL, cells.shape[1]), 40, np.uint8)
        cv2.putText(label, title, (6, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1, cv2.LINE_AA)
        rows.append(np.concatenate([label, cells]))
    half = (len(rows) + 1) // 2
    return np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=pathlib.Path, help="PNG to write")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-plane", type=int, default=3)
    args = parser.parse_args()
    args.path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", contact_sheet(args.seed, args.per_plane))[1]
    args.path.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    main()
