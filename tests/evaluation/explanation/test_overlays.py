"""Maps over images."""

import numpy as np

from fetalclip_jax.evaluation.explanation import overlays

GREY = np.full((8, 8, 3), 100, np.uint8)


def test_a_map_colours_where_it_is_high_and_leaves_the_rest():
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3] = 0.5
    found = overlays.blended(GREY, heat)
    assert (found != GREY).any(-1).sum() == 1
    assert found[2, 3, 0] > 150  # the bright end of the scale is yellow
    assert found[2, 3, 2] < 170
    # Its scale is that of the map.
    np.testing.assert_array_equal(found, overlays.blended(GREY, 10 * heat))
    np.testing.assert_array_equal(overlays.blended(GREY, 0 * heat), GREY)


def test_a_sheet_has_a_row_for_each_image_and_a_column_for_each_method():
    heat = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    mask = np.zeros((2, 8, 8), bool)
    mask[0, 2:5, 2:5] = True
    one = overlays.sheet(GREY[None], {"grad_cam": heat[:1]}, ["$a"], mask[:1])
    two = overlays.sheet(
        np.stack([GREY, GREY]), {"grad_cam": heat, "score_cam": heat}, ["a", "b"], mask
    )
    assert two.shape[0] > 1.8 * one.shape[0]
    assert two.shape[1] > 1.3 * one.shape[1]
    plain = overlays.sheet(GREY[None], {"grad_cam": heat[:1]}, ["$a"])
    assert (plain != one).any()  # the outline
