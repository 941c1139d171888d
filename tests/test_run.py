import json
import os
import signal
import subprocess
import sys

import pytest

from fetalclip_jax import run
from fetalclip_jax.config import save_config
from fetalclip_jax.run import Run
from tests.tiny import tiny_experiment


@pytest.fixture
def config():
    return tiny_experiment()


@pytest.fixture
def trained(tmp_path, config):
    """A folder that looks like a finished run of 12 steps."""
    run = Run(tmp_path / "run")
    run.claim(config)
    (run.checkpoints / "8").mkdir(parents=True)
    (run.checkpoints / "12").mkdir()
    return run


def changed(config, changes):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(changes)
    return other


def refusal(folder, config, changes):
    with pytest.raises(ValueError, match=str(folder.workdir)) as error:
        folder.claim(changed(config, changes))
    message = str(error.value)
    assert "\n" not in message
    assert "delete" not in message
    return message


def test_the_settings_of_a_run_are_bound_by_its_checkpoints(trained, config):
    before = trained.config.read_text()
    message = refusal(trained, config, {"optimizer.learning_rate": 0.5, "seed": 3})
    assert "optimizer.learning_rate: 0.001 there, 0.5 now" in message
    assert "seed: 0 there, 3 now" in message
    assert trained.config.read_text() == before


def test_machines_and_habits_are_free(trained, config):
    changes = {"mesh.fsdp": 2, "data.workers": 7, "train.checkpoint_every": 1}
    trained.claim(changed(config, changes))
    assert json.loads(trained.config.read_text())["data"]["workers"] == 7


def test_other_habits_of_this_version_are_free(trained, config):
    changes = {"train.keep_checkpoints": 5, "train.keep_best": "", "compute.remat": "full"}
    assert not trained.claim(changed(config, changes)).changes
    assert json.loads(trained.config.read_text())["train"]["keep_checkpoints"] == 5


def test_options_of_data_that_is_not_read_are_free(trained, config):
    trained.claim(changed(config, {"data.hc18.test_share": 0.3}))
    assert "data.phantom.train_images: 24 there, 48 now" in (
        refusal(trained, config, {"data.phantom.train_images": 48})
    )


def test_options_of_data_that_is_mixed_in_are_not_free(tmp_path, config):
    run = Run(tmp_path / "mixed")
    mixed = changed(config, {"data.mixture": (("hc18", "", 0.5),)})
    run.claim(mixed)
    (run.checkpoints / "8").mkdir(parents=True)
    assert "test_share: 0.2 there, 0.3 now" in refusal(run, mixed, {"data.hc18.test_share": 0.3})
    for name, value in (("mixture", (("hc18", "", 0.25),)), ("train_patients", 3)):
        assert f"data.{name}: " in refusal(run, mixed, {f"data.{name}": value})
    run.claim(changed(mixed, {"data.mixture": (("hc18", "moved", 0.5),)}))


def test_a_change_can_be_allowed_and_is_kept(trained, config, capsys):
    before = trained.config.read_text()
    other = changed(config, {"optimizer.learning_rate": 0.5, "augment.flip": 0.0})
    assert "--allow-config-change" in refusal(trained, config, {"optimizer.learning_rate": 0.5})
    plan = trained.claim(other, allow_config_change=True)
    assert trained.config.read_text() == before  # until the run does go on
    trained.accept(other, plan.changes, 12)
    assert json.loads(trained.config.read_text())["optimizer"]["learning_rate"] == 0.5
    assert json.loads(trained.config_changes.read_text()) == {
        "step": 12,
        "changes": {"augment.flip": [0.5, 0.0], "optimizer.learning_rate": [0.001, 0.5]},
    }
    assert capsys.readouterr().out.splitlines() == [
        "From step 12 on, augment.flip is 0.0; it was 0.5",
        "From step 12 on, optimizer.learning_rate is 0.5; it was 0.001",
    ]
    assert trained.claim(other).changes == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 1}, "it decides the order of the data"),
        ({"train.global_batch_size": 16}, "the position in the data counts batches of that size"),
        ({"data.phantom.train_images": 48}, "the position in the data is one among those"),
        ({"tokenizer.kind": "clip_bpe"}, "the ids of that vocabulary"),
        ({"model.vision_cfg.layers": 4}, "its parameters have other names or shapes"),
        ({"loss.kind": "classify"}, "its parameters have other names or shapes"),
        ({"init_model": True}, "the run has started already"),
        ({"lora.rank": 2}, "the optimiser keeps state of what was trained"),
    ],
)
def test_what_cannot_be_continued_is_refused_whatever_is_allowed(trained, config, changes, reason):
    with pytest.raises(ValueError, match=f"whatever is allowed: .*{reason}") as error:
        trained.claim(changed(config, changes), allow_config_change=True)
    assert f"{next(iter(changes))}: " in str(error.value)


def test_another_function_of_the_same_parameters_can_be_allowed(trained, config):
    changes = {"model.vision_cfg.patch_dropout": 0.5}
    assert "model.vision_cfg.patch_dropout: 0" in refusal(trained, config, changes)
    plan = trained.claim(changed(config, changes), allow_config_change=True)
    assert plan.changes == {"model.vision_cfg.patch_dropout": (0.0, 0.5)}


@pytest.fixture
def constant(tmp_path, config):
    """As `trained`, with a constant learning rate that falls over the last 4 of 12 steps."""
    config = changed(config, {"optimizer.schedule": "constant", "optimizer.cooldown_steps": 4})
    run = Run(tmp_path / "constant")
    run.claim(config)
    for step in (6, 8, 12):
        (run.checkpoints / str(step)).mkdir(parents=True)
    return run, config


def test_a_constant_schedule_is_extended_from_before_its_cool_down(constant):
    run, config = constant
    plan = run.claim(changed(config, {"train.steps": 20}))
    assert plan.changes == {"train.steps": (12, 20)}
    assert plan.newest == 8
    (run.checkpoints / "12").rename(run.checkpoints / "12.damaged")
    assert run.claim(changed(config, {"train.steps": 20})).newest is None  # the latest will do
    # It may begin to fall earlier too.
    other = changed(config, {"train.steps": 10, "optimizer.cooldown_steps": 3})
    assert run.claim(other).newest == 6
    (run.checkpoints / "8").rename(run.checkpoints / "10")
    (run.checkpoints / "6").rename(run.checkpoints / "9")
    assert "the two plans part at step 8" in refusal(run, config, {"train.steps": 20})


def test_a_folder_that_cannot_be_written_is_named(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"run cannot be written \(Not a directory\); make"):
        Run(tmp_path / "file" / "run").claim(config)


def test_more_steps_after_the_end_are_another_schedule(trained, config):
    message = refusal(trained, config, {"train.steps": 20})
    assert "has finished its 12 steps, with the learning rate at zero" in message
    assert f"--config.init_from={trained.workdir}" in message


def test_other_steps_in_the_middle_are_another_schedule(trained, config):
    (trained.checkpoints / "12").rename(trained.checkpoints / "12.damaged")
    message = refusal(trained, config, {"train.steps": 20})
    assert "has a schedule of 12 steps and is at step 8" in message
    assert "go on with config.train.steps=12" in message


def test_a_mistake_before_the_first_checkpoint_can_be_put_right(tmp_path, config):
    folder = Run(tmp_path)
    folder.claim(changed(config, {"model.text_cfg.vocab_size": 999}))
    folder.tokenizer.mkdir()
    folder.claim(config)
    assert json.loads(folder.config.read_text())["model"]["text_cfg"]["vocab_size"] == 1024
    assert not folder.tokenizer.exists()  # it was made for the other settings


def test_checkpoints_without_a_description_are_refused(tmp_path, config):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds checkpoints but no config\.json"):
        Run(tmp_path).claim(config)


def test_imported_weights_are_started_from_not_continued(tmp_path, config):
    folder = Run(tmp_path)
    save_config(changed(config, {"data.source": ""}), folder.config)
    (folder.checkpoints / "0").mkdir(parents=True)
    assert (
        f"holds imported weights; train from its parameters with --config.init_from={tmp_path}"
        in (refusal(folder, config, {}))
    )


CLAIMING = """
import pathlib, sys, time
from fetalclip_jax.run import Run
from tests.tiny import tiny_experiment
Run(pathlib.Path(sys.argv[1])).claim(tiny_experiment())
print("claimed", flush=True)
time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_until_it_ends(tmp_path, config):
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMING, tmp_path], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(ValueError, match=f"is in use by process {other.pid} on .*; wait") as e:
            Run(tmp_path).claim(config)
        assert "\n" not in str(e.value)
        other.kill()
        other.wait()
        Run(tmp_path).claim(config)
    Run(tmp_path).claim(config)  # the same process may go on with its own


def test_children_do_not_hold_the_folder_of_a_parent_that_is_gone(tmp_path, config):
    fork = "import os\nos.fork()\nos.write(1, b'forked\\n')\n"
    forking = CLAIMING.replace("time.sleep", f"{fork}time.sleep")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", forking, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        printed = [parent.stdout.readline() for _ in range(3)]
        assert printed == ["claimed\n", "forked\n", "forked\n"]
        parent.kill()
        parent.wait()
        try:
            Run(tmp_path).claim(config)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_a_folder_made_anew_is_claimed_anew(tmp_path, config):
    folder = Run(tmp_path / "run")
    folder.claim(config)
    folder.workdir.rename(tmp_path / "elsewhere")
    folder.claim(config)
    assert (folder.workdir / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.json"
    run.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(OSError, match="directory"):
        run.write_text(tmp_path / "new", "a folder has the name")
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "file.json"]


def test_only_the_lead_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "is_lead", lambda: False)
    run.write_text(tmp_path / "file", "text")
    assert not (tmp_path / "file").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "tokenizer"

    def fail_halfway():
        with run.whole_folder(target, "all") as folder:
            (folder / "half").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_halfway()
    assert not list(tmp_path.iterdir())
    with run.whole_folder(target, "all") as folder:
        (folder / "all").write_text("all")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["all"]
    with pytest.raises(ValueError, match="is there already"), run.whole_folder(target, "all"):
        pass


def test_writing_files_does_not_start_jax():
    program = "import sys, fetalclip_jax.run as r; print('jax' in sys.modules, r.is_lead())"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert printed.stdout == "False True\n"
