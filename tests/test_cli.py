import json

import pytest

from fetalclip_jax import cli
from tests.tiny import TINY

EXPERIMENT = """
from tests.tiny import tiny_experiment

def get_config():
    config = tiny_experiment()
    with config.unlocked():  # the tiny experiment is complete; only values change
        config.data.phantom.update({"train_images": 48, "pool_images": 96, "test_images": 60})
        config.evaluation.update({"batch_size": 16, "probe_copies": 1, "few_shot_patients": (2, 4)})
    return config
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def trained(config_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert cli.main(["train", "--config", str(config_file), f"--workdir={workdir}"]) == 0
    return workdir


def test_every_program_runs_on_a_trained_run_and_the_report_gathers_them(trained, capsys):
    run = f"--workdir={trained}"
    for command in (
        ["features", "--split=pool"],
        ["features", "--split=test"],
        ["zeroshot", "--task=planes"],
        ["zeroshot", "--task=brain"],
        ["ga"],
        ["probe"],
        ["fewshot"],
        ["report", "--total-seconds=12.5"],
    ):
        assert cli.main([command[0], run, *command[1:]]) == 0, capsys.readouterr().err
    results = json.loads((trained / "results.json").read_text())
    for key in (
        "zero_shot.planes.macro_f1",
        "zero_shot.brain.macro_f1",
        "age.valid_prediction_rate",
        "age.constant_baseline",
        "age.mae_days",
        "probe.planes.macro_f1",
        "probe.raw_pixels.macro_f1",
        "few_shot.planes.2.mean",
        "few_shot.planes.4.low",
        "few_shot.planes.4.high",
        "train.seconds",
        "total.seconds",
        "peak_rss_gib",
    ):
        value = results
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, float | int), key
    assert results["total"]["seconds"] >= 12.5
    page = (trained / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    printed = capsys.readouterr().out
    # The rate never stands without the constant it has to beat.
    assert "valid prediction rate" in printed
    assert "always the best constant age" in printed


def test_tokenizer_and_weights_of_a_run_load_together(trained):
    import fetalclip_jax

    model = fetalclip_jax.load(trained)
    tokens = model.tokenize(["Ultrasound image of the fetal head."])
    assert tokens.shape == (1, 48)
    features = model.encode_text(tokens)
    assert features.shape == (1, TINY.embed_dim)
    assert 1 <= model.logit_scale <= 100


def test_prepare_takes_overrides(config_file, tmp_path, capsys):
    command = ["prepare", "--config", str(config_file), f"--workdir={tmp_path}", "--split", "test"]
    assert cli.main([*command, "--config.data.phantom.test_images=6"]) == 0
    assert capsys.readouterr().out.startswith("6 examples in ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.train.stepz=3"], "no such key"),
        (["--config.train.steps=many"], "many"),
        (["--steps=3"], "steps"),
    ],
)
def test_keys_that_do_not_exist_are_named(config_file, tmp_path, capsys, overrides, message):
    command = ["train", "--config", str(config_file), f"--workdir={tmp_path}", *overrides]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("fetalclip train: ")
    assert message in error


def test_a_missing_config_file_is_named(tmp_path, capsys):
    assert cli.main(["train", "--config=nowhere.py", f"--workdir={tmp_path}"]) == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_a_missing_data_folder_is_named(tmp_path, capsys):
    command = ["train", "--config=configs/hc18.py", f"--workdir={tmp_path / 'run'}"]
    assert cli.main([*command, f"--config.data.root={tmp_path / 'absent'}"]) == 2
    assert "absent" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert cli.main(["ga", f"--workdir={tmp_path}"]) == 2
    assert "holds neither the checkpoints of a run (fetalclip train" in capsys.readouterr().err


def test_probes_without_stored_features_say_how_to_make_them(tmp_path, capsys):
    assert cli.main(["probe", f"--workdir={tmp_path}"]) == 2
    assert "fetalclip features" in capsys.readouterr().err


def test_prompts_of_another_shape_are_refused(trained, tmp_path, capsys):
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"brain": "one string"}')
    assert cli.main(["zeroshot", f"--workdir={trained}", f"--prompts={prompts}"]) == 2
    assert "prompts.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "prepare", "features", "zeroshot", "ga", "probe"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"example:\n  fetalclip {command}" in capsys.readouterr().out
