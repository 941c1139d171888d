import pytest

from fetalclip_jax.config import default_config
from fetalclip_jax.training.optimizer import learning_rate_schedule


def schedule(steps=20, **changes):
    config = default_config().optimizer
    config.update({"learning_rate": 2.0, "warmup_steps": 4} | changes)
    rate = learning_rate_schedule(config, steps)
    return [float(rate(step)) for step in range(steps)]


def test_a_constant_rate_warms_up_stays_and_cools_down():
    rates = schedule(schedule="constant", cooldown_steps=4)
    assert rates == [0.0, 0.5, 1.0, 1.5] + [2.0] * 13 + [1.5, 1.0, 0.5]


def test_a_constant_rate_needs_neither_warm_up_nor_cool_down():
    assert schedule(3, schedule="constant", warmup_steps=0) == [2.0] * 3


def test_a_longer_constant_run_begins_as_a_shorter_one():
    settings = {"schedule": "constant", "cooldown_steps": 4}
    assert schedule(30, **settings)[:16] == schedule(20, **settings)[:16]


def test_a_cosine_falls_to_zero():
    rates = schedule()
    assert rates[4] == 2.0
    assert rates[12] == pytest.approx(1.0)
    assert 0 < rates[19] < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "schedule='linear' is not one of cosine, constant"),
        ({"cooldown_steps": 3}, "cooldown_steps=3 is of the constant schedule"),
        ({"schedule": "constant", "cooldown_steps": 17}, "are more than config.train.steps=20"),
        ({"schedule": "constant", "cooldown_steps": -1}, "cooldown_steps=-1 is not a number 0"),
        ({"warmup_steps": 20}, "warmup_steps=20 is not below"),
    ],
)
def test_numbers_that_make_no_schedule_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        schedule(**changes)
