import os
import signal
import subprocess
import sys

import pytest

from fetalclip_jax.training import preemption


def test_after_the_first_step_a_signal_is_noted_and_nothing_else(capfd):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with preemption.Notice() as notice:
        notice.started()
        assert not notice.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.reached(2)
        assert notice.reached(3)
    assert capfd.readouterr().err == "SIGTERM: stopping after this step\n"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_notice_that_was_never_opened_leaves_signals_alone():
    notice = preemption.Notice()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not notice.reached(1)


PROGRAM = """
import os, signal, sys, time
from fetalclip_jax.training import preemption
preemption._PATIENCE_SECONDS = 0.1
with preemption.Notice() as notice:
    {body}
"""


def run(body, **more):
    program = PROGRAM.format(body=body)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | more,
    )


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_before_the_first_step_the_process_ends_with_status_0(number):
    ended = run(f"print('begun'); signal.raise_signal(signal.{number}); print('went on')")
    assert (ended.returncode, ended.stdout) == (0, "begun\n")
    assert ended.stderr.startswith(f"{number}: before the first step: nothing is lost")


def test_what_started_it_can_ask_for_another_status_than_0():
    more = {"FETALCLIP_STOPPED_STATUS": "75"}
    assert run("signal.raise_signal(signal.SIGTERM)", **more).returncode == 75
    assert run("notice.started(); sys.exit(notice.stopped_status)", **more).returncode == 75
    assert run("notice.started(); sys.exit(notice.stopped_status)").returncode == 0


@pytest.mark.parametrize("status", ["done", "-1", "256"])
def test_what_is_no_exit_status_is_refused(monkeypatch, status):
    monkeypatch.setenv("FETALCLIP_STOPPED_STATUS", status)
    with pytest.raises(ValueError, match=f"FETALCLIP_STOPPED_STATUS={status} is no exit status"):
        preemption.Notice()


def test_a_second_ctrl_c_ends_at_once():
    ended = run("notice.started(); [signal.raise_signal(signal.SIGINT) for _ in range(2)]")
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "SIGINT: stopping after this step\n"


def test_what_cannot_be_interrupted_is_not_waited_for():
    # A lock taken twice holds the main thread in C for ever, as a compilation does for minutes.
    ended = run(
        "import ctypes; os.fork() or (time.sleep(0.5), os.kill(os.getppid(), 15), os._exit(0));"
        " lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64);"
        " lock(mutex); lock(mutex)"
    )
    assert ended.returncode == 0
    assert "ending without waiting for a compilation" in ended.stderr


def test_children_end_when_told_to():
    ended = run(
        "child = os.fork() or time.sleep(30); time.sleep(0.3); os.kill(child, 15);"
        " print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert (ended.stdout, ended.stderr) == ("-15\n", "")


def test_importing_it_does_not_start_jax():
    assert run("print('jax' in sys.modules)").stdout == "False\n"
