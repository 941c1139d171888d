"""Paired differences of two models: values, sources of chance, verdicts."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.evaluation import chance, studies
from fetalclip_jax.evaluation.alignment import align, select
from fetalclip_jax.evaluation.chance import Chance
from fetalclip_jax.evaluation.comparison import compare
from fetalclip_jax.evaluation.difference import difference
from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.evaluation.statistics import intervals, measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.support_sets import SupportSets
from tests.evaluation.paired import PROTOCOL, few_shot, misses, predictions, zero_shot

GOOD = misses(0.15, seed=1)
BAD = GOOD | misses(0.3, seed=2)


def by_metric(found):
    return {one.metric: one for one in found.differences}


def test_every_metric_of_both_is_compared_on_the_same_images():
    found = compare(zero_shot("a", GOOD), zero_shot("b", BAD))
    assert [one.metric for one in found.differences] == [
        "macro_f1",
        "accuracy",
        "balanced_accuracy",
    ]
    accuracy = by_metric(found)["accuracy"]
    assert accuracy.first == pytest.approx((~GOOD).mean())
    assert accuracy.value == pytest.approx((~GOOD).mean() - (~BAD).mean())
    assert accuracy.low < accuracy.value < accuracy.high
    assert (accuracy.n, accuracy.patients) == (120, 40)
    assert accuracy.p < 0.001
    assert accuracy.verdict() == "better"
    assert found.names == ("a", "b")
    turned = by_metric(compare(zero_shot("b", BAD), zero_shot("a", GOOD)))["accuracy"]
    assert turned.verdict() == "worse"
    assert (turned.low, turned.high) == pytest.approx((-accuracy.high, -accuracy.low))
    assert turned.p == pytest.approx(accuracy.p)


def test_a_paired_interval_is_narrower_than_an_unpaired_one():
    first, second = zero_shot("a", GOOD), zero_shot("b", BAD)
    one = by_metric(compare(first, second))["accuracy"]
    bootstrap = Bootstrap(first.predictions.patients(), 200)
    spreads = [bootstrap.spread(studies.measures(r)["accuracy"].measure) for r in (first, second)]
    low, high = intervals.interval(one.value, spreads, scale="difference", groups=40)
    assert one.high - one.low < 0.8 * (high - low)


def test_shared_images_alone_count():
    kept = predictions(GOOD)
    second = zero_shot("b", None, predictions=select(predictions(BAD), np.arange(60)))
    found = compare(zero_shot("a", None, predictions=kept), second)
    assert found.only == (60, 0)
    assert by_metric(found)["accuracy"].first == pytest.approx((~GOOD[:60]).mean())
    assert by_metric(found)["accuracy"].n == 60


def ages(name, error):
    days = np.arange(120, 240)
    return zero_shot(
        name,
        None,
        "age",
        metrics={"valid_prediction_rate": Estimate(0.5), "mae_days": Estimate(3.0)},
        predictions=dataclasses.replace(
            predictions(GOOD),
            label=days.astype(np.str_),
            prediction=days + error,
            candidates=(),
            scores=None,
            extra={"hc_mm": np.linspace(110, 310, 120)},
        ),
    )


def test_less_error_is_better():
    rng = np.random.default_rng(0)
    small, large = rng.integers(1, 6, 120), rng.integers(8, 14, 120)
    found = by_metric(compare(ages("a", small), ages("b", large)))["mae_days"]
    assert found.lower_is_better
    assert found.value == pytest.approx(small.mean() - large.mean())
    assert found.high < 0
    assert found.verdict() == "better"
    assert found.to_json()["verdict"] == "better"


def test_errors_are_equivalent_within_a_share_of_them():
    error = np.random.default_rng(0).integers(40, 60, 120)
    alike = error + np.resize([0, 1, 0, -1], 120)
    found = by_metric(compare(ages("a", error), ages("b", alike)))["mae_days"]
    assert found.margin == pytest.approx(0.05 * (error.mean() + alike.mean()) / 2)
    assert found.verdict() == "equivalent"


def of_known(value, spread, margin=0.02, patients=30):
    """A difference of a given value, all of whose chance is one spread."""
    groups = np.arange(patients)
    ours = measure.mean(np.full(patients, 0.5 + value))
    theirs = measure.mean(np.full(patients, 0.5))
    known = Chance((Spread(spread**2, 1000),))
    return difference("accuracy", (ours, theirs), Bootstrap(groups, 50), groups, known, margin)


def test_equivalence_needs_the_90_percent_interval_within_the_margin():
    # Two one-sided tests at 5 %: 1.645 standard errors to either side.
    assert of_known(0.0, 0.0120).verdict() == "equivalent"
    assert of_known(0.0, 0.0123).verdict() == "undecided"
    assert of_known(0.0, 0.0123, margin=0.03).verdict() == "equivalent"
    assert of_known(0.01, 0.0060).verdict() == "equivalent"
    assert of_known(0.01, 0.0062).verdict() == "undecided"


def test_a_small_difference_that_is_sure_is_better_and_equivalent():
    found = of_known(0.01, 0.002)
    assert found.verdict() == "better"
    assert found.equivalent
    # After adjustment for other tests it is no longer sure.
    assert found.verdict(0.2) == "equivalent"


def test_the_verdict_follows_the_interval():
    assert of_known(0.2, 0.09).verdict() == "better"
    assert of_known(0.2, 0.11).verdict() == "undecided"
    assert of_known(0.2, 0.09).low > 0 > of_known(0.2, 0.11).low


def test_a_single_patient_has_no_interval():
    alone = dataclasses.replace(predictions(GOOD), patient_id=np.full(120, "p"))
    worse = dataclasses.replace(predictions(BAD), patient_id=np.full(120, "p"))
    found = compare(*(zero_shot(n, None, predictions=p) for n, p in (("a", alone), ("b", worse))))
    one = found.headline
    assert (one.low, one.high, one.p, one.inner) == (None,) * 4
    assert one.verdict() == "undecided"
    assert found.notes[-1] == (
        "no interval for macro_f1, accuracy, balanced_accuracy: a single patient shows no spread"
    )


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, float("nan")])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ValueError, match="margin must lie between 0 and 1"):
        compare(zero_shot("a", GOOD), zero_shot("b", BAD), margin=margin)


def test_metrics_of_one_alone_are_said():
    first = zero_shot("a", GOOD)
    second = zero_shot("b", BAD, metrics={"macro_f1": Estimate(0.5), "ece": Estimate(0.1)})
    found = compare(first, second)
    assert [one.metric for one in found.differences] == ["macro_f1"]
    assert "only a has accuracy, balanced_accuracy" in found.notes
    assert "ece of b cannot be measured again from what is kept; evaluate again" in found.notes
    with pytest.raises(ValueError, match="no metric of both can be measured again, none and none"):
        compare(*(zero_shot(n, GOOD, metrics={"ece": Estimate(0.1)}) for n in "ab"))


def heads(name, bias):
    true = np.linspace(100, 300, 120)
    metrics = ("mae_mm", "bias_mm", "lower_limit_mm", "upper_limit_mm", "r2")
    noise = np.random.default_rng(abs(bias)).normal(0, 5, 120)
    return zero_shot(
        name,
        None,
        "regression.hc_mm",
        metrics=dict.fromkeys(metrics, Estimate(0.5)),
        predictions=dataclasses.replace(
            predictions(GOOD),
            label=true,
            prediction=true + noise + bias,
            candidates=(),
            scores=None,
        ),
    )


def test_a_mean_error_of_either_sign_is_neither_better_nor_worse():
    found = by_metric(compare(heads("a", -30), heads("b", 10)))
    assert found["mae_mm"].verdict() == "worse"
    assert found["r2"].verdict() == "worse"
    for name in ("bias_mm", "lower_limit_mm", "upper_limit_mm"):
        assert found[name].p < 0.05
        assert (found[name].verdict(), found[name].equivalent) == ("no verdict", False)


def doubtful(name, wrong, names):
    """Labels that a model doubts, of which some were planted."""
    answered = predictions(wrong)
    share = 0.9 * np.eye(3)[answered.scores.argmax(1)] + 0.1 / 3
    extra = {"planted": BAD, "flagged_of_planted": BAD & ~wrong}
    extra |= {f"p_{one}": share[:, k] for k, one in enumerate(answered.candidates)}
    found = dataclasses.replace(answered, candidates=(), scores=None, extra=extra)
    metrics = dict.fromkeys(names, Estimate(0.5))
    return zero_shot(name, None, "mislabels.planes", metrics=metrics, predictions=found)


def test_what_tells_of_the_data_is_no_merit_of_a_model():
    names = ("planted_f1", "label_noise")
    found = compare(*(doubtful(n, w, names) for n, w in (("a", GOOD), ("b", BAD))))
    assert list(by_metric(found)) == ["planted_f1"]
    assert not any("label_noise" in note for note in found.notes if note.startswith("only"))
    with pytest.raises(ValueError, match=r"mislabels\.planes: it tells of the data, whatever the"):
        compare(*(doubtful(n, GOOD, names[1:]) for n in "ab"))


def test_metrics_of_a_curve_that_both_have_are_of_none_alone():
    metrics = dict.fromkeys(("macro_f1", "accuracy"), Estimate(0.5))
    first, second = (few_shot(n, (0.5, 0.3, 0.1), metrics=metrics) for n in "ab")
    found = compare(first, second)
    assert list(by_metric(found)) == ["macro_f1"]
    assert not any(note.startswith("only") for note in found.notes)


def test_a_value_that_is_not_the_reported_one_is_said():
    found = compare(zero_shot("a", GOOD), zero_shot("b", BAD))
    again = f"{found.headline.first:.4f}"
    assert f"macro_f1 of a is {again} as measured again from what is kept, and 0.5000 in its " \
        "result" in found.notes  # fmt: skip


def probe(name, wrong, redraws, **protocol):
    return zero_shot(
        name,
        wrong,
        "probe.view",
        protocol=PROTOCOL | {"name": "tuned", "copies": 4} | protocol,
        details={"redraws": {"macro_f1": redraws} if redraws else {}},
    )


def test_redraws_of_copies_are_paired_where_they_are_the_same():
    ours, theirs = [0.80, 0.86, 0.74], [0.70, 0.77, 0.63]
    pair = align(probe("a", GOOD, ours), probe("b", BAD, theirs))
    found = chance.of_metric(pair, "macro_f1")
    (spread,) = found.spreads
    # Of four copies a bootstrap shows three quarters of the variance.
    assert spread.variance == pytest.approx(np.var(np.subtract(ours, theirs), ddof=1) * 4 / 3)
    assert spread.freedom == 2
    assert found.words == "3 redraws of augmented copies (the same for both)"
    other = align(probe("a", GOOD, ours), probe("b", BAD, theirs, seed=1))
    unpaired = chance.of_metric(other, "macro_f1")
    assert [one.variance for one in unpaired.spreads] == pytest.approx(
        [np.var(values, ddof=1) * 4 / 3 for values in (ours, theirs)]
    )


def test_copies_that_were_never_redrawn_leave_no_interval():
    found = compare(probe("a", GOOD, [0.8, 0.9]), probe("b", BAD, None))
    one = by_metric(found)["macro_f1"]
    assert (one.low, one.verdict()) == (None, "undecided")
    assert one.without_interval == (
        "b recorded no training on copies drawn anew (it takes copies of 2 and more, and redraws)"
    )
    without = compare(*(probe(n, w, None, copies=0) for n, w in (("a", GOOD), ("b", BAD))))
    assert without.headline.low is not None


def test_support_sets_are_paired_where_they_are_the_same():
    first = few_shot("a", (0.5, 0.3, 0.1), seed=1)
    second = few_shot("b", (0.6, 0.5, 0.3), seed=2)
    pair = align(first, second)
    same = chance.of_metric(pair, "macro_f1")
    sets = [chance.set_means(one, "8") for one in (first, second)]
    assert same.spreads == (SupportSets(sets[0] - sets[1]).spread,)
    assert same.words == "5 support sets (the same for both)"
    other = align(first, few_shot("b", (0.6, 0.5, 0.3), draws="vwxyz", seed=2))
    unpaired = chance.of_metric(other, "macro_f1")
    assert unpaired.spreads == tuple(SupportSets(one).spread for one in sets)
    assert unpaired.words == "5 and 5 support sets (other ones, unpaired)"
    # Luck with the sets is common to both models.
    assert same.spreads[0].variance < sum(one.variance for one in unpaired.spreads) / 2


def test_a_curve_is_compared_at_its_largest_common_size():
    first = few_shot("a", (0.5, 0.3, 0.1))
    second = few_shot("b", (0.6, 0.5, 0.3, 0.2), sizes=(2, 4, 8, 16))
    found = compare(first, second)
    one = found.headline
    assert one.first == pytest.approx(first.curve[2]["mean"])
    assert one.second == pytest.approx(second.curve[2]["mean"])
    assert one.verdict() == "better"
    assert (one.learned_from, one.to_json()["patients_to_learn_from"]) == (8, 8)
    assert (
        "compared at 8 patients to learn from, the largest number that both have (b has 16)"
        in found.notes
    )
    # What a result says of its own largest size is no contradiction.
    assert not any("measured again" in note for note in found.notes)


def test_no_size_is_named_where_there_is_no_curve():
    found = compare(zero_shot("a", GOOD), zero_shot("b", BAD))
    assert found.headline.learned_from is None
    assert not any("to learn from" in note for note in found.notes)


def test_scores_that_are_not_finite_are_refused_by_the_name_of_their_result():
    kept = predictions(GOOD)
    scores = kept.scores.copy()
    scores[3, 0] = np.nan
    bad = zero_shot("b", None, predictions=dataclasses.replace(kept, scores=scores))
    with pytest.raises(
        ValueError, match=r"^zero_shot\.view of b on clinic: scores: 1 of 120 are not finite"
    ):
        compare(zero_shot("a", GOOD), bad)


def test_a_top_k_of_all_candidates_in_an_older_result_is_not_missed():
    names = ("macro_f1", "accuracy", "top3_accuracy", "balanced_top3_accuracy", "kappa")
    older = [zero_shot(n, w, metrics=dict.fromkeys(names, Estimate(0.5)))
             for n, w in (("a", GOOD), ("b", BAD))]  # fmt: skip
    notes = " ".join(compare(*older).notes)
    assert "kappa of a cannot be measured again" in notes
    assert "top3" not in notes


def test_a_single_support_set_has_no_interval():
    found = compare(*(few_shot(n, (0.5, 0.3, 0.1), sets=1, draws="a") for n in "ab"))
    assert found.headline.low is None
    assert "a single support set shows nothing" in found.notes[-1]


def old(result):
    return dataclasses.replace(
        result,
        predictions=dataclasses.replace(result.predictions, runs={}, ranks={}),
        curve=[{k: v for k, v in point.items() if k != "draws"} for point in result.curve],
    )


def test_older_results_are_compared_by_their_scores_and_it_is_said():
    first, second = few_shot("a", (0.5, 0.3, 0.1)), few_shot("b", (0.6, 0.5, 0.3))
    for pair in ((old(first), old(second)), (old(first), second)):
        found = compare(*pair)
        labels, answers = first.predictions.label, first.predictions.prediction
        assert found.headline.first == pytest.approx(
            studies.measures(old(first))["macro_f1"].measure.value
        )
        assert (labels == answers).mean() == pytest.approx(found.headline.first, abs=0.05)
        assert found.headline.low is None
        assert any("the answers of every run of a are not kept" in note for note in found.notes)
        assert "the answers of every support set are not kept" in found.notes[-1]
    with pytest.raises(ValueError, match=r"largest size alone, and these are 8 and 16 patients"):
        compare(old(first), few_shot("b", (0.6, 0.5, 0.3, 0.2), sizes=(2, 4, 8, 16)))
