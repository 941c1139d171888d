import numpy as np
import pytest

from fetalclip_jax.biometry import who_chart


def test_published_medians():
    np.testing.assert_allclose(
        who_chart.hc_mm(np.array([14, 20, 40])), [99.54, 173.39, 342.09], atol=0.005
    )


def test_percentiles_enclose_the_median():
    weeks = np.arange(14, 41)
    low, median, high = (who_chart.hc_mm(weeks, p) for p in (2.5, 50.0, 97.5))
    assert (low < median).all()
    assert (median < high).all()
    assert (np.diff(median) > 0).all()


def test_age_from_median_head_circumference_is_its_inverse():
    days = np.arange(14 * 7, 40 * 7 + 1)
    np.testing.assert_array_equal(who_chart.ga_days_from_hc(who_chart.hc_mm(days / 7)), days)
    assert who_chart.ga_days_from_hc(173.39) == 140


@pytest.mark.parametrize("day", [98, 140, 272])
def test_validity_at_the_edges_of_the_band(day):
    low, high = who_chart.hc_mm(day / 7, 2.5), who_chart.hc_mm(day / 7, 97.5)
    hc = np.array([low - 1e-6, low, (low + high) / 2, high, high + 1e-6])
    assert who_chart.is_valid(np.full(5, day), hc).tolist() == [False, True, True, True, False]


def test_other_percentile_is_refused():
    with pytest.raises(ValueError, match="percentile 3"):
        who_chart.hc_mm(20, 3.0)
