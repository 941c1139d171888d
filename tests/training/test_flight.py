import threading
import time

import pytest

from fetalclip_jax.training.flight import Flight


class Result:
    """Of a step that ends when it is told to."""

    def __init__(self):
        self.over = threading.Event()
        self.error = None

    def block_until_ready(self):
        assert self.over.wait(10)
        if self.error:
            raise self.error
        return self

    def end(self):
        self.over.set()
        return self


@pytest.fixture
def flight():
    flight = Flight(first=4, most=2)
    yield flight
    flight.close()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_step_counts_when_it_is_finished_not_when_it_is_started(flight):
    step = Result()
    flight.started(5, step)
    assert flight.finished == 4
    assert flight.busy_until() == pytest.approx(time.time(), abs=60)
    step.end()
    until(lambda: flight.finished == 5)
    until(lambda: flight.busy_until() == flight.finished_at)


def test_two_steps_are_under_way_and_no_more(flight):
    steps = [Result(), Result()]
    for number, step in enumerate(steps, start=5):
        flight.make_room()
        flight.started(number, step)
    waiting = threading.Thread(target=flight.make_room, daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    steps[0].end()
    waiting.join(10)
    assert not waiting.is_alive()
    assert flight.finished == 5
    for step in steps:
        step.end()


def test_what_a_device_raises_ends_the_loop(flight):
    broken = Result()
    broken.error = RuntimeError("out of memory")
    flight.started(5, broken.end())
    flight.started(6, Result().end())
    with pytest.raises(RuntimeError, match="out of memory"):
        flight.make_room()
