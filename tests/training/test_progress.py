import io
import re

import pytest

from fetalclip_jax.training.progress import Progress, clock_time

NUMBERS = {"loss": 3.1234, "images_per_second": 238.4, "data_wait_share": 0.0041}


def test_a_log_file_gets_whole_lines(capsys):
    progress = Progress(0, 850)
    for _ in range(200):
        progress.step()
    progress.numbers(200, NUMBERS, 161.0)
    progress.say("loss spike at step 203")
    progress.numbers(850, NUMBERS | {"mfu": 0.451}, 0.0)
    progress.close()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (
        "step 200/850  loss 3.123  238.4 pairs/s  data wait 0.4 %  eta 2:41\n"
        "loss spike at step 203\n"
        "step 850/850  loss 3.123  238.4 pairs/s  data wait 0.4 %  MFU 45.1 %\n"
    )


def test_a_terminal_gets_a_bar_with_the_step_of_now(monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress(10, 12)
    progress.step()
    progress.numbers(11, NUMBERS, 1.0)
    progress.say("a line")
    progress.step()
    progress.close()
    drawn = terminal.getvalue()
    assert "12/12" in drawn
    assert "238.4 pairs/s" in drawn
    # Nothing but what is said goes where results may be piped.
    assert re.sub(r"\s+", " ", capsys.readouterr().out).strip() == "a line"


def test_other_processes_of_a_job_show_nothing_but_what_they_say(capsys):
    progress = Progress(0, 2, bar=True, silent=True)
    progress.step()
    progress.numbers(1, NUMBERS, 1.0)
    progress.say("process 3 is behind")
    progress.close()
    assert capsys.readouterr() == ("process 3 is behind\n", "")


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (161.0, "2:41"), (3761.4, "1:02:41")])
def test_seconds_read_as_on_a_clock(seconds, text):
    assert clock_time(seconds) == text
