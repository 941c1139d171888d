"""Points as processes, with small programs in the place of training."""

import fcntl
import os
import signal
import sys
import threading
import time

import pytest

from fetalclip_jax.sweeps import local, slots
from fetalclip_jax.sweeps.folder import Folder, State
from tests.evaluation import saved
from tests.sweeps import experiments

# Written by a point that ends well; the results are put there by the test.
DONE = """
import json, pathlib, sys
pathlib.Path(sys.argv[1], "point.json").write_text(json.dumps(
    {"status": "done", "message": "", "step": 4, "seconds": 1.0}))
"""
CRASH = "import os, signal; print('all was well'); os.kill(os.getpid(), signal.SIGSEGV)"
FAILS = "print('first'); raise SystemExit('no such thing')"
# Saves when it is told to, as a run does, and has a worker that is to outlive the signal.
WAITS = """
import json, os, pathlib, signal, subprocess, sys, time
worker = subprocess.Popen(["sleep", "60"])
def stop(*_):
    time.sleep(0.2)
    if worker.poll() is not None:
        sys.exit("a worker was ended from outside")
    pathlib.Path(sys.argv[1], "point.json").write_text(json.dumps(
        {"status": "interrupted", "message": "", "step": 2, "seconds": None}))
    sys.exit(int(os.environ.get("FETALCLIP_STOPPED_STATUS", 0)))
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


@pytest.fixture
def sweep(tmp_path):
    """Four points and their folder."""
    plan = experiments.one(tmp_path, 'sweeps.values("seed", range(4))')
    return plan, Folder(tmp_path / "work")


def finished(folder, plan, point):
    labels = [0, 1, 2]
    saved.result(saved.answered(labels, labels)).save(folder.results(point, plan))


def run(plan, folder, points, programs, jobs=2):
    def command(point):
        where = str(folder.run(point).workdir)
        if programs[point.index] == DONE:
            finished(folder, plan, point)
        return [sys.executable, "-c", programs[point.index], where]

    said = []
    whole = local.run(plan, folder, points, command, slots.divide(jobs), said.append)
    return whole, {p.index: folder.state(p, plan) for p in plan.points}, said


def interrupt_after(path):
    """Tells this process to end once a file is there."""
    deadline = time.time() + 30
    while not path.exists() and time.time() < deadline:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_point_that_crashes_takes_no_other_with_it(sweep):
    plan, folder = sweep
    programs = [DONE, CRASH, FAILS, DONE]
    whole, states, said = run(plan, folder, plan.points, programs)
    assert whole
    assert [states[k].status for k in range(4)] == ["done", "failed", "failed", "done"]
    assert states[1].message == "ended by SIGSEGV; its last line: all was well"
    assert states[2].message == "ended with status 1; its last line: no such thing"
    assert "seed=0: done after 1 s" in said
    assert len(said) == 4


def test_what_was_killed_in_the_middle_goes_on_and_nothing_is_done_twice(sweep, monkeypatch):
    monkeypatch.setenv("FETALCLIP_STOPPED_STATUS", "75")  # the sweep's own, not of its points
    plan, folder = sweep
    ready = folder.run(plan.points[1]).workdir / "ready"

    thread = threading.Thread(target=interrupt_after, args=(ready,))
    thread.start()
    whole, states, _ = run(plan, folder, plan.points, [DONE, WAITS, DONE, DONE], jobs=1)
    thread.join()
    assert not whole
    assert [states[k].status for k in range(4)] == ["done", "interrupted", "waiting", "waiting"]
    left = [p for p in plan.points if states[p.index].status != "done"]
    whole, states, said = run(plan, folder, left, [CRASH, DONE, DONE, DONE])
    assert whole
    assert {state.status for state in states.values()} == {"done"}
    assert len(said) == 3


def test_a_point_that_is_ended_before_it_can_hear_it_is_interrupted(sweep):
    plan, folder = sweep
    (starting := folder.run(plan.points[0]).workdir).mkdir(parents=True)
    program = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1], 'ready').touch(); time.sleep(60)"
    )
    thread = threading.Thread(target=interrupt_after, args=(starting / "ready",))
    thread.start()
    whole, states, _ = run(plan, folder, plan.points[:1], [program])
    thread.join()
    assert not whole
    assert states[0].status == "interrupted"


def test_a_point_that_another_process_trains_is_not_called_failed(sweep):
    plan, folder = sweep
    own = folder.run(plan.points[0])
    folder.write_state(plan.points[0], State("running"))
    with (own.workdir / ".lock").open("w+") as lock:
        lock.write("process 7 on a host")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, states, said = run(plan, folder, plan.points[:1], [FAILS])
    assert states[0] == State("running")
    assert said == ["seed=0: running: by process 7 on a host, not by this sweep"]
    assert own.in_use() == ""
    assert run(plan, folder, plan.points[:1], [FAILS])[1][0].status == "failed"


def test_a_point_without_all_its_results_is_not_done(sweep):
    plan, folder = sweep
    folder.write_state(plan.points[0], State("done", "", 4, 1.0))
    assert folder.state(plan.points[0], plan).status == "interrupted"
    finished(folder, plan, plan.points[0])
    assert folder.state(plan.points[0], plan).status == "done"


def test_points_of_another_program_begin_while_one_is_compiled(tmp_path):
    plan = experiments.read(tmp_path)
    waiting = list(plan.points)
    first = local.next_point(waiting, [], set())
    second = local.next_point(waiting, [first], set())
    assert [first.index, second.index] == [0, 4]  # batches of 8 and of 16
    third = local.next_point(waiting, [first], {local.program(first)})
    assert third.index == 1  # another seed of the first
