"""Data-efficiency curves: areas, patients needed, paired differences."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.evaluation import chance
from fetalclip_jax.evaluation.curve_comparison import compare_curves
from fetalclip_jax.evaluation.curves import Curve, curve, weights
from tests.evaluation.paired import few_shot, misses, zero_shot

QUICK = {"resamples": 100}


def made(sizes, values, reach=0.05):
    values = np.array(values, float)
    return Curve(tuple(sizes), values, values - reach, values + reach, None)


def test_the_area_is_the_mean_height_over_doublings():
    # Heights .2, .6, .8 at 1, 2 and 3 doublings: (.4 + .7) / 2.
    assert weights((2, 4, 8)) @ [0.2, 0.6, 0.8] == pytest.approx(0.55)
    # From 4 to 16 are two doublings: (.4 + 2 x .7) / 3.
    assert weights((2, 4, 16)) @ [0.2, 0.6, 0.8] == pytest.approx(0.6)
    assert weights((2, 4, 16)).sum() == pytest.approx(1)


def test_the_area_of_a_result_has_an_interval():
    result = few_shot("a", (0.5, 0.3, 0.1))
    found = curve(result, **QUICK)
    means = [point["mean"] for point in result.curve]
    assert found.area.value == pytest.approx(weights((2, 4, 8)) @ means)
    assert 0 < found.area.low < found.area.value < found.area.high < 1
    assert (found.area.n, found.area.groups) == (120, 40)
    assert found.notes == ()


def test_support_sets_widen_the_area_by_their_weights():
    result = few_shot("a", (0.5, 0.3, 0.1))
    sets = [chance.set_means(result, size) for size in ("2", "4", "8")]
    variance = sum(w**2 * s.var(ddof=1) / 5 for w, s in zip((0.25, 0.5, 0.25), sets, strict=True))
    found = curve(result, **QUICK).area
    # At least the reach of the sets alone, on the scale of the logit near one half.
    assert (found.high - found.low) / 2 > 2 * np.sqrt(variance)
    few = dataclasses.replace(result, curve=[p | {"support_sets": 1} for p in result.curve])
    assert curve(few, **QUICK).area.low is None
    assert "a single support set of 2 patients" in curve(few, **QUICK).notes[0]


def test_one_size_has_no_area():
    found = curve(few_shot("a", (0.2,), sizes=(4,)), **QUICK)
    assert found.area is None
    assert found.notes == ("no area: there is one size alone",)


def test_a_result_without_a_curve_is_an_error():
    with pytest.raises(ValueError, match=r"zero_shot\.view has no curve"):
        curve(zero_shot("a", misses(0.2)))


def test_older_results_have_an_area_without_an_interval():
    result = few_shot("a", (0.5, 0.3, 0.1))
    kept = dataclasses.replace(result.predictions, runs={}, ranks={})
    old = dataclasses.replace(result, predictions=kept)
    found = curve(old, **QUICK)
    assert found.area.value == pytest.approx(curve(result, **QUICK).area.value)
    assert found.area.low is None
    assert found.notes == (
        "no interval of the area: the answers at every size are not kept; evaluate again",
    )
    # The band is in the result: patients needed keep their interval.
    assert found.needed(0.6).low is not None
    with pytest.raises(ValueError, match=r"the answers of b at each size are not kept"):
        compare_curves(
            few_shot("a", (0.5, 0.3, 0.1)), dataclasses.replace(old, model={"name": "b"})
        )


def test_patients_needed_are_interpolated_between_doublings():
    found = made((2, 4, 8), (0.2, 0.6, 0.8)).needed(0.7)
    assert found.value.patients == pytest.approx(4 * 2**0.5)
    assert found.low.patients == pytest.approx(4 * 2**0.25)  # the upper edge is .65 at 4, .85 at 8
    assert found.high.patients == pytest.approx(4 * 2**0.75)
    assert str(found) == "5.7 (4.8 to 6.7)"


def test_a_score_beyond_the_sizes_has_an_open_end():
    found = made((2, 4, 128), (0.2, 0.6, 0.8))
    assert str(found.needed(0.83)) == "more than 128 (91 to more than 128)"
    assert str(found.needed(0.9)) == "more than 128"
    assert str(found.needed(0.22)) == "2.1 (at most 2 to 2.3)"
    assert str(found.needed(0.1)) == "at most 2"


def test_a_curve_without_a_band_has_no_interval():
    found = dataclasses.replace(made((2, 4), (0.2, 0.6)), lows=np.array([np.nan, 0.5]))
    assert str(found.needed(0.4)) == "2.8"


def test_the_first_crossing_of_a_curve_that_falls_again_is_told():
    found = made((2, 4, 8, 16), (0.2, 0.6, 0.4, 0.8))
    assert found.needed(0.5).value.patients == pytest.approx(2 * 2**0.75)
    assert found.needed(0.5).falls_again
    assert not found.needed(0.3).falls_again
    assert not found.needed(0.9).falls_again
    assert not found.rises
    assert made((2, 4, 8), (0.2, 0.6, 0.6)).rises


def test_curves_are_compared_at_every_common_size():
    first = few_shot("a", (0.5, 0.3, 0.1))
    second = few_shot("b", (0.6, 0.45, 0.4, 0.2), sizes=(2, 4, 8, 16))
    found = compare_curves(first, second, **QUICK)
    assert found.sizes == (2, 4, 8)
    assert found.notes == ("sizes that only one of them has are left out: 16 patients of b",)
    for one, ours, theirs in zip(found.differences, first.curve, second.curve, strict=False):
        assert one.value == pytest.approx(ours["mean"] - theirs["mean"])
    # Areas are over the common sizes, not over all that one has.
    means = [[p["mean"] for p in r.curve[:3]] for r in (first, second)]
    assert found.area.value == pytest.approx(weights((2, 4, 8)) @ np.subtract(*means))
    assert found.area.low < found.area.value < found.area.high
    assert (found.area.n, found.area.patients) == (120, 40)
    assert found.area.verdict() == "better"


def test_the_difference_of_areas_is_surer_when_the_sets_are_the_same():
    first = few_shot("a", (0.5, 0.3, 0.1), seed=1)
    same = compare_curves(first, few_shot("b", (0.6, 0.5, 0.3), seed=2), **QUICK).area
    other = few_shot("b", (0.6, 0.5, 0.3), seed=2, draws="vwxyz")
    unpaired = compare_curves(first, other, **QUICK).area
    assert same.value == unpaired.value
    assert same.high - same.low < 0.8 * (unpaired.high - unpaired.low)


def test_patients_for_the_others_final_score():
    first, second = few_shot("a", (0.5, 0.3, 0.1)), few_shot("b", (0.6, 0.45, 0.4))
    found = compare_curves(first, second, **QUICK)
    assert found.reaching[0].score == second.curve[-1]["mean"]
    assert 2 < found.reaching[0].value.patients < 4
    assert found.reaching[1].value.beyond == "more than"
