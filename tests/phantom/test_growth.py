"""Sizes follow the published charts; ages and fields of view follow the pretraining data."""

import numpy as np
import pytest

from fetalclip_jax.biometry import hadlock, who_chart
from fetalclip_jax.phantom import growth


@pytest.fixture(scope="module")
def fetuses() -> list[growth.Fetus]:
    rng = np.random.default_rng(0)
    return [growth.draw_fetus(rng) for _ in range(1500)]


def test_hc_meets_the_who_percentiles():
    for weeks in (14, 20, 30, 38):
        for z, percentile in ((0.0, 50.0), (1.96, 97.5), (-1.96, 2.5)):
            expected = float(who_chart.hc_mm(weeks, percentile))
            assert growth.hc_mm(7 * weeks, z) == pytest.approx(expected, rel=1e-6)


def test_every_hc_is_valid_at_its_own_age_with_spread(fetuses):
    days = np.array([f.ga_days for f in fetuses])
    hc = np.array([f.hc_mm for f in fetuses])
    assert who_chart.is_valid(days, hc).all()
    deviation = hc / who_chart.hc_mm(days / 7.0) - 1
    assert 0.02 < deviation.std() < 0.06


def test_abdomen_and_femur_charts_at_published_points():
    # Hadlock 1984, table of mean measurements: 20 weeks AC 15.0 cm, FL 3.3 cm; 36 weeks 31.7, 6.9.
    assert hadlock.ac_mm(20) == pytest.approx(150, abs=3)
    assert hadlock.fl_mm(20) == pytest.approx(33, abs=1)
    assert hadlock.ac_mm(36) == pytest.approx(317, abs=5)
    assert hadlock.fl_mm(36) == pytest.approx(70, abs=1.5)


def test_head_ellipse_has_the_stated_circumference(fetuses):
    for fetus in fetuses[:50]:
        a, b = fetus.head_semi_axes_mm
        angles = np.linspace(0, 2 * np.pi, 20001)
        path = np.stack([a * np.cos(angles), b * np.sin(angles)], -1)
        length = np.hypot(*np.diff(path, axis=0).T).sum()
        assert length == pytest.approx(fetus.hc_mm, rel=1e-5)


def test_age_distribution(fetuses):
    days = np.array([f.ga_days for f in fetuses])
    counts, edges = np.histogram(days, bins=np.arange(98, 274, 8))
    peak = edges[counts.argmax()]
    assert 130 <= peak <= 150
    assert ((days >= 110) & (days <= 200)).mean() > 0.85
    assert (days > 220).mean() > 0.01
    assert days.min() >= growth.FIRST_DAY
    assert days.max() <= growth.LAST_DAY


def test_field_of_view_fits_the_head_and_correlates_with_age_without_giving_it_away(fetuses):
    rng = np.random.default_rng(1)
    heads = np.array([2 * f.head_semi_axes_mm[0] for f in fetuses])
    fields = np.array([
        growth.draw_field_of_view_mm(rng, f, rng.standard_normal(), head, 1.0)
        for f, head in zip(fetuses, heads, strict=True)
    ])  # fmt: skip
    spacing = fields / 224
    assert spacing.min() >= 0.2
    assert spacing.max() <= 1.0
    assert 0.48 < np.median(spacing) < 0.62
    assert (fields >= 1.25 * heads - 1e-6).all()
    assert 0.3 < np.corrcoef(fields, heads)[0, 1] < 0.95
    # Size in pixels says little about size in mm; with the spacing it says everything.
    assert np.corrcoef(heads / fields, heads)[0, 1] < 0.85
