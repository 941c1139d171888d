"""Figures: what they draw is what they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from fetalclip_jax.biometry import who_chart
from fetalclip_jax.reports import age, plots, style


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


def test_a_confusion_matrix_must_fit_its_names():
    with pytest.raises(ValueError, match=r"planes: confusion has the shape \(1, 2\) for 2 labels"):
        plots.confusion_matrix([[1, 2]], ["a", "b"], ["a", "b"], "planes")


def test_training_curves_show_the_given_values(drawn):
    metrics = [{"step": 10, "loss": 4.0}, {"step": 20, "loss": 3.0}, {"step": 20, "val_loss": 3.2}]
    plots.training_curves(metrics, chance_loss=4.2)
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert lines["training"].get_ydata().tolist() == [4.0, 3.0]
    assert lines["validation"].get_xydata().tolist() == [[20, 3.2]]
    assert lines["no learning: ln(batch) = 4.20"].get_ydata() == [4.2, 4.2]


def test_smoothing_keeps_a_constant_and_its_length():
    np.testing.assert_allclose(plots._smooth(np.full(100, 2.5)), 2.5)


def test_few_shot_axis_doubles(drawn):
    result = {str(p): {"mean": 0.5, "low": 0.4, "high": 0.6} for p in (16, 2, 4, 8)}
    plots.few_shot(result | {"seconds": 3.0}, {"raw pixels": 0.3})
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "4", "8", "16"]
    assert "raw pixels: 0.30" in [line.get_label() for line in axes.lines]


def test_age_validity_is_that_of_the_chart():
    # At 20 weeks the WHO band is 156 to 191 mm or so: 173 lies inside, 120 and 240 do not.
    rows = [{"prediction": "140", "ga_days": "140", "hc_mm": str(hc)} for hc in (120, 173, 240)]
    rows += [{"prediction": "", "ga_days": "140", "hc_mm": "173"}]
    ages = age.age_predictions(rows)
    assert ages.valid.tolist() == [False, True, False]


def test_age_chart_without_true_ages_has_the_chart_alone(drawn):
    rows = [{"prediction": "140", "ga_days": "", "hc_mm": "173"}]
    age.age_chart(age.age_predictions(rows), 150, "true age")
    assert len(drawn[0].axes) == 1
    labels = drawn[0].axes[0].get_legend_handles_labels()[1]
    assert "best constant: 21.4 weeks" in labels


def test_the_band_over_true_age_agrees_with_the_chart(drawn):
    rows = [{"prediction": "140", "ga_days": "140", "hc_mm": "173"}]
    age.age_chart(age.age_predictions(rows), None, "true age")
    band = drawn[0].axes[0].collections[0].get_paths()[0]
    for true_weeks in (16.0, 22.0, 30.0):
        hc = who_chart.hc_mm(true_weeks)
        for predicted in np.arange(14.0, 40.0, 0.37):
            valid = bool(who_chart.is_valid(np.array([predicted * 7]), np.array([hc]))[0])
            nearby = {band.contains_point((true_weeks, predicted + d)) for d in (-0.05, 0.05)}
            assert valid in nearby
