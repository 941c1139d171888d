import json

import pytest

from fetalclip_jax import sweeps
from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.run import Run
from fetalclip_jax.sweeps import stopping
from fetalclip_jax.training import preemption

SCORE = "zero_shot.planes/macro_f1"


def run(folder, name, scores):
    """A run whose score at each step is known."""
    own = Run(folder / name)
    own.workdir.mkdir()
    lines = [json.dumps({"step": s, f"study/{SCORE}": v}) for s, v in scores.items()]
    own.metrics.write_text("\n".join([*lines, '{"step": 9, "lo']))
    return own


@pytest.fixture
def rule(tmp_path):
    """Of a run of 8 steps beside three: two of 8 steps, one of 4 as many images."""
    others = [
        (run(tmp_path, "a", {2: 0.5, 4: 0.6, 8: 0.9}), 8),
        (run(tmp_path, "b", {2: 0.4, 4: 0.5}), 8),
        (run(tmp_path, "c", {1: 0.3, 2: 0.7}), 4),
    ]
    own = run(tmp_path, "own", {})
    return stopping.MedianRule(SCORE, own, 8, 2, others, preemption.Notice())


def test_a_score_below_the_median_at_the_same_share_of_training_stops(rule):
    assert rule.verdict(2, 0.4) == ""  # 0.3, 0.4, 0.5 there
    assert "0.390 at 25 % of its training, worse than the median 0.400 of 3 other" in rule.verdict(
        2, 0.39
    )
    assert rule.verdict(4, 0.55).endswith("median 0.600 of 3 other points there")


def test_too_few_others_and_the_end_stop_nothing(rule):
    assert rule.verdict(6, 0.0) == ""  # nobody was judged there
    assert rule.verdict(8, 0.0) == ""


def test_of_an_error_more_is_worse(rule, tmp_path):
    rule.score = "age/mae_days"
    for (own, _), value in zip(rule.others, (3.0, 4.0, 5.0), strict=True):
        own.metrics.write_text(json.dumps({"step": 1, "study/age/mae_days": value}))
    rule.others = [(own, 4) for own, _ in rule.others]
    assert rule.verdict(2, 3.5) == ""
    assert "worse than the median" in rule.verdict(2, 4.5)


def test_points_that_are_judged_on_other_data_have_no_scores_on_the_way():
    stopping.check(sweeps.Sweep([{}]))
    with pytest.raises(ValueError, match=r"this sweep is judged on hc18; leave --stop-early out"):
        stopping.check(sweeps.Sweep([{}], judged_on=DataSet("hc18")))


def test_a_hopeless_run_is_asked_to_stop_after_its_next_step(rule):
    measured = rule.watching(lambda _: {f"study/{SCORE}": 0.1})
    assert not rule.notice.reached(2)
    assert measured(None) == {f"study/{SCORE}": 0.1}
    assert rule.notice.reached(3)
    assert rule.reason
