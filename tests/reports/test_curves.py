"""The section of data efficiency: figures of several models, tables, and what is lacking."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from fetalclip_jax import reports
from fetalclip_jax.reports import curve_figure, curves, reading, style
from tests.evaluation.paired import DATA, few_shot, misses, zero_shot
from tests.reports.conftest import few_shot_result, save
from tests.reports.pages import Page, read_page


@pytest.fixture
def drawn(monkeypatch):
    """The figures of a test, kept before they become pixels."""
    figures: list[Figure] = []
    png = style.png

    def keep(fig):
        figures.append(fig)
        return png(fig)

    monkeypatch.setattr(style, "png", keep)
    return figures


def build(tmp_path, *results) -> Page:
    save(results, tmp_path / "results")
    return read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))


def figure_of(tmp_path, *results, references=None):
    save(results, tmp_path / "results")
    (found,) = curves.of(reading.read([tmp_path / "results"]), None).drawn.values()
    panels: dict = {}
    for one in found:
        panels.setdefault(one.panel, {})[one.name] = one.curve
    return curve_figure.figure(panels, references or {}, "title")


def test_the_axis_doubles_and_points_are_in_order(tmp_path, drawn):
    curve = [{"patients": p, "mean": p / 20, "low": 0.0, "high": 1.0} for p in (16, 2, 4, 8)]
    figure_of(tmp_path, few_shot_result(curve=curve), references={"raw pixels": 0.3})
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line for line in axes.lines}
    points = lines["trained on few patients"].get_xydata()
    np.testing.assert_allclose(points, [(p, p / 20) for p in (2, 4, 8, 16)])
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "4", "8", "16"]
    assert "raw pixels: 0.30" in lines


def test_points_without_an_interval_are_drawn(tmp_path, drawn):
    figure_of(
        tmp_path,
        few_shot_result(curve=[{"patients": 2, "mean": 0.5, "low": None, "high": None}]),
    )
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert lines["trained on few patients"].get_ydata().tolist() == [0.5]


def test_models_share_a_panel_and_data_sets_have_their_own(tmp_path, drawn):
    other = DATA | {"name": "hospital"}
    results = [few_shot(name, (0.5, 0.3, 0.1), seed=k, data=data)
               for k, name in enumerate("abcde") for data in (DATA, other)]  # fmt: skip
    figure_of(tmp_path, *results)
    (fig,) = drawn
    assert [axes.get_title(loc="left") for axes in fig.axes] == ["clinic", "hospital"]
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle())
             for line in fig.axes[0].lines if line.get_label() in "abcde"]  # fmt: skip
    assert len(looks) == 5
    for k in range(3 - 1):
        assert len({look[k] for look in looks}) == 5
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == list("abcde")


def test_one_figure_and_one_table_for_all_models(tmp_path):
    page = build(tmp_path, few_shot("a", (0.5, 0.3, 0.1)), few_shot("b", (0.6, 0.5, 0.3)))
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {"few_shot_view.png", "comparison.png"}
    row = page.row("a", "clinic", "2 to 8")
    assert " to 0." in row[3]
    assert row[-1] == "120 / 40"
    differences = [r for r in page.rows if r[0] == "a minus b"]
    assert [r[2] for r in differences] == ["2 patients", "4 patients", "8 patients", "area"]
    assert "clinic: b reaches the last score of a" in page.text
    found = json.loads((tmp_path / "curves.json").read_text())
    assert [one["model"] for one in found["curves"]] == ["a", "b"]
    assert found["curves"][0]["area"]["low"] < found["curves"][0]["area"]["value"]
    assert len(found["differences"][0]["differences"]) == 3


def test_a_single_model_keeps_its_references(tmp_path):
    probe = zero_shot("a", misses(0.2), "probe.view")
    page = build(tmp_path, few_shot("a", (0.5, 0.3, 0.1)), probe)
    assert "The horizontal lines are those of all training patients." in page.text
    assert "Paired differences" not in page.text


def test_a_budget_beyond_the_pool_is_in_the_caption(tmp_path):
    reason = "patients more than there are, for support sets of 256 and as many to validate on"
    short = few_shot("a", (0.5, 0.3, 0.1), details={"lacking": {reason: 131}})
    page = build(tmp_path, short, few_shot("b", (0.6, 0.5, 0.3)))
    assert f"Lacking of a: {reason} (131)." in page.text


def test_a_curve_that_falls_and_one_without_a_band_are_said(tmp_path):
    falls = few_shot("a", (0.5, 0.2, 0.4))
    points = [point | {"low": None, "high": None} for point in falls.curve]
    bare = dataclasses.replace(falls, model={"name": "b"}, curve=points)
    page = build(tmp_path, falls, bare)
    assert "a, b: the curve falls between some sizes; the first crossing" in page.text
    assert "Without a band at some size: b." in page.text


def test_older_curves_are_drawn_and_what_is_lacking_is_said(tmp_path):
    page = build(tmp_path, few_shot_result())
    assert page.row("quickstart", "phantom (simulated)")[3] == "0.772"
    assert "no interval of the area: the answers at every size are not kept" in page.text
