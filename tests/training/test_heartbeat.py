"""Who stalls, told from the heartbeats of all; and that a quiet time is no stall."""

import json
import re
import time

import pytest

from fetalclip_jax.training import heartbeat
from fetalclip_jax.training.flight import Flight
from fetalclip_jax.training.goodput import Clock
from fetalclip_jax.training.heartbeat import Heartbeat, behind

NOW = 1000.0


def beat(step, phase="step", ago=1.0, host="a"):
    return {"step": step, "phase": phase, "time": NOW - ago, "host": host, "seconds": {}}


@pytest.mark.parametrize(
    ("beats", "line"),
    [
        # One waits for data; the devices of the others wait for its.
        (
            {0: beat(119), 1: beat(119), 2: beat(119, "data_wait", host="gpu-07")},
            "process 2 on gpu-07 is at step 119, waiting for the next batch; the furthest of 3 is "
            "at step 119",
        ),
        (
            {0: beat(119), 1: beat(118, "save", host="b")},
            "process 1 on b is at step 118, waiting for the checkpoint to be written; the furthest "
            "of 2 is at step 119",
        ),
        (
            {0: beat(119), 1: beat(119, ago=90.0, host="b"), 2: None},
            "process 1 on b has given no sign of life for 90 s; process 2 never began",
        ),
        (
            {0: beat(119), 1: beat(119)},
            "all 2 processes are at step 119, waiting for the devices",
        ),
        ({0: beat(7, "data_wait")}, "process 0 on a is at step 7, waiting for the next batch"),
        (
            {0: beat(7), 1: beat(7, "evaluate", host="b")},
            "process 1 on b is at step 7, in phase 'evaluate'; the furthest of 2 is at step 7",
        ),
    ],
)
def test_the_one_that_the_others_wait_for_is_named(beats, line):
    assert behind(beats, NOW, silent_after=30.0) == line


class Job:
    """A process whose steps finished at times of our choice; its thread never gets a turn."""

    def __init__(self, folder, stall_seconds=10.0, processes=1):
        self.said = []
        self.clock = Clock(time.time() - 1000.0)
        self.flight = Flight(5)
        self.folder = folder
        self.heart = Heartbeat(
            folder,
            self.clock,
            self.flight,
            process=0,
            processes=processes,
            stall_seconds=stall_seconds,
            say=self.said.append,
            seconds=1e6,
        )

    def stand(self, phase, seconds):
        """In a phase, as if nothing had happened for so long."""
        self.clock.enter(phase)
        self.clock.awake_since = self.flight.finished_at = time.time() - seconds
        self.heart.beat()
        self.heart.look()

    def written(self):
        return json.loads((self.folder / "0.json").read_text())


@pytest.fixture
def start(tmp_path):
    jobs = []

    def start(**options):
        jobs.append(Job(tmp_path / "heartbeats", **options))
        return jobs[-1]

    yield start
    for job in jobs:
        job.heart.close()
        job.flight.close()


def test_a_beat_says_where_a_process_is(start):
    job = start()
    job.clock.enter("data_wait")
    job.heart.beat()
    written = job.written()
    assert (written["process"], written["step"], written["phase"]) == (0, 5, "data_wait")
    assert written["time"] == pytest.approx(time.time(), abs=60)
    # Other tests of this process may have compiled something in that time.
    seconds = written["seconds"]
    assert seconds["start"] + seconds["compile"] == pytest.approx(1000, abs=60)
    assert [path.name for path in job.folder.iterdir()] == ["0.json"]
    job.heart.close()
    assert job.written()["phase"] == "stopped"


@pytest.mark.parametrize(
    ("phase", "what"),
    [("data_wait", "the next batch"), ("step", "the devices"), ("save", "the checkpoint")],
)
def test_a_stall_is_said_once_until_as_long_again_has_passed(start, phase, what):
    job = start()
    job.stand(phase, 5.0)
    assert job.said == []
    job.stand(phase, 13.0)
    job.heart.look()
    assert len(job.said) == 1
    line = r"no step has finished for \d+ s \(config\.train\.stall_seconds=10\): "
    assert re.match(line, job.said[0])
    assert f"at step 5, waiting for {what}" in job.said[0]


@pytest.mark.parametrize("phase", ["start", "compile", "evaluate"])
def test_what_takes_as_long_as_it_takes_is_no_stall(start, phase):
    job = start()
    job.stand(phase, 500.0)
    job.clock.enter("data_wait")  # the wait begins here
    job.heart.look()
    assert job.said == []


def test_zero_watches_for_nothing(start):
    job = start(stall_seconds=0.0)
    job.stand("step", 1e6)
    assert job.said == []


def test_others_are_known_by_their_files(start):
    job = start(processes=2)
    late = {"step": 3, "phase": "data_wait", "time": time.time(), "host": "b", "seconds": {}}
    (job.folder / "1.json").write_text(json.dumps(late))
    (job.folder / "2.json").write_text("{")  # of an earlier run on more hosts, and cut short
    job.stand("step", 11.0)
    assert "process 1 on b is at step 3, waiting for the next batch" in job.said[0]
    assert heartbeat.read(job.folder).keys() == {0, 1}


def test_a_full_disk_ends_nothing(start, tmp_path):
    job = start()
    job.folder.rename(tmp_path / "moved")
    (tmp_path / "heartbeats").write_text("no folder")
    job.heart.beat()
    assert heartbeat.read(job.folder) == {}
    assert heartbeat.read(tmp_path / "moved").keys() == {0}


def test_the_thread_beats_and_looks_by_itself(tmp_path):
    said, clock, flight = [], Clock(time.time()), Flight(0)
    clock.enter("data_wait")
    heart = Heartbeat(
        tmp_path,
        clock,
        flight,
        process=0,
        processes=1,
        stall_seconds=0.05,
        say=said.append,
    )
    deadline = time.monotonic() + 20
    while not said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    heart.close()
    flight.close()
    assert "waiting for the next batch" in said[0]
