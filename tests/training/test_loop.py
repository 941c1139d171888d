import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax.config import save_config
from fetalclip_jax.training import checkpoint, metrics, preemption
from fetalclip_jax.training.loop import train
from tests.tiny import tiny_experiment

ROOT = pathlib.Path(__file__).resolve().parents[2]


def constant(steps):
    """A run whose learning rate falls over its last four steps."""
    config = tiny_experiment()
    config.optimizer.update({"schedule": "constant", "cooldown_steps": 4})
    config.train.update({"steps": steps, "keep_checkpoints": 1})
    return config


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A finished run and its final parameters."""
    config = constant(12)
    workdir = tmp_path_factory.mktemp("run")
    return config, workdir, train(config, workdir)


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def lines(workdir):
    if not (workdir / "metrics.jsonl").exists():
        return []
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_what_it_promises(uninterrupted):
    config, workdir, final = uninterrupted
    assert int(final.step) == config.train.steps
    losses = [line["loss"] for line in lines(workdir) if "loss" in line]
    assert losses[-1] < losses[0]
    assert [line["step"] for line in lines(workdir) if "val_loss" in line] == [4, 8, 12]
    assert list((workdir / "tensorboard").glob("events.out.tfevents*"))
    summary = json.loads((workdir / "results" / "train.json").read_text())
    assert summary["images_seen"] == 96
    assert summary["seconds"] > 0
    spent = summary["goodput"]["seconds"]
    # The end waits for the last checkpoint to be written.
    assert summary["seconds"] <= sum(spent.values()) < summary["seconds"] + 60
    assert min(spent["step"], spent["compile"], spent["evaluate"], spent["save"]) > 0
    assert spent["lost"] == 0
    assert (summary["skipped_steps"], summary["loss_spikes"]) == (0, 0)
    beat = json.loads((workdir / "heartbeats" / "0.json").read_text())
    assert (beat["phase"], beat["step"]) == ("stopped", 12)
    assert not (workdir / "skipped").exists()


def test_a_killed_run_ends_with_bitwise_the_same_parameters(uninterrupted, tmp_path):
    config, _, final = uninterrupted
    program = tmp_path / "run.py"
    save_config(config, tmp_path / "asked.json")
    # The child sleeps at each step, so that it is certainly alive when it is killed.
    program.write_text(
        "import pathlib, time\n"
        "from fetalclip_jax.config import load_config\n"
        "from fetalclip_jax.training import loop, metrics\n"
        "write = metrics.MetricsWriter.write\n"
        "def slow(self, step, values):\n"
        "    write(self, step, values)\n"
        "    time.sleep(60 if step > 4 else 0)\n"
        "metrics.MetricsWriter.write = slow\n"
        f"loop.train(load_config(pathlib.Path({str(tmp_path / 'asked.json')!r})),"
        f" {str(tmp_path / 'killed')!r})\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(program)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    workdir = tmp_path / "killed"
    deadline = time.time() + 240
    # Once step 6 is logged and the checkpoint of step 4 is written, work is about to be lost.
    while checkpoint.latest_step(workdir) != 4 or not any(
        line["step"] == 6 for line in lines(workdir)
    ):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() < deadline, "the run never reached step 6"
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.latest_step(workdir) == 4
    assert equal(train(config, workdir).params, final.params)
    steps = [line["step"] for line in lines(workdir) if "loss" in line]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert json.loads((workdir / "results" / "train.json").read_text())["goodput"]["seconds"][
        "lost"
    ]


def test_running_a_finished_run_again_changes_nothing(uninterrupted):
    config, workdir, final = uninterrupted
    before = (workdir / "metrics.jsonl").read_text()
    assert equal(train(config, workdir).params, final.params)
    assert (workdir / "metrics.jsonl").read_text() == before


def test_machines_may_change_between_a_run_and_its_continuation(uninterrupted, tmp_path):
    config, workdir, final = uninterrupted
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(config.train.steps))
    assert checkpoint.latest_step(tmp_path / "run") == 8
    other = config.copy_and_resolve_references()
    other.mesh.update({"data": 2, "fsdp": 2, "tensor": 2})
    continued = train(other, tmp_path / "run").params
    for a, b in zip(jax.tree.leaves(continued), jax.tree.leaves(final.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_any_checkpoint_opens_by_its_path(uninterrupted):
    _, workdir, final = uninterrupted
    opened = fetalclip_jax.load(workdir / "checkpoints" / "12")
    assert equal(opened.params, final.params)
    judged = {line["step"]: line["val_loss"] for line in lines(workdir) if "val_loss" in line}
    best = min(judged, key=judged.get)
    assert (
        fetalclip_jax.load(workdir / "checkpoints" / "best").fingerprint
        == fetalclip_jax.load(workdir / "checkpoints" / str(best)).fingerprint
    )
    for name, message in (("7", "no checkpoint of step 7; there are"), ("x", "is no checkpoint")):
        with pytest.raises(ValueError, match=message):
            fetalclip_jax.load(workdir / "checkpoints" / name)


def test_a_run_that_is_stopped_and_extended_is_the_one_planned_so(
    uninterrupted, tmp_path, monkeypatch, capfd
):
    """Bitwise: stopped by SIGTERM after step 3, ended at step 10, extended to 12."""
    _, planned, final = uninterrupted
    workdir, log = tmp_path / "run", metrics.MetricsWriter.write

    def write_and_signal(self, step, values):
        log(self, step, values)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched, preemption.Notice() as notice:
        patched.setattr(metrics.MetricsWriter, "write", write_and_signal)
        notice.started()
        stopped = train(constant(10), workdir, notice=notice)
    assert int(stopped.step) == checkpoint.latest_step(workdir) == 3
    assert "Stopped at step 3 of 10, saved; run the same command to go on" in capfd.readouterr().out
    assert not (workdir / "results" / "train.json").exists()

    assert int(train(constant(10), workdir).step) == 10
    assert [line["step"] for line in lines(workdir) if "loss" in line] == [2, 4, 6, 8, 10]
    extended = train(constant(12), workdir)
    assert "10 is superseded (the run goes on from step 6)" in capfd.readouterr().out
    assert equal(extended, final)
    losses = [[line.get("loss") for line in lines(folder)] for folder in (planned, workdir)]
    assert losses[0] == losses[1]


def test_parameters_of_another_model_are_not_taken_over(uninterrupted, tmp_path):
    config, workdir, _ = uninterrupted
    other = config.copy_and_resolve_references()
    other.init_from = str(workdir)
    # Changes the function, but no name and no shape.
    other.model.quick_gelu = not config.model.quick_gelu
    with pytest.raises(ValueError, match="has another model: quick_gelu"):
        train(other, tmp_path)


def test_averaged_parameters_and_a_start_from_another_run(uninterrupted, tmp_path):
    config, origin, _ = uninterrupted
    other = config.copy_and_resolve_references()
    other.init_from = str(origin)
    other.train.update({"steps": 2, "checkpoint_every": 1, "keep_checkpoints": 2})
    other.train.ema_decay = 0.5
    # The first step's learning rate is zero.
    other.optimizer.update({"warmup_steps": 1, "cooldown_steps": 0})
    final = train(other, tmp_path)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), final.params)
    assert equal(checkpoint.restore_params(tmp_path, abstract), final.ema)
    assert not equal(final.ema, final.params)
    assert [line["step"] for line in lines(tmp_path) if "ema_val_loss" in line] == [1, 2]
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    started = checkpoint.restore_params(tmp_path, abstract)
    assert equal(started, checkpoint.restore_params(origin, abstract))
    again = train(other, tmp_path)
    assert equal((again.params, again.ema), (final.params, final.ema))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train.global_batch_size": 32}, "data set has 24 examples"),
        ({"train.global_batch_size": 12}, "not a multiple of the 8 devices"),
        ({"optimizer.warmup_steps": 12}, "warmup_steps=12 is not below"),
        ({"data.source": "mnist"}, "'mnist' is not one of phantom, hc18"),
        ({"data.phantom.train_images": 25}, "25 is not a multiple of images_per_patient=6"),
        ({"compute.dtype": "float8"}, "'float8' is not one of float32, bfloat16"),
        ({"tokenizer.kind": "words"}, "'words' is not one of sentencepiece, clip_bpe"),
        ({"model.text_cfg.vocab_size": 100}, r"(?i)vocab.*100"),
        ({"mesh.data": 3}, "needs 3 devices"),
        ({"mesh.fsdp": 0}, "fsdp=0"),
        ({"train.log_every": 0}, "log_every=0 must be at least 1"),
        ({"train.global_batch_size": 0}, "global_batch_size=0 must be at least 1"),
        ({"train.keep_checkpoints": 0}, "keep_checkpoints=0 must be at least 1"),
        ({"train.keep_best": "loss"}, "keep_best='loss' is not measured in validation; use val_"),
        ({"train.ema_decay": 1.0}, r"ema_decay=1\.0 is not from 0"),
        ({"train.max_skipped_steps": 0}, "max_skipped_steps=0 must be at least 1"),
        ({"train.stall_seconds": -1.0}, r"stall_seconds=-1\.0 must be 0"),
        ({"train.study_every": 4}, r"studies=\(\) and config.train.study_every=4: give both"),
        ({"train.studies": ("age",)}, r"studies=\('age',\) and config.train.study_every=0"),
        ({"train.studies": ("age",), "train.study_every": 4}, "pass judge="),
        ({"optimizer.clip_norm": 0.0}, r"clip_norm=0\.0 would leave nothing"),
        ({"loss.kind": "hinge"}, "loss.kind='hinge' is not one of softmax"),
        ({"init_from": "nowhere"}, "nowhere"),
    ],
)
def test_fields_that_cannot_work_are_named(tmp_path, change, message):
    config = tiny_experiment()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path)
