"""Jobs of two processes with four simulated devices each, started as users start them."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fetalclip_jax.training.loop import train
from tests.parallel.program import MESHES, experiment, judged

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_S = 600  # of any job here, on a machine that does much else; one that hangs has no end


def command(*arguments, processes=2, devices=4):
    return ["bash", str(ROOT / "launch" / "local.sh"), str(processes), str(devices), *arguments]


def environment(**more):
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        # That of these tests, whatever the launcher finds beside it.
        "FETALCLIP_VENV": sys.prefix,
        "JAX_COMPILATION_CACHE_DIR": "",
        "FETALCLIP_GRACE_SECONDS": "30",
        **more,
    }


def start(*arguments, **more):
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(**more),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def outcome(job):
    """(status, output) of a job that must end."""
    try:
        output, _ = job.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        job.send_signal(signal.SIGTERM)
        output, _ = job.communicate()
        raise AssertionError(f"the job did not end within {LIMIT_S} s:\n{output}") from None
    return job.returncode, output


def alive(mark):
    """Processes whose command line has `mark` in it."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:  # it ended meanwhile
            continue
    return found


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A finished run of this one process with its eight devices."""
    workdir = tmp_path_factory.mktemp("processes") / "one"
    train(experiment(), workdir)
    return workdir


@pytest.fixture(scope="module")
def two(one):
    """The folder with what two processes made, and what they printed."""
    status, output = outcome(start("python", "-m", "tests.parallel.program", str(one.parent)))
    assert status == 0, output
    return one.parent, output


def assert_same_curve(workdir, other):
    # A loss is a difference of logits, cosines times the scale. Each run rounds both of them by up
    # to half a step of float32, so two runs by two whole ones; what remains is relative.
    scale = np.exp(experiment().model.init_logit_scale)
    rounding = 2 * scale * np.finfo(np.float32).eps
    for name in ("loss", "val_loss"):
        here, there = (
            [line[name] for line in lines(run) if name in line] for run in (workdir, other)
        )
        assert len(here) == (20 if name == "loss" else 2)
        np.testing.assert_allclose(here, there, atol=rounding, rtol=1e-6)


def test_two_processes_train_as_one_with_as_many_devices(one, two):
    folder, _ = two
    assert_same_curve(folder / "two", one)


def test_a_run_of_two_processes_goes_on_in_one_on_the_same_curve(one, two, tmp_path):
    folder, _ = two
    shutil.copytree(folder / "two", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "20")
    train(experiment(), tmp_path / "resumed")
    assert_same_curve(tmp_path / "resumed", one)


def test_two_processes_judge_a_model_as_one(two, tmp_path):
    folder, _ = two
    expected = judged(folder / "two", tmp_path)
    for process in range(2):
        with np.load(folder / f"{process}.npz") as found:
            for name, wanted in expected.items():
                np.testing.assert_allclose(found[name], wanted, atol=1e-6, rtol=1e-6)
    stored = []
    for output in (folder / "judged_by_two", tmp_path):
        (arrays,) = output.glob("run/features/*/arrays.npz")
        with np.load(arrays) as store:
            stored.append(store["image_features"])
        result = json.loads((output / "run" / "phantom" / "zero_shot.planes.json").read_text())
        stored.append(result["metrics"]["macro_f1"]["value"])
    np.testing.assert_allclose(stored[0], stored[2], atol=1e-6, rtol=1e-6)
    assert stored[1] == stored[3]
    shown = [
        sorted(p.name for p in out.rglob("*.png")) for out in (folder / "judged_by_two", tmp_path)
    ]
    assert shown[0] == shown[1] != []


def test_each_process_supplies_the_rows_that_its_devices_hold(two):
    folder, _ = two
    said = [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]
    rows = np.arange(32).reshape(16, 2).tolist()
    for number, (_, parts) in enumerate(MESHES):
        assert [tuple(one["parts"][number]) for one in said] == parts
        assert [one["whole"][number] for one in said] == [rows, rows]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("batch", "global_batch_size=12 is not a multiple of the 8 devices"),
        ("devices", "needs 16 devices, there are 8 (in 2 processes)"),
        ("axis", "config.mesh.model is no axis of the mesh; there are data, fsdp, tensor"),
        ("config", "config.seed is 0 on process 0"),
        ("data", "25 is not a multiple of images_per_patient=6"),
    ],
)
def test_what_cannot_work_is_said_in_every_process(two, name, message):
    folder, _ = two
    said = [json.loads((folder / f"{i}.json").read_text())["refused"][name] for i in range(2)]
    assert message in said[0]
    assert said[0] == said[1]


def test_only_the_lead_writes_and_prints(two):
    folder, output = two
    assert "[0] run on phantom, zero_shot.planes: macro F1" in output
    printed = [line.removeprefix("[1]") for line in output.splitlines() if line.startswith("[1]")]
    # XLA's compiler warns in every process, in lines of its own form. What is left of those that
    # Gloo prints in pieces has no words in it.
    printed = [line for line in printed if not re.match(r"\s*[WE]\d{4} .*\.cc:\d+\]", line)]
    assert not [line for line in printed if any(c.isalpha() for c in line)]
    assert len(list((folder / "two" / "tensorboard").glob("events.out.tfevents*"))) == 1
    assert not list((folder / "two").glob(".shared-*"))


TOY = """
import os, signal, sys, time
from fetalclip_jax.parallel import distributed, job
job._SILENCE_S, job._TO_READ_S = 3.0, 1.0
how = sys.argv[1]
if how == "code" and os.environ["JAX_PROCESS_ID"] == "1":
    job._code_digest = lambda package: "other"
with job.job("toy"):
    import jax, jax.numpy as jnp, numpy as np
    from fetalclip_jax.parallel import mesh, sharding
    me, _ = distributed.place()
    where = mesh.make_mesh()
    total = jax.jit(jnp.sum, out_shardings=sharding.replicated(where))
    rows = sharding.place(np.arange(8.0), sharding.batch_sharding(where))
    print("sum", float(total(rows)), flush=True)
    if how == "error" and me == 1:
        raise ValueError("something only this one found")
    if how == "killed" and me == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "lead":
        distributed.on_lead(lambda: time.sleep(1000))
    float(total(rows))  # waits for the other
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    program = tmp_path_factory.mktemp("toy") / "toy_program.py"
    program.write_text(TOY)
    yield str(program)
    assert not alive(str(program))


def test_an_error_of_one_process_ends_all(toy):
    status, output = outcome(start("python", toy, "error"))
    assert status == 2
    assert "[1] fetalclip toy: something only this one found" in output
    assert "[0] fetalclip toy: process 1 on " in output
    assert not alive(toy)


def test_a_process_that_is_killed_ends_all(toy):
    status, output = outcome(start("python", toy, "killed"))
    assert status == 128 + signal.SIGKILL
    assert "[0] fetalclip toy: process 1 on " in output
    assert "[0] ended with status 2" in output


def test_other_code_is_told_from_each_host(toy):
    status, output = outcome(start("python", toy, "code"))
    assert status == 2
    for process in range(2):
        assert f"[{process}] fetalclip toy: the processes of this job differ: the code" in output


def test_sigterm_reaches_all_and_leaves_nothing(toy):
    job = start("python", toy, "lead")
    while "sum" not in (line := job.stdout.readline()):
        assert line, "the job ended by itself"
    job.send_signal(signal.SIGTERM)
    status, output = outcome(job)
    assert status == 2
    assert "ended by SIGTERM" in output
    assert not alive(toy)


def fetalclip(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "fetalclip_jax.cli", *arguments],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_coordinator_that_never_answers_is_named(tmp_path):
    join = ["--coordinator", "127.0.0.1:9", "--processes", "2", "--process-id"]
    begin = time.time()
    done = fetalclip(
        "embed", "--model", "x", "--output", "x", "x", *join, "1", "--start-timeout", "2"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "the coordinator at 127.0.0.1:9 did not answer within 2 s" in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.time() - begin < 60
