"""`fetalclip sweep`: tasks of an array, collecting them, and points that cannot work."""

import csv

import pytest

from fetalclip_jax import cli
from fetalclip_jax.commands import sweep
from fetalclip_jax.sweeps import local, point
from fetalclip_jax.sweeps.folder import State
from tests.sweeps import experiments


def test_a_sweep_from_the_command_line(tmp_path, capsys):
    """A point trained and judged in this process, as an array's task does it; then collected."""
    body = '    return sweeps.values("seed", range(2))\n'
    command = ["sweep", "--config", experiments.write(tmp_path, body)]
    command += ["--workdir", str(tmp_path / "work")]
    assert cli.main([*command, "--list"]) == 0
    assert capsys.readouterr().out == "0\tseed=0\twaiting\n1\tseed=1\twaiting\n"
    assert cli.main([*command, "--point", "0"]) == 0
    assert "seed=0: done after" in capsys.readouterr().out
    trained = tmp_path / "work/points/seed=0"
    assert not (trained / "results/seed=0").exists()  # its results are of no test patients
    assert cli.main([*command, "--collect"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 points are done" in printed
    assert "There is one setting" in printed
    done, waiting = csv.DictReader((tmp_path / "work/sweep.csv").open())
    assert 0 <= float(done["zero_shot.planes/macro_f1"]) <= 1
    assert waiting["status"] == "waiting"
    before = (trained / "metrics.jsonl").stat().st_mtime_ns
    assert cli.main([*command, "--point", "0"]) == 0  # done already
    assert (trained / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(("said", "status"), [("interrupted", 75), ("done", 0), ("stopped", 0)])
def test_a_point_that_was_told_to_end_differs_from_one_that_ended(
    tmp_path, monkeypatch, said, status
):
    monkeypatch.setenv("FETALCLIP_STOPPED_STATUS", "75")
    monkeypatch.setattr(point, "run", lambda *_, **__: State(said))
    command = ["sweep", "--config", experiments.write(tmp_path)]
    assert cli.main([*command, "--workdir", str(tmp_path / "work"), "--point", "0"]) == status


@pytest.mark.parametrize(("whole", "status"), [(False, 75), (True, 0)])
def test_a_sweep_that_was_told_to_end_differs_from_one_that_ended(
    tmp_path, monkeypatch, whole, status
):
    monkeypatch.setenv("FETALCLIP_STOPPED_STATUS", "75")
    monkeypatch.setattr(local, "run", lambda *_: whole)
    monkeypatch.setattr(sweep, "_check_elsewhere", lambda *_: None)
    command = ["sweep", "--config", experiments.write(tmp_path)]
    assert cli.main([*command, "--workdir", str(tmp_path / "work")]) == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('[{"train.global_batch_size": 12}]', "point 0 (global_batch_size=12): config.train.glob"),
        ('[{"optimizer.warmup_steps": 9}]', "warmup_steps=9 is not below"),
        ('[{"mesh.data": 3}]', "needs 3 devices"),
        ('[{"train.global_batch_size": 64}]', "do not fit the 48 images"),
        ('[{"data.train_images": 49}]', "config.data.train_images=49 do not fit the 48"),
        ('sweeps.Sweep([{}], studies=("few_shot.planes",))', "validation patients, some of whom"),
        ('sweeps.Sweep([{}], studies=("zero_shot.plans",))', "; did you mean zero_shot.planes?"),
        ('[{"init_from": "/nowhere/x.pt"}]', "init_from=/nowhere/x.pt: no such run, file or"),
    ],
)
def test_points_that_cannot_work_are_found_before_the_first_runs(tmp_path, capsys, body, message):
    path = experiments.write(tmp_path, f"    return {body}\n")
    assert cli.main(["sweep", "--config", path, "--workdir", str(tmp_path / "w"), "--list"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert f"{path}: " in error
    assert not (tmp_path / "w").exists()


def test_a_bucket_is_no_place_for_a_sweep(tmp_path, capsys):
    path = experiments.write(tmp_path)
    assert cli.main(["sweep", "--config", path, "--workdir", "gs://bucket/sweep"]) == 2
    assert "--workdir=gs://bucket/sweep: the points of a sweep share" in capsys.readouterr().err
