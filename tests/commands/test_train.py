"""Training and preparing from the command line, and what every command shares."""

import json
import shutil

import pytest

from fetalclip_jax import cli
from fetalclip_jax.training import preemption
from tests.tiny import TINY


def test_tokenizer_and_weights_of_a_run_load_together(trained):
    import fetalclip_jax

    model = fetalclip_jax.load(trained)
    tokens = model.tokenize(["Ultrasound image of the fetal head."])
    assert tokens.shape == (1, 48)
    features = model.encode_text(tokens)
    assert features.shape == (1, TINY.embed_dim)
    assert 1 <= model.logit_scale <= 100


def test_studies_are_run_while_training(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    judged = {line["step"]: line for line in lines if "study/zero_shot.planes/macro_f1" in line}
    assert judged.keys() == {8, 12}  # every so often, and at the end
    assert all(0 <= line["study/zero_shot.planes/accuracy"] <= 1 for line in judged.values())


def test_one_that_was_told_to_stop_differs_from_a_finished_one(
    run, trained, config_file, tmp_path, monkeypatch
):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "checkpoints" / "12")
    command = ["train", "--config", config_file, "--workdir", workdir]
    monkeypatch.setenv("FETALCLIP_STOPPED_STATUS", "75")
    with monkeypatch.context() as patched:
        patched.setattr(preemption.Notice, "reached", lambda self, step: True)
        printed, _, status = run(*command)
    assert status == 75
    assert "Stopped at step 9 of 12, saved" in printed
    assert "Trained" not in printed
    printed, _, status = run(*command)
    assert (status, "Trained: " in printed) == (0, True)


def test_prepare_takes_overrides_and_what_splits_are_for(run, config_file, tmp_path):
    command = ["prepare", "--config", config_file, "--workdir", tmp_path, "--split"]
    printed, _, status = run(*command, "validation", "--config.data.phantom.pool_images=6")
    assert status == 0
    assert printed.startswith("6 examples in ")
    assert printed.strip().endswith("records/pool")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.train.stepz=3"], "no such key"),
        (["--config.train.steps=many"], "many"),
        (["--steps=3"], "steps"),
    ],
)
def test_keys_that_do_not_exist_are_named(run, config_file, tmp_path, overrides, message):
    _, error, status = run("train", "--config", config_file, "--workdir", tmp_path, *overrides)
    assert status == 2
    assert error.startswith("fetalclip train: ")
    assert message in error


def test_a_missing_config_file_is_named(run, tmp_path):
    _, error, status = run("train", "--config=nowhere.py", "--workdir", tmp_path)
    assert status == 2
    assert "nowhere.py" in error


def test_a_missing_data_folder_is_named(run, tmp_path):
    command = ["train", "--config=configs/hc18.py", "--workdir", tmp_path / "run"]
    _, error, status = run(*command, f"--config.data.root={tmp_path / 'absent'}")
    assert status == 2
    assert "absent" in error


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"example:\n  fetalclip {command}" in capsys.readouterr().out
