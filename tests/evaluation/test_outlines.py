"""Measures of outlines against loops over images and runs."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.evaluation import outlines, subgroups
from fetalclip_jax.evaluation.comparison import compare
from fetalclip_jax.evaluation.outlines import Outlines
from fetalclip_jax.evaluation.result import Predictions, Result
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap


def make(runs=3, images=12, seed=0, head=False):
    rng = np.random.default_rng(seed)
    structures = ("head",) if head else ("heart", "aorta")
    k = len(structures)
    true = rng.integers(1, 50, (images, k))
    predicted = rng.integers(1, 50, (runs, images, k))
    true[2:5, -1], predicted[:, 3:6, -1] = 0, 0  # truth, prediction, or both are empty
    both = np.minimum(true[None], rng.integers(0, 50, predicted.shape))
    both = np.minimum(both, predicted).astype(np.float64)
    away = rng.uniform(0, 9, predicted.shape)
    away[(predicted == 0) | (true[None] == 0)] = np.nan
    hc_mm, true_hc_mm = rng.uniform(90, 300, (runs, images)), rng.uniform(90, 300, images)
    hc_mm[0, 1] = hc_mm[:, 4] = true_hc_mm[7] = np.nan
    circumference = (hc_mm, true_hc_mm) if head else (None, None)
    return Outlines(structures, true, both, predicted.astype(float), away, *circumference)


def mean(values):
    values = [one for one in values if np.isfinite(one)]
    return sum(values) / len(values) if values else np.nan


def slow_dice(both, predicted, true):
    return 2 * both / (predicted + true) if predicted + true else np.nan


def slow(one: Outlines, rows, structures=None):
    """Every metric by loops."""
    structures = range(len(one.structures)) if structures is None else structures
    runs, found = range(len(one.predicted)), {}
    pooled, image, away = [], [], []
    for r in runs:
        pooled.append(
            mean(
                slow_dice(
                    sum(one.intersection[r, i, k] for i in rows),
                    sum(one.predicted[r, i, k] for i in rows),
                    sum(one.true[i, k] for i in rows),
                )
                for k in structures
            )
        )
        image.append(
            mean(
                mean(
                    slow_dice(one.intersection[r, i, k], one.predicted[r, i, k], one.true[i, k])
                    for i in rows
                )
                for k in structures
            )
        )
        away.append(mean(mean(one.hausdorff95_mm[r, i, k] for i in rows) for k in structures))
    found["dice"], found["image_dice"] = mean(pooled), mean(image)
    found["hausdorff95_mm"] = mean(away)
    if one.hc_mm is not None:
        differences = [
            [d for i in rows if np.isfinite(d := one.hc_mm[r, i] - one.true_hc_mm[i])] for r in runs
        ]
        found["hc_bias_mm"] = mean(mean(own) for own in differences)
        found["hc_mae_mm"] = mean(mean(map(abs, own)) for own in differences)
        for name, times in (("lower", -1.96), ("upper", 1.96)):
            found[f"hc_{name}_limit_mm"] = mean(
                np.mean(own) + times * np.std(own, ddof=1) for own in differences
            )
    return found


@pytest.mark.parametrize("head", [False, True])
def test_every_metric_is_the_mean_over_the_runs(head):
    one = make(head=head)
    measured, rows = one.measures(), range(12)
    found = {name: m.measure.value for name, m in measured.items()}
    expected = slow(one, rows)
    if not head:
        for k, name in enumerate(one.structures):
            expected |= {f"{metric}_{name}": v for metric, v in slow(one, rows, [k]).items()}
    assert found == pytest.approx(expected)
    assert next(iter(found)) == "dice"
    np.testing.assert_allclose(np.mean(one.run_dice()), found["dice"])


@pytest.mark.parametrize("head", [False, True])
def test_a_resample_is_measured_as_those_images_are(head):
    one = make(head=head)
    drawn = [0, 0, 1, 2, 5, 8, 8, 8, 9, 11, 10, 6]
    weights = np.bincount(drawn, minlength=12)[None].astype(float)
    expected = slow(one, drawn)
    for name, each in one.measures().items():
        if name in expected:
            found = each.measure.weighted(weights[:, each.rows], np.arange(len(each.rows)))
            assert found[0] == pytest.approx(expected[name]), name


def test_a_resample_without_a_structure_says_nothing_of_it():
    one = make()
    one.true[1:, 1], one.predicted[:, 1:, 1], one.intersection[:, 1:, 1] = 0, 0, 0
    measure = one.measures()["dice_aorta"].measure
    weights = np.eye(12)[[3]]
    assert measure.weighted(weights, np.arange(12))[0] == pytest.approx(measure.value)
    estimate = Bootstrap(np.arange(12), 50).estimate(measure)
    assert estimate.low <= estimate.value <= estimate.high


def subset(one: Outlines, rows):
    by_run = ("intersection", "predicted", "hausdorff95_mm", "hc_mm")
    chosen = {name: getattr(one, name) for name in by_run}
    chosen = {name: None if v is None else v[:, rows] for name, v in chosen.items()}
    hc_mm = None if one.true_hc_mm is None else one.true_hc_mm[rows]
    return dataclasses.replace(one, true=one.true[rows], true_hc_mm=hc_mm, **chosen)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("rows", [[0, 1, 6, 9], [3, 4], [8]])
def test_some_of_the_images_are_measured_as_if_there_were_no_others(head, rows):
    one, chosen = make(head=head), np.isin(np.arange(12), rows)
    expected = {name: m.measure.value for name, m in subset(one, chosen).measures().items()}
    parts = {name: m.among(chosen) for name, m in one.measures().items()}
    found = {name: m.measure.value for name, m in parts.items() if m.measure.defined}
    if not any(name.startswith("hc_") for name in expected):  # one circumference alone
        found = {name: value for name, value in found.items() if not name.startswith("hc_")}
        assert not any("limit" in name for name, m in parts.items() if m.measure.defined)
    assert found == pytest.approx(expected)
    if not head and rows == [3, 4]:
        assert "hausdorff95_mm_aorta" not in found
        assert "dice_aorta" not in found


def test_structures_that_nobody_has_take_no_part():
    one = make()
    one.true[:, 1] = 0
    assert "dice_aorta" not in one.measures()
    alone = slow(one, range(12), [0])["dice"]
    assert one.measures()["dice"].measure.value == pytest.approx(alone)
    assert one.run_dice().mean() == pytest.approx(alone)


def test_what_is_not_defined_is_counted():
    counted = make(runs=2).undefined(np.ones(12))
    assert counted == {
        "aorta: nothing drawn, no Hausdorff distance": 2,
        "aorta: drawn where there is none, no Hausdorff distance": 2,
        "aorta: neither there nor drawn, no Dice of the image": 4,
    }
    # Image 1 of the first run; image 4, without an ellipse, has no head either.
    heads = make(head=True).undefined(np.ones(12))
    assert heads["head: no plausible ellipse, no circumference"] == 1
    assert heads["head: never measured, no error of the circumference"] == 3  # image 7


def test_an_unknown_pixel_spacing_is_no_failed_ellipse():
    one, spacing_mm = make(head=True), np.ones(12)
    spacing_mm[[3, 8]] = np.nan  # of image 3 nothing is there, or drawn
    one.hausdorff95_mm[:, 8] = one.hc_mm[:, 8] = np.nan
    counted = one.undefined(spacing_mm)
    assert counted["head: no pixel spacing, no Hausdorff distance"] == 3
    assert counted["head: no pixel spacing, no circumference"] == 3
    assert counted["head: no plausible ellipse, no circumference"] == 1
    found = one.measures()["hausdorff95_mm"]
    assert 8 not in found.rows
    assert len(found.rows) == 12 - len([2, 3, 4, 5, 8])


def test_without_two_circumferences_there_is_no_error_of_them():
    one = make(head=True)
    one.hc_mm[:, 1:] = np.nan
    assert not any(name.startswith("hc_") for name in one.measures())
    unknown = dataclasses.replace(make(), hausdorff95_mm=np.full((3, 12, 2), np.nan))
    assert not any("hausdorff" in name for name in unknown.measures())


@pytest.mark.parametrize("head", [False, True])
def test_predictions_give_the_outlines_back(head):
    one, text = make(head=head), np.array([f"i{i}" for i in range(12)])
    smaller = make(seed=1, head=head)
    predictions = Predictions(
        text, text, text, text,
        candidates=one.structures,
        extra=one.columns(),
        runs={"2": smaller.kept(), "16": one.kept()},
    )  # fmt: skip
    found = Outlines.of(predictions, "16")
    assert found.structures == one.structures
    for name in ("true", "intersection", "predicted"):
        np.testing.assert_array_equal(getattr(found, name), getattr(one, name))
    for name in ("hausdorff95_mm", "hc_mm", "true_hc_mm"):
        if getattr(one, name) is not None:
            np.testing.assert_allclose(getattr(found, name), getattr(one, name), rtol=1e-6)
    largest = outlines.of_result(predictions)
    expected = one.measures()
    assert list(largest) == list(expected)
    for name in expected:
        assert largest[name].measure.value == pytest.approx(
            expected[name].measure.value, rel=1e-5
        )  # fmt: skip
    with pytest.raises(ValueError, match="no outlines of runs '4'"):
        Outlines.of(predictions, "4")


def test_columns_of_the_table_are_means_over_the_runs():
    one = make(head=True)
    found = one.columns()
    assert found["head_dice"][0] == pytest.approx(one.image_dice[:, 0, 0].mean())
    assert found["hc_mm_of_ellipse"][1] == pytest.approx(one.hc_mm[1:, 1].mean())
    assert np.isnan(found["hc_mm_of_ellipse"][4])
    assert np.isnan(found["head_dice"][4])


def test_one_run_alone():
    one = make(head=True)
    alone = one.of_run(1)
    assert alone.measures()["dice"].measure.value == pytest.approx(one.run_dice()[1])
    np.testing.assert_array_equal(alone.hc_mm, one.hc_mm[1:2])


def result_of(one: Outlines, model: str) -> Result:
    ids = np.array([f"i{i}" for i in range(12)])
    return Result(
        "segmentation.some",
        Bootstrap(ids, 20).estimates(one.measures()),
        model={"name": model},
        data={"name": "d"},
        predictions=Predictions(
            ids, ids, ids, ids,
            candidates=one.structures, extra=one.columns(), runs={"": one.kept()},
        ),
    )  # fmt: skip


def test_to_draw_nothing_where_it_is_hard_wins_nothing():
    bold = make(runs=1)
    bold.true[:], bold.predicted[:], bold.intersection[:] = 40, 40, 36
    bold.hausdorff95_mm[:] = 0.5
    # The aorta of four images is hard: one model draws it badly, the other does not.
    bold.hausdorff95_mm[:, :4, 1] = 20.0
    shy = subset(bold, np.arange(12))
    for values, missed in ((shy.predicted, 0), (shy.intersection, 0), (shy.hausdorff95_mm, np.nan)):
        values[:, :4, 1] = missed
    pair = result_of(bold, "bold"), result_of(shy, "shy")
    comparison = compare(*pair, resamples=20)
    found = {one.metric: one for one in comparison.differences}
    for metric, n in (("hausdorff95_mm", 12), ("hausdorff95_mm_aorta", 8)):
        assert (found[metric].first, found[metric].second) == (0.5, 0.5)
        assert found[metric].n == n
    assert pair[1].metrics["hausdorff95_mm_aorta"].n == 8
    assert found["image_dice_aorta"].first > found["image_dice_aorta"].second
    assert (
        "hausdorff95_mm_aorta is compared where both models have a number, on 8 images; of all "
        "that each has a number of it is 7.0000 for bold and 0.5000 for shy"
    ) in comparison.notes
    assert not any("measured again" in note for note in comparison.notes)


def test_subgroups_that_lack_a_structure_are_not_held_against_others():
    one = make(runs=2)
    for values, none in (
        (one.predicted, 0), (one.intersection, 0), (one.hausdorff95_mm, np.nan), (one.true[None], 0)
    ):  # fmt: skip
        values[:, 6:, 1] = none
    result = result_of(one, "m")
    result.predictions.groups["machine"] = np.repeat(["A", "B"], 6)
    found = subgroups.split(result, "machine")
    with_aorta, without = (set(group.metrics) for group in found.groups)
    assert with_aorta == set(result.metrics)
    assert without == {name for name in result.metrics if not name.endswith("aorta")}
    assert set(found.largest) == {name for name in result.metrics if name.endswith("heart")}
    assert (
        "subgroups lack structures: dice, image_dice, hausdorff95_mm are means over those that "
        "each has, and subgroups with others have no gap"
    ) in found.notes


def test_what_no_image_gives_both_is_not_compared():
    first, second = make(runs=1), make(runs=1)
    first.hausdorff95_mm[:, :6], second.hausdorff95_mm[:, 6:] = np.nan, np.nan
    found = compare(result_of(first, "a"), result_of(second, "b"), resamples=20)
    assert not any("hausdorff" in one.metric for one in found.differences)
    assert (
        "hausdorff95_mm, hausdorff95_mm_heart, hausdorff95_mm_aorta cannot be compared: there is "
        "no image of which both have it"
    ) in found.notes


def test_two_models_are_compared_on_heads_that_both_have_a_circumference_of():
    pair = []
    for seed in (0, 1):
        one = make(seed=seed, head=True)
        one.true[:], one.true_hc_mm[:] = 40, 200.0
        one.hc_mm[:, 2 * seed] = np.nan
        pair.append(result_of(one, f"m{seed}"))
    found = {one.metric: one for one in compare(*pair, resamples=20).differences}
    assert found["dice"].n == 12
    # Image 4 has none of either; 0 and 2 have one of a single model.
    assert found["hc_mae_mm"].n == 9
    assert found["hc_mae_mm"].lower_is_better
