"""Many models: pairs, the family of tests, wins, and what is left out."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from fetalclip_jax.evaluation.alignment import select
from fetalclip_jax.evaluation.comparisons import by_model, compare_all
from fetalclip_jax.evaluation.statistics import intervals
from fetalclip_jax.evaluation.statistics.intervals import Spread
from fetalclip_jax.evaluation.statistics.multiplicity import holm
from tests.evaluation.paired import DATA, PROTOCOL, few_shot, misses, predictions, zero_shot

GOOD = misses(0.15, seed=1)
BAD = GOOD | misses(0.3, seed=2)
QUICK = {"resamples": 100}
PHANTOM = DATA | {"name": "phantom", "kind": "phantom", "simulated": True}


def three():
    return [
        *(zero_shot(n, w) for n, w in (("a", GOOD), ("b", BAD), ("c", GOOD))),
        few_shot("a", (0.5, 0.3, 0.1)),
        few_shot("b", (0.6, 0.5, 0.3)),
    ]


def test_all_pairs_are_compared_wherever_both_were_judged():
    found = compare_all(three(), **QUICK)
    assert [(one.study, one.names) for one in found.compared] == [
        ("zero_shot.view", ("a", "b")),
        ("zero_shot.view", ("a", "c")),
        ("zero_shot.view", ("b", "c")),
        ("few_shot.view", ("a", "b")),
    ]
    assert found.left_out == ("c was not judged in few_shot.view on clinic",)
    named = compare_all(three(), [("b", "a")], **QUICK)
    assert [one.names for one in named.compared] == [("b", "a"), ("b", "a")]


def test_a_pair_the_other_way_round_is_no_other_test():
    asked = [("a", "b"), ("c", "a"), ("b", "a"), ("a", "b")]
    found = compare_all(three(), asked, **QUICK)
    assert [one.names for one in found.wins] == [("a", "b"), ("c", "a")]
    assert found.tests == 3


def test_results_without_the_name_of_a_model_are_said_to_be_indistinct():
    nameless = [zero_shot("", w, model={}) for w in (GOOD, BAD)]
    reason = (
        "2 results of zero_shot.view on clinic have no name of a model (model.name in their JSON) "
        "and cannot be told apart"
    )
    found = compare_all(nameless, **QUICK)
    assert (found.compared, found.left_out) == ((), (reason,))
    assert list(found.lines()) == [f"not compared: {reason}"]
    apart = [nameless[0], zero_shot("", BAD, "zero_shot.x", model={})]
    assert compare_all(apart, **QUICK).left_out == ()


def test_comparisons_of_curves_name_the_size():
    results = [
        few_shot("a", (0.5, 0.3, 0.1)),
        few_shot("b", (0.6, 0.5, 0.3, 0.2), sizes=(2, 4, 8, 16)),
    ]
    found = compare_all([*results, *three()[:2]], **QUICK)
    said = list(found.lines())
    assert any(line.startswith("few_shot.view on clinic, macro F1, 8 patients: a") for line in said)
    assert (
        "few_shot.view on clinic: compared at 8 patients to learn from, the largest number that "
        "both have (b has 16)"
    ) in said
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    sizes = {row["study"]: row["patients_to_learn_from"] for row in rows}
    assert sizes == {"few_shot.view": "8", "zero_shot.view": ""}


def test_clips_are_not_called_images():
    clips = [zero_shot(n, GOOD, "zero_shot.x", details={"unit": "clips"}) for n in "ab"]
    fewer = dataclasses.replace(clips[1], predictions=select(clips[1].predictions, np.arange(100)))
    said = " ".join(compare_all([clips[0], fewer], **QUICK).lines())
    assert "100 clips of 34 patients" in said
    assert "zero_shot.x on clinic: clips of one alone left out: 20 of a" in said


def test_headlines_are_one_family():
    found = compare_all(three(), **QUICK)
    ps = [one.headline.p for one in found.compared]
    assert found.adjusted == pytest.approx(tuple(holm(ps)))
    assert found.tests == 4
    verdicts = [verdict for *_, verdict in found.rows()]
    assert verdicts == ["better", "undecided", "worse", "better"]


def test_a_difference_that_one_test_is_sure_of_is_undecided_among_several():
    close = (GOOD & ~misses(0.1, seed=57)) | misses(0.04, seed=7)
    judged = [zero_shot(n, w, study=f"zero_shot.{s}") for s in "xyz"
              for n, w in (("a", GOOD), ("b", close))]  # fmt: skip
    alone = compare_all([one for one in judged if one.study == "zero_shot.x"], **QUICK)
    assert 0.02 < alone.adjusted[0] < 0.05
    assert alone.wins[0].counts["better"] + alone.wins[0].counts["worse"] == 1
    found = compare_all(judged, **QUICK)
    assert [verdict for *_, verdict in found.rows()] == ["undecided"] * 3
    assert found.wins[0].counts["undecided"] == 3
    assert [one["verdict"] for one in found.to_json()["comparisons"]] == ["undecided"] * 3


def test_wins_count_the_adjusted_verdicts_and_average_the_rates():
    found = compare_all(three(), [("a", "b")], **QUICK)
    (wins,) = found.wins
    assert wins.counts == {"better": 2, "worse": 0, "equivalent": 0, "undecided": 0}
    values = [one.headline.value for one in found.compared]
    assert wins.mean.value == pytest.approx(sum(values) / 2)
    assert wins.mean.low < wins.mean.value < wins.mean.high
    assert wins.studies == 2


def test_simulated_images_are_counted_apart():
    results = [
        zero_shot(n, w, data=d) for d in (DATA, PHANTOM) for n, w in (("a", GOOD), ("b", BAD))
    ]
    found = compare_all(results, **QUICK)
    assert [(one.simulated, one.studies) for one in found.wins] == [(False, 1), (True, 1)]


def test_the_mean_of_studies_on_the_same_patients_is_no_surer_than_one_of_them():
    results = [zero_shot(n, w, study=f"zero_shot.{s}") for s in ("x", "y")
               for n, w in (("a", GOOD), ("b", BAD))]  # fmt: skip
    found = compare_all(results, **QUICK)
    one, (wins,) = found.compared[0].headline, found.wins
    # The same images twice are no more evidence than once.
    assert wins.mean.high - wins.mean.low == pytest.approx(one.high - one.low, rel=0.25)


def test_luck_with_support_sets_averages_out_over_studies():
    results = [
        few_shot(n, shares, draws=draws, study=f"few_shot.{s}")
        for s in ("x", "y")
        for n, shares, draws in (("a", (0.5, 0.3, 0.1), "abcde"), ("b", (0.6, 0.5, 0.3), "vwxyz"))
    ]
    found = compare_all(results, **QUICK)
    one, (wins,) = found.compared[0].headline, found.wins
    # Sets of two studies are other ones; their patients are the same.
    sets = [Spread(s.variance / 4, s.freedom) for s in one.chance.spreads] * 2
    spreads = [one.bootstrap.spread(one.measure), *sets]
    edges = intervals.interval(one.value, spreads, scale=intervals.DIFFERENCE, groups=40)
    assert (wins.mean.low, wins.mean.high) == pytest.approx(edges, rel=0.02)


def test_unknown_names_are_an_error_that_lists_the_models():
    with pytest.raises(ValueError, match=r"no model 'd' is among the results; there are a, b, c"):
        compare_all(three(), [("a", "d")])
    with pytest.raises(ValueError, match="'a' against itself"):
        compare_all(three(), [("a", "a")])


def test_a_pair_with_nothing_in_common_is_an_error_if_it_was_asked_for():
    apart = [zero_shot("a", GOOD), zero_shot("b", BAD, data=PHANTOM)]
    with pytest.raises(ValueError, match=r"a and b have no study and data set in common"):
        compare_all(apart, [("a", "b")])
    found = compare_all(apart)
    assert found.compared == ()
    assert found.left_out == ("a and b have no study and data set in common",)


def test_what_cannot_be_compared_is_told_with_its_reason():
    paper = PROTOCOL | {"name": "paper"}
    results = [zero_shot("a", GOOD), zero_shot("b", BAD, protocol=paper)]
    results += [zero_shot(n, w, study="zero_shot.x") for n, w in (("a", GOOD), ("b", BAD))]
    found = compare_all(results, [("a", "b")], **QUICK)
    assert [one.study for one in found.compared] == ["zero_shot.x"]
    assert "protocols 'default' and 'paper'" in found.left_out[0]
    with pytest.raises(ValueError, match=r"nothing can be compared; .* 'default' and 'paper'"):
        compare_all(results[:2], [("a", "b")])


def test_of_several_protocols_those_that_are_the_same_are_compared():
    paper = PROTOCOL | {"name": "paper"}
    results = [zero_shot(n, w, protocol=p) for p in (PROTOCOL, paper)
               for n, w in (("a", GOOD), ("b", BAD))]  # fmt: skip
    found = compare_all(results, **QUICK)
    assert [one.protocol for one in found.compared] == ["default", "paper"]
    assert found.left_out == ()


def test_raw_pixels_are_no_contest_of_models():
    results = three() + [zero_shot(n, GOOD, study="probe.view", details={"inputs": "raw_pixels"})
                         for n in "ab"]  # fmt: skip
    found = compare_all(results, [("a", "b")], **QUICK)
    assert "probe.view" not in [one.study for one in found.compared]
    assert "probe.view: its inputs are pixels, whatever the model" in found.left_out


def test_models_of_one_name_are_told_apart_by_their_weights():
    other = zero_shot("a", BAD, model={"name": "a", "fingerprint": "0123456789"})
    assert list(by_model([zero_shot("a", GOOD), other])) == ["a [print of]", "a [01234567]"]
    found = compare_all([zero_shot("a", GOOD), other], **QUICK)
    assert found.compared[0].headline.verdict() == "better"


def test_tables_for_scripts_hold_every_metric():
    found = compare_all(three(), **QUICK)
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(rows) == 3 * 3 + 1
    first = rows[0]
    assert (first["study"], first["first"], first["second"]) == ("zero_shot.view", "a", "b")
    assert (first["metric"], first["headline"]) == ("macro_f1", "True")
    assert float(first["difference"]) == found.compared[0].headline.value
    assert float(first["p_holm"]) == found.adjusted[0]
    assert (rows[1]["headline"], rows[1]["p_holm"]) == ("False", "")
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["comparisons"][0]["p_holm"] == found.adjusted[0]
    assert content["family"] == {"tests": 4, "method": "Holm", "level": 0.05}


def test_the_terminal_hears_of_images_of_one_alone():
    kept = select(predictions(BAD), np.arange(90))
    results = [zero_shot("a", GOOD), zero_shot("b", None, predictions=kept)]
    said = list(compare_all(results, **QUICK).lines())
    assert "zero_shot.view on clinic: images of one alone left out: 30 of a" in said


def test_the_terminal_gets_a_line_a_study_of_one_pair_and_a_line_a_pair_of_several():
    one = list(compare_all(three(), [("a", "b")], **QUICK).lines())
    assert one[0].startswith("zero_shot.view on clinic, macro F1: a 0.")
    assert "better; 120 images of 40 patients" in one[0]
    assert one[2].startswith("a against b: better in 2; mean difference +0.")
    several = list(compare_all(three(), **QUICK).lines())
    assert [line.partition(":")[0] for line in several] == [
        "a against b", "a against c", "b against c", "p-values are adjusted for 4 tests by Holm's "
        "method", "not compared",
    ]  # fmt: skip
