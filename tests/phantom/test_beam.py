"""Geometry, shadows, reflections and compression."""

import dataclasses

import cv2
import numpy as np
import pytest

from fetalclip_jax.phantom import machine, rendering, shapes
from fetalclip_jax.phantom.beam import Geometry, paint
from fetalclip_jax.phantom.scene import Scene

_SECTOR = Geometry((0.0, -90.0), (-0.5, 0.5), (50.0, 130.0), (160, 101))
_LINEAR = Geometry(None, (-40.0, 40.0), (-40.0, 40.0), (161, 81))


def _square(half: float) -> np.ndarray:
    return np.array([(-half, -half), (half, -half), (half, half), (-half, half)], np.float32)


@pytest.mark.parametrize("geometry", [_SECTOR, _LINEAR])
def test_scan_conversion_agrees_with_the_scan_grid(geometry):
    lines, samples = geometry.scan_conversion(60, 80, 1.0)
    rows, columns = np.array([10, 30, 50]), np.array([20, 40, 61])
    expected = geometry.to_grid(columns + 0.5 - 40.0, rows + 0.5 - 30.0)
    np.testing.assert_allclose(
        lines[rows, columns], expected[0], atol=0.02
    )  # cv2's fast arc tangent
    np.testing.assert_allclose(samples[rows, columns], expected[1], atol=1e-3)


def test_lines_of_a_curved_probe_spread_with_depth():
    assert _SECTOR.line_mm(1.0) == pytest.approx(_SECTOR.line_mm(0.0) * 130 / 50)
    assert _LINEAR.line_mm(1.0) == _LINEAR.line_mm(0.0)


@pytest.mark.parametrize("geometry", [_SECTOR, _LINEAR])
def test_bone_casts_a_shadow_and_fluid_enhances(geometry):
    center = geometry.shape[1] // 2
    scene = Scene()
    scene.fluid(_square(8.0))
    assert paint(scene, geometry).loss_db[-1, center] < -0.5
    bar = np.array([(-8, 0), (8, 0)], np.float32)
    scene.line(bar, 25.0, 2.0, loss_db=20.0)
    echoes = paint(scene, geometry)
    assert echoes.loss_db[-1, center] > 10
    assert echoes.loss_db[-1, 2] == pytest.approx(0.0, abs=0.1)
    assert echoes.loss_db[10, center] == pytest.approx(0.0, abs=0.1)


def test_interfaces_are_brightest_square_to_the_beam():
    scene = Scene()
    scene.line(shapes.ellipse((0, 0), (20, 20)), 20.0, 1.0, closed=True)
    specular = paint(scene, _LINEAR).specular
    top, side = specular[38:44, 40].max(), specular[78:83, 58:63].max()
    assert top == pytest.approx(10.0, rel=0.2)
    assert side < 0.2 * top


def test_opaque_regions_hide_what_was_painted_before():
    scene = Scene()
    scene.line(np.array([(-5, 0), (5, 0)], np.float32), 20.0, loss_db=5.0)
    assert paint(scene, _LINEAR).specular.max() > 5
    scene.fill(_square(10.0), 0.0, opaque=True)
    echoes = paint(scene, _LINEAR)
    assert echoes.specular.max() == 0
    assert echoes.loss_db.max() == pytest.approx(0.0, abs=1e-4)


def test_compression_maps_more_dynamic_range_to_less_contrast():
    style = machine.draw_machine(np.random.default_rng(0))
    amplitude = np.repeat(10 ** (np.array([-40.0, -20.0, 0.0, 40.0]) / 20), 30)[:, None]
    amplitude = np.repeat(amplitude, 9, 1).astype(np.float32)
    narrow, wide = (
        rendering.compress(
            amplitude, np.zeros(1), dataclasses.replace(style, dynamic_range_db=d, grey_gamma=1.0)
        )[15::30, 4]
        for d in (50.0, 68.0)
    )
    assert (np.diff(narrow) > 0).all()
    assert narrow[-1] == wide[-1] == 1.0
    assert narrow[2] < wide[2]
    assert narrow[2] - narrow[1] == pytest.approx(20 / 50, abs=1e-3)


def test_depth_marks_are_ten_millimetres_apart_and_outside_is_black():
    style = _plain_machine(ticks="left", tick_length=2)
    image = rendering.render(Scene(), _SECTOR, style, np.random.default_rng(1), (180, 240), 0.4)
    marks = np.flatnonzero(image[:, 6] == 215)
    starts = marks[np.insert(np.diff(marks) > 1, 0, True)]
    assert len(starts) >= 6
    np.testing.assert_allclose(np.diff(starts) * 0.4, 10.0, atol=0.5)
    assert image[2, 12:30].max() == 0


def _plain_machine(**changes) -> machine.Machine:
    style = machine.draw_machine(np.random.default_rng(0))
    plain = {"ticks": "none", "grey_bar": 0, "text": "none", "band": 0.0}
    return dataclasses.replace(style, **(plain | changes))


def _render(style: machine.Machine, scene: Scene | None = None) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rendering.render(scene or Scene(), _LINEAR, style, rng, (180, 240), 0.4)


@pytest.mark.parametrize("text", ["lines", "numbers"])
def test_settings_stand_in_the_upper_right_corner(text):
    plain, written = _render(_plain_machine()), _render(_plain_machine(text=text))
    added = written.astype(int) - plain
    rows, columns = np.nonzero(added[:, 120:])
    assert len(rows) > 30
    assert rows.max() < 90
    assert columns.min() > 10
    # It is written over the picture, which stays below it.
    np.testing.assert_array_equal(written[90:], plain[90:])


def test_a_band_is_left_black_at_the_bottom():
    image = _render(_plain_machine(band=0.1))
    assert image[162:].max() == 0
    assert image[:162].mean() > 10


def test_boxes_remove_text_from_two_corners():
    image = _render(_plain_machine(text="boxes"))
    assert image[:10, -15:].max() == 0
    assert image[-10:, -15:].max() == 0


def test_the_operator_turns_the_gain_up_where_everything_is_faint():
    means = []
    for echo_db in (-30.0, -15.0, 0.0):
        scene = Scene()
        scene.fill(_square(200.0), echo_db)
        means.append(_render(_plain_machine(noise_db=-60.0), scene).mean())
    assert means[0] < means[1] < means[2]
    # 30 dB would leave nothing at all of a picture of half that range.
    assert means[0] > 0.1 * means[2]


def test_contact_is_lost_at_the_sides_more_than_in_the_middle():
    curves = np.stack([rendering.contact(np.random.default_rng(s), 101) for s in range(300)])
    lost = (curves < -8).mean(0)
    assert lost[40:61].mean() < 0.5 * lost[[*range(12), *range(89, 101)]].mean()
    assert 0.02 < (curves < -8).mean() < 0.3


@pytest.mark.parametrize("layout", ["wide", "zoomed", "endocavity", "linear"])
def test_every_layout_covers_the_middle_of_the_window(layout):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        style = dataclasses.replace(machine.draw_machine(rng), layout=layout)
        geometry = machine.draw_geometry(rng, style, (90.0, 120.0), 1.25)
        lines, samples = geometry.scan_conversion(72, 96, 1.25)
        inside = (lines >= 0) & (lines <= geometry.shape[1] - 1)
        inside &= (samples >= 0) & (samples <= geometry.shape[0] - 1)
        assert inside[30:60, 36:60].all()
        assert inside.mean() > 0.35


def test_mask_area_is_the_area_of_the_outline():
    outline = shapes.ellipse((3.0, -2.0), (30.0, 20.0), 0.4, 96)
    found = rendering.mask([outline], (180, 240), 0.4)
    area = cv2.contourArea(outline)
    assert found.sum() * 0.4**2 == pytest.approx(area, rel=0.015)
