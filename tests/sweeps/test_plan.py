import math

import pytest

from fetalclip_jax.evaluation.sources import DataSet
from fetalclip_jax.sweeps import plan
from tests.sweeps import experiments


def test_names_say_what_a_point_sets_and_depend_on_no_other_point(tmp_path):
    points = experiments.read(tmp_path).points
    assert points[0].name == "global_batch_size=8,steps=4,temperature=0.05,seed=0"
    assert len({point.name for point in points}) == len(points) == 8
    (alone,) = experiments.one(tmp_path, f"[{dict(points[5].overrides)}]").points
    assert alone.name == points[5].name


def test_overrides_reach_the_configuration(tmp_path):
    point = experiments.read(tmp_path).points[5]
    config = point.config
    assert (config.train.global_batch_size, config.train.steps, config.seed) == (16, 2, 1)
    assert config.model.init_logit_scale == pytest.approx(math.log(1 / 0.05))
    assert point.settings == {
        "train.global_batch_size": 16,
        "train.steps": 2,
        "temperature": 0.05,
    }


def test_a_fixed_temperature_is_not_trained(tmp_path):
    learned, fixed = experiments.one(
        tmp_path,
        '[{"temperature": 0.1, "temperature_learned": one} for one in (True, False)]',
    ).points
    assert learned.config.optimizer.learning_rate_factors == ()
    assert fixed.config.optimizer.learning_rate_factors == (("logit_scale", 0.0),)


def test_names_can_be_given_and_long_values_are_shortened(tmp_path):
    given, long, same_last_part = experiments.one(
        tmp_path,
        '[{"name": "mine", "seed": 1}, {"data.root": "/a/very/long/path/" * 9},'
        ' {"seed": 2, "data.seed": 3}]',
    ).points
    assert given.name == "mine"
    assert long.name.startswith("root=a_very_long")
    assert len(long.name) < 50
    assert same_last_part.name == "seed=2,data.seed=3"


def test_a_point_is_found_by_index_and_name(tmp_path):
    sweep = experiments.read(tmp_path)
    assert sweep.point("3") is sweep.point(sweep.points[3].name) is sweep.points[3]
    with pytest.raises(ValueError, match="--point=8 is none of the 8 points; use 0 to 7"):
        sweep.point("8")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ('[{"train.global_batchsize": 8}]', "is no field; there are train.global_batch_size"),
        ('[{"seed": 0}, {"train": 8}]', "point 1: train is a group of fields"),
        (
            '[{"train.steps": "many"}]',
            "train.steps='many' is of type str; the field is of type int, such as 4$",
        ),
        ('[{"train.steps": True}]', "train.steps=True is of type bool"),
        ('[{"compute.scan_layers": 1}]', "scan_layers=1 is of type int; the field is of type bool"),
        ('[{"train.steps": 2.5}]', "train.steps=2.5 is of type float"),
        ('[{"seed": 0}, {"seed": 0}]', "points 0 and 1 have one name, seed=0"),
        ('[{"temperature": 0.001}]', "temperature=0.001 is not from 0.01 to 1"),
        ('[{"temperature": "low"}]', "temperature='low' is no number"),
        ('[{"temperature_learned": "no"}]', "temperature_learned='no' is not True or False"),
        ('[{"temperature": 0.1, "model.init_logit_scale": 2.0}]', "are one; leave one out"),
        ('[{"name": "../up", "seed": 0}]', "the name '../up' is no folder's"),
        ('[{"name": "1", "seed": 0}]', "the name '1' reads as an index"),
        ('[{"name": "a"}, {"name": "b", "seed": 0}]', r"points 0 \(a\) and 1 \(b\) are the same"),
        ("[]", "sweep\\(\\) gives list"),
        ('{"seed": 1}', "sweep\\(\\) gives dict"),
        ("[3]", "point 0 is '3', not a dictionary"),
        ("({} for _ in range(2))", r"sweep\.py: sweep\(\) gives a generator; return a list$"),
        ('[{"train.studies": (one for one in "ab")}]', "train.studies is a generator; give a list"),
        (
            'sweeps.Sweep([{}], studies=("zeroshot.planes",))',
            r"sweep\.py: study 'zeroshot\.planes' is unknown; .*did you mean zero_shot\.planes\?$",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        experiments.one(tmp_path, overrides)


def test_points_are_judged_on_what_they_are_trained_on_or_on_other_data(tmp_path):
    own, other = (
        experiments.one(tmp_path, f'sweeps.Sweep([{{"data.root": "a"}}]{given})')
        for given in ("", ', judged_on=sources.DataSet("hc18", "b", {"test_share": 0.3})')
    )
    assert own.judged_on(own.points[0]) == DataSet("phantom", "a", judged="validation")
    expected = DataSet("hc18", "b", {"test_share": 0.3}, judged="validation")
    assert other.judged_on(other.points[0]) == expected


def test_a_field_that_points_set_is_not_set_on_the_command_line(tmp_path):
    path = experiments.write(tmp_path)
    with pytest.raises(ValueError, match=r"--config\.train\.steps is set by the points"):
        plan.read(path, ["--config.train.steps=3"])
    changed = plan.read(path, ["--config.train.log_every=2"])
    assert {point.config.train.log_every for point in changed.points} == {2}


def test_a_file_without_sweep_is_named(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(experiments.HEAD.replace("def sweep():", ""))
    with pytest.raises(ValueError, match=r"plain\.py has no function sweep\(\)"):
        plan.read(str(path))


@pytest.mark.parametrize(
    ("config", "count", "each"),
    [
        ("batch_temperature.py", 18, 19200),
        ("batch_temperature.py:full", 108, 19200),
        ("pretraining_size.py", 15, 25600),
        ("real_transfer.py:folder", 16, 64000),
        ("real_transfer.py:folder,seeds=3", 48, 64000),
    ],
)
def test_points_of_the_repository_see_equally_many_images(config, count, each):
    sweep = plan.read(f"configs/sweeps/{config}")
    assert len(sweep.points) == count
    images = {p.config.train.steps * p.config.train.global_batch_size for p in sweep.points}
    assert images == {each}
