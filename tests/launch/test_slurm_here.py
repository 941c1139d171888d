"""Training under a real Slurm of two nodes on this machine: FETALCLIP_SLURM=1 asks for it."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax.run import Run

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 120
CONFIG = f"""
from tests.tiny import tiny_experiment

def get_config():
    config = tiny_experiment()
    config.train.update({{"steps": {STEPS}, "checkpoint_every": 20, "log_every": 20}})
    return config
"""
LIMIT_S = 600

pytestmark = pytest.mark.skipif(
    not os.environ.get("FETALCLIP_SLURM"),
    reason="starts a Slurm cluster; FETALCLIP_SLURM=1 asks for it (Debian: slurm-wlm)",
)


def here(action, folder):
    script = str(ROOT / "tests" / "launch" / "slurm_here.sh")
    return subprocess.run(
        ["bash", script, action, str(folder)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A folder that a cluster lives in, and the environment to reach it."""
    folder = tmp_path_factory.mktemp("slurm")
    printed = here("start", folder)
    (folder / "tiny.py").write_text(CONFIG)
    environment = os.environ | {
        "SLURM_CONF": printed.strip().removeprefix("export SLURM_CONF="),
        "PYTHONPATH": str(ROOT),
        "FETALCLIP_VENV": sys.prefix,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",  # one device a process: two in all
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    }
    try:
        yield folder, environment
    finally:
        here("stop", folder)


def submit(cluster, workdir, *options):
    folder, environment = cluster
    logs = folder / f"logs-{workdir.name}"
    launcher = ["bash", str(ROOT / "launch" / "slurm.sh"), "--nodes=2", f"--logs={logs}"]
    command = ["fetalclip", "train", "--config", str(folder / "tiny.py"), "--workdir", str(workdir)]
    done = subprocess.run(
        [*launcher, *options, "--", *command],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    number = done.stdout.split()[-1]
    return number, logs / f"fetalclip-{number}.log"


def ask(cluster, *command):
    return subprocess.run(
        command, env=cluster[1], check=True, capture_output=True, text=True
    ).stdout


def state(cluster, job):
    return ask(cluster, "scontrol", "show", "job", "-o", job).split("JobState=")[1].split()[0]


def wait(cluster, job, wanted, log):
    """Until `wanted`; a job that waits to be queued again waits no longer than it must."""
    deadline = time.monotonic() + LIMIT_S
    while not wanted():
        assert time.monotonic() < deadline, log.read_text()
        if state(cluster, job) == "PENDING":
            ask(cluster, "scontrol", "update", f"JobId={job}", "StartTime=now")
        time.sleep(0.5)


def parameters(workdir):
    return jax.tree.leaves(fetalclip_jax.load(workdir).params)


def test_a_job_that_is_told_to_stop_comes_back_and_ends_as_an_undisturbed_one(cluster):
    folder, _ = cluster
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    job, log = submit(cluster, undisturbed)
    wait(cluster, job, lambda: state(cluster, job) == "COMPLETED", log)

    job, log = submit(cluster, disturbed)
    wait(cluster, job, lambda: Run(disturbed).steps(), log)
    # What Slurm does before the time limit, and sites before they preempt.
    ask(cluster, "scancel", "--signal=TERM", "--batch", job)
    wait(cluster, job, lambda: state(cluster, job) in ("COMPLETED", "FAILED"), log)

    told = log.read_text()
    print(told)
    assert state(cluster, job) == "COMPLETED"
    assert "slurm.sh: told to stop" in told
    assert f" of {STEPS}, saved; run the same command to go on" in told
    assert "Continuing from step" in told
    assert told.rstrip().endswith("slurm.sh: finished")
    assert "Restarts=1" in ask(cluster, "scontrol", "show", "job", job)
    assert Run(undisturbed).steps()[-1] == Run(disturbed).steps()[-1] == STEPS
    for one, other in zip(parameters(undisturbed), parameters(disturbed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_job_that_its_user_cancels_does_not_come_back(cluster):
    workdir = cluster[0] / "cancelled"
    job, log = submit(cluster, workdir)
    wait(cluster, job, lambda: Run(workdir).steps(), log)
    ask(cluster, "scancel", job)
    wait(cluster, job, lambda: "slurm.sh: cancelled" in log.read_text(), log)
    wait(cluster, job, lambda: state(cluster, job) == "CANCELLED", log)
