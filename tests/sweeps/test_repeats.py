import numpy as np
import pytest

from fetalclip_jax.sweeps import repeats
from tests.evaluation import saved

SCORE = "zero_shot.planes/accuracy"


def setting(name, *shares, images=200):
    """A setting with one seed for each share of right answers; the same images every time."""
    labels = np.arange(images) % 3
    found = {}
    for seed, share in enumerate(shares):
        answers = np.where(np.arange(images) < share * images, labels, (labels + 1) % 3)
        found[seed] = saved.result(saved.answered(labels, answers))
    return repeats.setting(name, {"a": name}, SCORE, found)


def verdict(*settings):
    return repeats.verdict(settings, SCORE, lower_is_better=False)


def test_the_interval_over_two_seeds_is_wide_and_that_over_many_is_not():
    two, many = setting("two", 0.7, 0.72), setting("many", *[0.7, 0.72] * 4)
    assert two.mean == pytest.approx(many.mean) == pytest.approx(0.71)
    # Student's t of one degree of freedom, on the logit scale.
    assert 0.11 < two.half_width < 0.13
    assert many.half_width < 0.01
    assert setting("one", 0.7).half_width is None


def test_the_best_is_named_where_all_others_are_told_apart():
    found = verdict(setting("a", 0.5, 0.51), setting("b", 0.9, 0.91), setting("c", 0.6, 0.61))
    assert (found.best, found.decided, found.open) == ("b", True, [])
    assert found.in_words() == "Best: b, better than each of the 2 others."
    assert [one.name for one in found.against] == ["c", "a"]


def test_settings_within_the_chance_of_seeds_are_not_told_apart():
    found = verdict(setting("a", 0.5, 0.51), setting("b", 0.9, 0.8), setting("c", 0.86, 0.82))
    assert (found.best, found.decided, found.open) == ("b", False, ["c"])
    assert found.in_words() == "Not decided between b; c. 1 of 2 others are worse than b."


def test_few_patients_leave_open_what_seeds_alone_would_decide():
    few = verdict(setting("a", 0.7, 0.7, images=20), setting("b", 0.8, 0.8, images=20))
    many = verdict(setting("a", 0.7, 0.7), setting("b", 0.8, 0.8))
    assert not few.decided
    assert many.decided


def test_one_seed_decides_nothing():
    found = verdict(setting("a", 0.5), setting("b", 0.9))
    assert not found.decided
    assert found.in_words().startswith("Not decided: one seed a setting shows nothing")
    assert found.against[0].p is None


def test_p_is_adjusted_for_all_that_are_compared(monkeypatch):
    settings = [setting("b", 0.84, 0.86), *(setting(f"a{k}", 0.80, 0.82) for k in range(4))]
    adjusted = verdict(*settings)
    assert adjusted.freedom == 5
    monkeypatch.setattr(repeats, "holm", list)
    for one, plain in zip(adjusted.against, verdict(*settings).against, strict=True):
        assert one.p == pytest.approx(4 * plain.p)


def test_one_of_many_is_called_worse_only_where_it_holds_for_all_pairs():
    close = [setting(f"a{k}", 0.83, 0.87) for k in range(4)]
    found = verdict(setting("b", 0.84, 0.88), *close, setting("c", 0.76, 0.75))
    worst = found.against[-1]
    assert (worst.name, worst.decided) == ("c", False)
    assert worst.p < 0.05
    assert "are worse" not in found.in_words()
    worse = verdict(setting("b", 0.84, 0.88), *close, setting("c", 0.5, 0.52))
    assert worse.against[-1].decided
    assert worse.in_words().endswith("1 of 5 others are worse than b.")


def test_a_result_without_the_score_is_named():
    found = saved.result(saved.answered([0, 1, 2], [0, 1, 2]), metrics=["macro_f1"])
    with pytest.raises(ValueError, match=r"accuracy was not measured of a; .*planes/macro_f1"):
        repeats.setting("a", {}, SCORE, {0: found})


def test_of_an_error_the_least_is_best():
    found = repeats.verdict(
        (setting("a", 0.5, 0.51), setting("b", 0.9, 0.91)), SCORE, lower_is_better=True
    )
    assert found.best == "a"
