"""Ellipses and annotated outlines."""

import cv2
import numpy as np

from fetalclip_jax.biometry.ellipses import fill_outline


def test_an_outline_cut_by_the_border_is_filled_up_to_it():
    outline = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 5), (30, 40), 0, 0, 360, 255, 1)
    filled = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 5), (30, 40), 0, 0, 360, 1, -1)
    assert (fill_outline(outline) != filled.astype(bool)).mean() < 0.01
