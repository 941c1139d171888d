"""Figures: what they draw is what they were given."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.evaluation.examples import Judged
from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.reports import age, gallery, plots, style


@pytest.fixture
def drawn(monkeypatch):
    """The figures of the plots called in a test, kept before they become pixels."""
    figures: list[Figure] = []
    png = style.png

    def keep(fig):
        figures.append(fig)
        return png(fig)

    monkeypatch.setattr(style, "png", keep)
    return figures


def words(fig):
    return [text.get_text() for axes in fig.axes for text in axes.texts]


def test_a_share_that_stays_zero_lies_on_an_axis_of_whole_shares(drawn):
    rows = [{"step": n, "loss": 1.0, "duplicate_caption_share": 0.0} for n in (1, 2)]
    plots.training_curves(rows, None)
    axes = next(a for a in drawn[0].axes if a.get_title(loc="left") == "Repeated captions")
    assert axes.get_ylim() == (0, 1)


def test_confusion_is_normalised_by_row_and_keeps_counts(drawn):
    plots.confusion_matrix([[3, 1, 0], [0, 0, 8]], ["a", "b"], ["a", "b", "c"], "title")
    assert words(drawn[0]) == ["75 %", "3", "25 %", "1", "100 %", "8"]
    axes = drawn[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a\nn = 4", "b\nn = 8"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 1]])


def test_true_classes_without_images_get_no_row(drawn):
    plots.confusion_matrix([[2, 0], [0, 0]], ["a", "b"], ["a", "b"], "title")
    assert len(drawn[0].axes[0].get_yticklabels()) == 1


def test_a_narrow_confusion_keeps_its_numbers_below_slanted_names(drawn):
    classes = ["a", "b", "c", "d", "lips_nose"]
    for narrow in (False, True):
        plots.confusion_matrix(np.eye(5), classes, classes, "title", narrow=narrow)
    wide, narrow = drawn
    assert words(narrow) == words(wide)
    assert narrow.get_figwidth() < wide.get_figwidth()
    assert [t.get_text() for t in narrow.axes[0].get_xticklabels()][-1] == "lips nose"


def test_a_confusion_matrix_must_fit_its_names():
    with pytest.raises(ValueError, match=r"planes: confusion has the shape \(1, 2\) for 2 labels"):
        plots.confusion_matrix([[1, 2]], ["a", "b"], ["a", "b"], "planes")


def test_long_titles_stay_in_their_panel(drawn):
    title = "Zero-shot a column whose name its owner chose to be long"
    plots.confusion_matrix([[1.0]], ["a"], ["a"], title)
    plots.f1_bars([{"title": title, "series": {"model": {"a": 0.5}}, "chance": None}] * 3)
    for fig in drawn:
        fig.draw_without_rendering()  # sizes of texts are those of the figure again
        ends = [axes.get_window_extent().x0 for axes in fig.axes[1:]] + [fig.bbox.x1]
        for axes, end in zip(fig.axes, ends, strict=True):
            texts = [child for child in axes.get_children() if isinstance(child, Text)]
            (shown,) = [text for text in texts if " ".join(text.get_text().split()) == title]
            assert shown.get_window_extent().x1 <= end


def test_lines_of_a_title_stay_apart(drawn):
    plots.confusion_matrix([[1]], ["a"], ["a"], "Zero-shot planes\nmodel / data")
    assert drawn[0].axes[0].get_title(loc="left") == "Zero-shot planes\nmodel / data"


def test_training_curves_show_the_given_values(drawn):
    metrics = [{"step": 10, "loss": 4.0}, {"step": 20, "loss": 3.0}, {"step": 20, "val_loss": 3.2}]
    plots.training_curves(metrics, chance_loss=4.2)
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert lines["training"].get_ydata().tolist() == [4.0, 3.0]
    assert lines["validation"].get_xydata().tolist() == [[20, 3.2]]
    assert lines["no learning: ln(batch) = 4.20"].get_ydata() == [4.2, 4.2]


def test_smoothing_keeps_a_constant_and_its_length():
    np.testing.assert_allclose(plots._smooth(np.full(100, 2.5)), 2.5)


def ages_of(days, ga_days, hc_mm):
    """Predictions of ages, with columns as text: unknown numbers are empty."""
    ids = np.array([f"e{k}" for k in range(len(days))])
    columns = {"ga_days": np.array(ga_days), "hc_mm": np.array(hc_mm)}
    return age.age_predictions(Predictions(ids, ids, ids, np.array(days), extra=columns))


def test_age_validity_is_that_of_the_chart():
    # At 20 weeks the WHO band is 156 to 191 mm or so: 173 lies inside, 120 and 240 do not.
    days, ga_days, hc_mm = ["140"] * 3 + [""], ["140"] * 4, ["120", "173", "240", "173"]
    assert ages_of(days, ga_days, hc_mm).valid.tolist() == [False, True, False]


def test_ages_may_be_numbers_of_which_some_are_unknown():
    ages = ages_of([140, 150], [np.nan, 151.0], [173.0, 180.0])
    np.testing.assert_array_equal(ages.true_days, [np.nan, 151])
    assert ages.predicted_days.tolist() == [140, 150]
    assert ages_of([140], [140.0], [np.nan]).hc_mm.size == 0


def test_age_chart_without_true_ages_has_the_chart_alone(drawn):
    age.age_chart(ages_of([140], [""], ["173"]), 150.0, "true age")
    assert len(drawn[0].axes) == 1
    labels = drawn[0].axes[0].get_legend_handles_labels()[1]
    assert "best constant: 21.4 weeks" in labels


def test_the_band_over_true_age_agrees_with_the_chart(drawn):
    age.age_chart(ages_of([140], [140.0], [173.0]), None, "true age")
    band = drawn[0].axes[0].collections[0].get_paths()[0]
    for true_weeks in (16.0, 22.0, 30.0):
        hc_mm = who_chart.hc_mm(np.array([true_weeks]))
        for days in range(98, 280, 3):
            valid = bool(who_chart.is_valid(np.array([days]), hc_mm)[0])
            nearby = {band.contains_point((true_weeks, days / 7 + d)) for d in (-0.05, 0.05)}
            assert valid in nearby


def test_legends_of_ages_cover_no_point(drawn):
    age.age_chart(ages_of([270, 100], [90.0, 280.0], [70.0, 360.0]), 150.0, "true age")
    for axes in drawn[0].axes:
        legend, panel = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.y1 < panel.y0


def test_a_gallery_keeps_right_and_wrong_in_rows_of_their_own(drawn):
    right = Judged("e1", "brain", "brain", (("brain", 30.0), ("femur", 20.0)))
    wrong = Judged("e2", "femur", "heart", (("heart", 25.0), ("femur", 24.0)))
    dark, bright = np.zeros((4, 4), np.uint8), np.full((2, 4, 3), 200, np.uint8)
    gallery.figure([(wrong, bright), (right, dark)])
    bands = drawn[0].subfigs
    assert [band.get_suptitle() for band in bands] == ["Right", "Wrong"]
    shown = [np.asarray(band.axes[0].images[0].get_array()) for band in bands]
    np.testing.assert_array_equal(shown[0], dark)
    # Wide images lie in the middle of a black square.
    np.testing.assert_array_equal(shown[1][1:3], bright)
    np.testing.assert_array_equal(shown[1][[0, 3]], 0)
    assert words(bands[1]) == ["heart", "25.00", "femur (true)", "24.00"]


def test_a_gallery_of_mistakes_keeps_their_order_margin_and_group(drawn):
    pairs = (("heart", 25.0), ("femur", 20.0))
    judged = [
        Judged(f"e{k}", "femur", "heart", pairs, float(5 - k), True, groups={"machine": f"M{k}"})
        for k in range(3)
    ]
    gallery.mistakes([(row, np.zeros((4, 4), np.uint8)) for row in judged], columns=2)
    (band,) = drawn[0].subfigs
    titles = [axes.get_title() for axes in band.axes if axes.images]
    assert titles == ["true: femur\nmargin 5.00", "true: femur\nmargin 4.00"]
    assert "M0" in words(band)
    assert "M2" not in words(band)


def test_pictures_keep_their_size_and_their_colours(drawn):
    with style.figure(2.0, 1.0) as fig:
        fig.set_facecolor(style.VERMILLION)
        png = style.png(fig)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (280, 140)
        seen = np.asarray(picture.convert("RGB"))[70, 140]
    np.testing.assert_allclose(seen, (0xD5, 0x5E, 0x00), atol=3)
